internal import CGeventSystem
internal import Glibc

/// A watcher of a C library, allocated by a loop. The library keeps its address. A C struct conforms through the names
/// of its members.
@_spi(GeventInternals)
public protocol LibrarySlot {
    /// The next slot in the list of slots changed since the last poll.
    var nextChanged: UnsafeMutablePointer<Self>! { get set }

    /// Whether the slot is in that list.
    var isChanged: Bool { get set }
}

/// The state that a loop shares with the callbacks of its C library.
///
/// A callback accesses nothing else of the loop. It appends an event or sets a flag, and returns.
@_spi(GeventInternals)
public struct CallbackState<Slot: LibrarySlot, Extra> {
    /// The batch to append events to; nil while other code runs an adopted loop.
    public var events: UnsafeMutablePointer<ReadyEvents>?
    public var isWoken = false
    public var isExpired = false
    /// Additional state for one library.
    public var extra: Extra
    @usableFromInline var changed: UnsafeMutablePointer<Slot>?
    private let waker: Unmanaged<EventWaker>

    /// - Parameter waker: the loop's waker. It is not retained, because the loop outlives its callbacks.
    public init(waker: EventWaker, extra: Extra) {
        self.waker = .passUnretained(waker)
        self.extra = extra
    }

    /// Adds a slot to the list of changed slots, which the loop processes before the next run.
    @inlinable
    public mutating func markChanged(_ slot: UnsafeMutablePointer<Slot>) {
        if slot.pointee.isChanged { return }
        slot.pointee.isChanged = true
        slot.pointee.nextChanged = changed
        changed = slot
    }

    /// Removes a slot from that list and returns it, or returns nil if the list is empty.
    @inlinable
    public mutating func popChanged() -> UnsafeMutablePointer<Slot>? {
        guard let slot = changed else { return nil }
        changed = slot.pointee.nextChanged
        slot.pointee.isChanged = false
        return slot
    }

    /// Records a wake. The callback of the waker's descriptor calls it.
    public mutating func wake() {
        isWoken = true
        waker._withUnsafeGuaranteedRef { $0.drain() }
    }

    /// Returns whether the library may wait. It may not after a wake that came while other code ran the loop.
    public func mayBlock(until deadline: LoopInstant?) -> Bool {
        if isWoken { return false }
        guard let deadline else { return true }
        return deadline != .distantPast && deadline.nanoseconds > gevent_monotonic_time()
    }

    /// Runs the library once and lets its callbacks append to `events`. Returns whether a wake or the deadline ended
    /// the run.
    @inlinable
    public static func run(
        _ state: UnsafeMutablePointer<Self>, into events: inout ReadyEvents, _ body: () -> Void
    ) -> (isWoken: Bool, isExpired: Bool) {
        withUnsafeMutablePointer(to: &events) { events in
            state.pointee.events = events
            body()
            state.pointee.events = nil
        }
        defer {
            state.pointee.isWoken = false
            state.pointee.isExpired = false
        }
        return (state.pointee.isWoken, state.pointee.isExpired)
    }
}

/// The slots of a loop, indexed by descriptor number.
///
/// A number keeps its slot for as long as the loop exists. The kernel assigns the lowest free number, so there are
/// about as many slots as there were simultaneous connections. A number gets a slot only after the kernel has accepted
/// it, so the limit on open descriptors bounds the table.
@_spi(GeventInternals)
public struct LibrarySlots<Slot: LibrarySlot> {
    @usableFromInline var table: [UnsafeMutablePointer<Slot>?] = []

    public init() {}

    /// The slot of a descriptor number, or nil if there is none. Any number is valid, including negative ones.
    @inlinable
    public subscript(fileDescriptor: CInt) -> UnsafeMutablePointer<Slot>? {
        let index = Int(fileDescriptor)
        return index >= 0 && index < table.count ? table[index] : nil
    }

    /// Stores the slot of a number, which is not negative.
    public mutating func insert(_ slot: UnsafeMutablePointer<Slot>, for fileDescriptor: CInt) {
        let index = Int(fileDescriptor)
        while table.count <= index { table.append(nil) }
        table[index] = slot
    }

    /// All slots, in the order of their descriptor numbers.
    @inlinable
    public var all: some Sequence<UnsafeMutablePointer<Slot>> { table.lazy.compactMap { $0 } }

    /// Removes all slots. The caller must deallocate them.
    public mutating func removeAll() { table = [] }
}

/// Throws if the system cannot create another epoll descriptor. A C library closes its own before it creates another,
/// and cannot run without one. A loop therefore checks first, while an error still leaves everything unchanged.
@_spi(GeventInternals)
public func checkEpollIsAvailable() throws(LoopError) {
    _ = Glibc.close(try LoopError.check(gevent_epoll(), "epoll_create1"))
}
