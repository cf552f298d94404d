internal import CGeventSystem
internal import Glibc

/// One watcher of a C library, allocated by a loop. The library keeps its address. A struct in C conforms by the names
/// of its members.
@_spi(GeventInternals)
public protocol LibrarySlot {
    /// The next slot in the list of those that have changed since the last poll.
    var nextChanged: UnsafeMutablePointer<Self>! { get set }

    /// Whether it is in that list.
    var isChanged: Bool { get set }
}

/// The state that a loop shares with the callbacks of its C library.
///
/// A callback reaches nothing else of the loop. It appends an event or sets a flag, and returns.
@_spi(GeventInternals)
public struct LibraryTurn<Slot: LibrarySlot, Notes> {
    /// Where events go; nil while other code runs an adopted loop.
    public var events: UnsafeMutablePointer<ReadyEvents>?
    public var isWoken = false
    public var isExpired = false
    /// Flags of one library.
    public var notes: Notes
    @usableFromInline var changed: UnsafeMutablePointer<Slot>?
    private let waker: Unmanaged<EventWaker>

    /// - Parameter waker: is not retained; the loop outlives its callbacks.
    public init(waker: EventWaker, notes: Notes) {
        self.waker = .passUnretained(waker)
        self.notes = notes
    }

    /// Puts a slot into the list of those to look at before the next run.
    @inlinable
    public mutating func remember(_ slot: UnsafeMutablePointer<Slot>) {
        if slot.pointee.isChanged { return }
        slot.pointee.isChanged = true
        slot.pointee.nextChanged = changed
        changed = slot
    }

    /// Takes a slot out of that list; nil if it is empty.
    @inlinable
    public mutating func takeChanged() -> UnsafeMutablePointer<Slot>? {
        guard let slot = changed else { return nil }
        changed = slot.pointee.nextChanged
        slot.pointee.isChanged = false
        return slot
    }

    /// For the callback of the waker's descriptor.
    public mutating func wake() {
        isWoken = true
        waker._withUnsafeGuaranteedRef { $0.drain() }
    }

    /// Whether the library may wait. A wake that came while other code ran the loop is still due.
    public func mayBlock(until deadline: LoopInstant?) -> Bool {
        if isWoken { return false }
        guard let deadline else { return true }
        return deadline != .distantPast && deadline.nanoseconds > gevent_monotonic_time()
    }

    /// Has one run of the library append to `events`. Returns whether a wake or the deadline ended it.
    @inlinable
    public static func run(
        _ turn: UnsafeMutablePointer<Self>, into events: inout ReadyEvents, _ body: () -> Void
    ) -> (isWoken: Bool, isExpired: Bool) {
        withUnsafeMutablePointer(to: &events) { events in
            turn.pointee.events = events
            body()
            turn.pointee.events = nil
        }
        defer {
            turn.pointee.isWoken = false
            turn.pointee.isExpired = false
        }
        return (turn.pointee.isWoken, turn.pointee.isExpired)
    }
}

/// The slots of a loop by descriptor.
///
/// A slot stays with its number for as long as the loop lives. The kernel hands out the lowest free number, so there
/// are about as many as there were connections. It accepts a number before the number gets a slot, so its limit on open
/// descriptors bounds the table.
@_spi(GeventInternals)
public struct LibrarySlots<Slot: LibrarySlot> {
    @usableFromInline var table: [UnsafeMutablePointer<Slot>?] = []

    public init() {}

    /// The slot of any number at all, negative ones included; nil if it has none.
    @inlinable
    public subscript(fileDescriptor: CInt) -> UnsafeMutablePointer<Slot>? {
        let index = Int(fileDescriptor)
        return index >= 0 && index < table.count ? table[index] : nil
    }

    /// Gives a number its slot. The number is not negative.
    public mutating func insert(_ slot: UnsafeMutablePointer<Slot>, for fileDescriptor: CInt) {
        let index = Int(fileDescriptor)
        while table.count <= index { table.append(nil) }
        table[index] = slot
    }

    /// All slots, in the order of their numbers.
    @inlinable
    public var all: some Sequence<UnsafeMutablePointer<Slot>> { table.lazy.compactMap { $0 } }

    /// Empties the table, and leaves the slots to the caller.
    public mutating func removeAll() { table = [] }
}

/// Throws if the system has no other epoll descriptor to give. A C library closes its own before it asks for another,
/// and can do nothing without one. So a loop asks first, while an error still leaves everything as it was.
@_spi(GeventInternals)
public func checkEpollIsAvailable() throws(LoopError) {
    _ = Glibc.close(try LoopError.check(gevent_epoll(), "epoll_create1"))
}
