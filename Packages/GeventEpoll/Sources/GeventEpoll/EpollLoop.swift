internal import CGeventSystem
@_spi(GeventInternals) public import GeventLoop
internal import Glibc

/// The loop of Linux itself: epoll, an eventfd and the monotonic clock. It needs no library.
///
/// Deadlines are kept to the nanosecond by `epoll_pwait2` (Linux 5.11); older kernels, and sandboxes that do not know
/// the call, get whole milliseconds, rounded up.
public final class EpollLoop: Loop {
    /// "epoll".
    public static var backendName: String { "epoll" }

    /// The epoll descriptor, or -1 once closed.
    private var epoll: CInt
    private let epollWaker: EventWaker
    private var table = InterestTable()
    private let owner = pthread_self()

    /// Where the kernel writes events; translated and forgotten within one poll.
    private let buffer: UnsafeMutablePointer<epoll_event>
    /// The most events of one poll. The kernel reports what is ready in turn, so the next polls report the rest. More
    /// at a time would save system calls, but what the kernel has touched to report a descriptor would be out of the
    /// cache again before the descriptor is used: with 1,000 at a time, an echo with as many connections costs a fifth
    /// more.
    private static let bufferCapacity = 128

    /// 0 if `epoll_pwait2` is in use, else why it is not: an error number, or -1 if it was switched off.
    private let nanosecondsFailure: CInt

    /// A loop that belongs to the calling thread.
    ///
    /// - Throws: ``/GeventLoop/LoopError`` with code `outOfResources` if there are no descriptors or memory left, or
    ///   another one if the system refuses epoll altogether.
    public convenience init() throws(LoopError) {
        try self.init(allowingNanoseconds: true)
    }

    /// A loop that can be kept from using `epoll_pwait2`, to test what older kernels run.
    package init(allowingNanoseconds: Bool) throws(LoopError) {
        let waker = try EventWaker()
        let epoll = try LoopError.check(gevent_epoll(), "epoll_create1")
        self.epoll = epoll
        epollWaker = waker
        nanosecondsFailure = allowingNanoseconds ? -gevent_epoll_probe_nanoseconds(epoll) : -1
        buffer = .allocate(capacity: Self.bufferCapacity)
        try watchWaker(epoll)
    }

    deinit {
        // Not `close()`: the last reference may be dropped on any thread, and nobody else can be using it.
        if epoll >= 0 { _ = Glibc.close(epoll) }
        buffer.deallocate()
    }

    public var now: LoopInstant {
        assertUsable()
        return LoopInstant(nanoseconds: gevent_monotonic_time())
    }

    /// A nanosecond with `epoll_pwait2`, a millisecond without.
    public var timerResolution: Duration {
        assertUsable()
        return nanosecondsFailure == 0 ? .nanoseconds(1) : .milliseconds(1)
    }

    public var waker: any LoopWaker { epollWaker }

    /// Which system call waits.
    public var features: [String: String] {
        switch nanosecondsFailure {
        case 0: ["epoll_pwait2": "yes"]
        case -1: ["epoll_pwait2": "no (switched off)"]
        case let code: ["epoll_pwait2": "no (\(LoopError(.system, errno: code, operation: "probe").message))"]
        }
    }

    public func close() {
        assert(pthread_equal(owner, pthread_self()) != 0, "EpollLoop.close() was called on another thread")
        if epoll < 0 { return }
        _ = Glibc.close(epoll)
        epoll = -1
        table.clearAll()
    }

    // MARK: Interest

