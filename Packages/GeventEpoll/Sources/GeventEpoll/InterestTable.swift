internal import GeventLoop

/// What is registered with the kernel: a flat table by descriptor number.
///
/// Descriptors are small and dense, because the kernel always hands out the lowest free number, so a table beats a
/// dictionary in memory and in time. Only numbers the kernel has accepted are stored: its limit on open descriptors
/// bounds the table.
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
        // `Entry` is trivial: there is nothing to deinitialise.
        base.deallocate()
    }

    /// What is registered for any number at all, negative ones included: an entry without interest if nothing is.
    subscript(fileDescriptor: CInt) -> Entry {
        let index = Int(fileDescriptor)
        return index >= 0 && index < capacity ? base[index] : Entry()
    }

    /// Stores what the kernel has accepted. The number is not negative.
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

    /// Numbers above every registered descriptor are not below this.
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
