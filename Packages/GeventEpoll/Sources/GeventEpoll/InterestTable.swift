internal import GeventLoop

/// The registrations with the kernel, in a flat table indexed by descriptor number.
///
/// Descriptors are small and dense, because the kernel always assigns the lowest free number. A table therefore needs
/// less memory and time than a dictionary. Only numbers that the kernel has accepted are stored, so its limit on open
/// descriptors bounds the table.
struct InterestTable: ~Copyable {
    struct Entry {
        var generation: UInt32 = 0
        /// Empty if the descriptor is not registered.
        var interest: Readiness = []
    }

    private var base: UnsafeMutablePointer<Entry>
    private var capacity: Int

    init() {
        capacity = 64
        base = .allocate(capacity: capacity)
        base.initialize(repeating: Entry(), count: capacity)
    }

    deinit {
        // `Entry` is trivial, so it needs no deinitialisation.
        base.deallocate()
    }

    /// The registration of a descriptor number, or an entry without interest if there is none. Any number is valid,
    /// including negative ones.
    subscript(fileDescriptor: CInt) -> Entry {
        let index = Int(fileDescriptor)
        return index >= 0 && index < capacity ? base[index] : Entry()
    }

    /// Stores a registration that the kernel has accepted. The number is not negative.
    mutating func set(_ entry: Entry, for fileDescriptor: CInt) {
        let index = Int(fileDescriptor)
        if index >= capacity { grow(toHold: index) }
        base[index] = entry
    }

    mutating func clear(_ fileDescriptor: CInt) {
        let index = Int(fileDescriptor)
        if index >= 0 && index < capacity { base[index] = Entry() }
    }

    mutating func clearAll() {
        base.update(repeating: Entry(), count: capacity)
    }

    /// An upper bound, exclusive, of the registered descriptor numbers.
    var limit: CInt { CInt(capacity) }

    private mutating func grow(toHold index: Int) {
        let newCapacity = max(capacity * 2, index + 1)
        let larger = UnsafeMutablePointer<Entry>.allocate(capacity: newCapacity)
        larger.moveInitialize(from: base, count: capacity)
        (larger + capacity).initialize(repeating: Entry(), count: newCapacity - capacity)
        base.deallocate()
        base = larger
        capacity = newCapacity
    }
}