    public func setInterest(
        _ interest: Readiness, for fileDescriptor: CInt, generation: UInt32
    ) throws(LoopError) {
        assertUsable()
        if epoll < 0 { throw LoopError(.closed, operation: "setInterest", fileDescriptor: fileDescriptor) }
        let isRegistered = !table[fileDescriptor].interest.isEmpty
        if interest.isEmpty {
            // Taking a descriptor out, and not leaving it in with no events: hang-up and error are reported regardless
            // of what was asked for, and would be for as long as they last.
            if !isRegistered { return }
            table.clear(fileDescriptor)
            // Every failure means that the kernel has forgotten it, as it does when a descriptor is closed.
            _ = gevent_epoll_control(epoll, EPOLL_CTL_DEL, fileDescriptor, 0, 0)
            return
        }
        let entry = InterestTable.Entry(generation: generation, interest: interest)
        // Also when nothing seems to change: the number may be another file by now, which the kernel does not watch.
        let error = control(isRegistered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, entry, for: fileDescriptor)
        if error != 0 {
            table.clear(fileDescriptor)
            throw LoopError(errno: error, operation: "epoll_ctl", fileDescriptor: fileDescriptor)
        }
        table.set(entry, for: fileDescriptor)
    }

    /// Registers with the kernel; returns 0 or an error number.
    ///
    /// What the table says can be out of date, as numbers are closed and reused, so each operation falls back to the
    /// other: a closed file has left the kernel's set (`ENOENT`), or a number has come back that is still in it
    /// (`EEXIST`).
    private func control(_ operation: CInt, _ entry: InterestTable.Entry, for fileDescriptor: CInt) -> CInt {
        // The end of the stream is part of EPOLLIN, so EPOLLRDHUP would only say the same thing twice.
        var events: UInt32 = 0
        if entry.interest.contains(.read) { events |= Bits.input }
        if entry.interest.contains(.write) { events |= Bits.output }
        let data = token(fileDescriptor, entry.generation)
        let result = gevent_epoll_control(epoll, operation, fileDescriptor, events, data)
        switch (operation, -result) {
        case (EPOLL_CTL_MOD, ENOENT):
            return -gevent_epoll_control(epoll, EPOLL_CTL_ADD, fileDescriptor, events, data)
        case (EPOLL_CTL_ADD, EEXIST):
            return -gevent_epoll_control(epoll, EPOLL_CTL_MOD, fileDescriptor, events, data)
        default:
            return -result
        }
    }

    // MARK: Polling

    public func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        assertUsable()
        if epoll < 0 { throw LoopError(.closed, operation: "poll") }
        let timeout = timeout(until: deadline)
        let count =
            nanosecondsFailure == 0
            ? gevent_epoll_wait_nanoseconds(epoll, buffer, CInt(Self.bufferCapacity), timeout)
            : gevent_epoll_wait_milliseconds(epoll, buffer, CInt(Self.bufferCapacity), timeout)
        if count < 0 {
            // A signal: an early return, as the contract allows, so that its handler's work is seen at once.
            if count == -EINTR { return }
            throw LoopError(errno: -count, operation: "epoll_wait")
        }
        if append(Int(count), to: &events) { try rebuild(into: &events) }
    }

    /// Nanoseconds to wait; 0 for not at all, -1 for no deadline.
    ///
    /// The kernel adds this to its own, later reading of the same clock, so it never ends before the deadline.
    private func timeout(until deadline: LoopInstant?) -> Int64 {
        guard let deadline, deadline != .distantFuture else { return -1 }
        if deadline == .distantPast { return 0 }
        let now = gevent_monotonic_time()
        return deadline.nanoseconds <= now ? 0 : deadline.nanoseconds - now
    }

    /// Appends what the kernel has written to the buffer. Returns whether there were orphans, see ``rebuild()``.
    private func append(_ count: Int, to events: inout ReadyEvents) -> Bool {
        var hasOrphans = false
        for index in 0..<count {
            let event = buffer + index
            let data = gevent_epoll_data(event)
            // Edge-triggered, so there is no counter to read back: each write is reported once.
            if data == Self.wakerToken { continue }
            let fileDescriptor = CInt(truncatingIfNeeded: data)
            let generation = UInt32(truncatingIfNeeded: data >> 32)
            let entry = table[fileDescriptor]
            if entry.generation != generation || entry.interest.isEmpty {
                hasOrphans = true
                continue
            }
            events.append(
                ReadyEvent(
                    fileDescriptor: fileDescriptor, generation: generation,
                    readiness: readiness(gevent_epoll_events(event))))
        }
        return hasOrphans
    }

    private func readiness(_ events: UInt32) -> Readiness {
        var readiness: Readiness = []
        if events & (Bits.input | Bits.failed) != 0 { readiness.insert(.read) }
        if events & (Bits.output | Bits.failed) != 0 { readiness.insert(.write) }
        return readiness
    }

    /// Moves to a fresh epoll descriptor, with the registrations of the table.
    ///
    /// The kernel watches files, not numbers. A watched number that was closed without being removed, while a
    /// duplicate of it lives on (in a child process, perhaps), stays in the set under a number that can no longer
    /// take it out, and reports for ever. No core code runs between the kernel's answer and its translation, so an
    /// event which the table does not know can only be such an orphan; without this, the hub would spin on it.
    ///
    /// If the fresh descriptor cannot be had, the old one stays, with everything in it. What the kernel then refuses to
    /// watch for want of resources is reported as a lost registration.
    private func rebuild(into events: inout ReadyEvents) throws(LoopError) {
        try replaceEpoll()
        for fileDescriptor in 0..<table.limit where !table[fileDescriptor].interest.isEmpty {
            let entry = table[fileDescriptor]
            let error = control(EPOLL_CTL_ADD, entry, for: fileDescriptor)
            if error == 0 { continue }
            table.clear(fileDescriptor)
            // Closed behind our back as well: the kernel had forgotten it, and so do we.
            if error == EBADF || error == EPERM { continue }
            events.append(ReadyEvent(fileDescriptor: fileDescriptor, generation: entry.generation, readiness: []))
        }
    }

    /// Puts a fresh epoll descriptor, which watches the waker only, behind the number of the old one.
    private func replaceEpoll() throws(LoopError) {
        let fresh = try LoopError.check(gevent_epoll(), "epoll_create1")
        do throws(LoopError) {
            try watchWaker(fresh)
        } catch {
            _ = Glibc.close(fresh)
            throw error
        }
        try LoopError.check(gevent_replace(epoll, fresh), "dup3")
    }

    // MARK: Waking and forking

    /// Edge-triggered: every write to the counter is one event, and nobody has to read it. A wake between two polls
    /// stays queued in the epoll descriptor, which is what makes it sticky.
    private func watchWaker(_ epoll: CInt) throws(LoopError) {
        let events = Bits.input | Bits.edge
        try LoopError.check(
            gevent_epoll_control(epoll, EPOLL_CTL_ADD, epollWaker.fileDescriptor, events, Self.wakerToken),
            "epoll_ctl(eventfd)")
    }

    public func recoverAfterFork() throws(LoopError) {
        assertUsable()
        if epoll < 0 { throw LoopError(.closed, operation: "recoverAfterFork") }
        // The old objects are the parent's. Replacing our descriptors of them does not touch them: registrations go
        // with the last descriptor of a file, and the parent has its own.
        table.clearAll()
        try epollWaker.replaceAfterFork()
        try replaceEpoll()
    }

    // MARK: Tokens

    private enum Bits {
        static let input = EPOLLIN.rawValue
        static let output = EPOLLOUT.rawValue
        static let failed = EPOLLHUP.rawValue | EPOLLERR.rawValue
        static let edge = EPOLLET.rawValue
    }

    /// Belongs to no descriptor: its lower half would be descriptor -1.
    private static let wakerToken = UInt64.max

    /// What the kernel hands back with each event: the generation above the descriptor.
    private func token(_ fileDescriptor: CInt, _ generation: UInt32) -> UInt64 {
        UInt64(generation) << 32 | UInt64(UInt32(bitPattern: fileDescriptor))
    }

    private func assertUsable(_ call: StaticString = #function) {
        assert(pthread_equal(owner, pthread_self()) != 0, "EpollLoop.\(call) was called on another thread")
        assert(epoll >= 0, "EpollLoop.\(call) was called after close()")
    }
}

// Confined to the thread that made it; its waker is what may leave.
@available(*, unavailable)
extension EpollLoop: Sendable {}
