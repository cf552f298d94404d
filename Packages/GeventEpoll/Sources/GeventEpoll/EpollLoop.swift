internal import CGeventSystem
@_spi(GeventInternals) public import GeventLoop
internal import Glibc

/// A loop on Linux's epoll, an eventfd and the monotonic clock. It needs no library.
///
/// `epoll_pwait2` (Linux 5.11) keeps deadlines to the nanosecond. On older kernels, and in sandboxes that do not allow
/// the call, deadlines round up to whole milliseconds.
public final class EpollLoop: Loop {
    /// "epoll".
    public static var backendName: String { "epoll" }

    /// The epoll descriptor, or -1 once closed.
    private var epoll: CInt
    private let epollWaker: EventWaker
    private var table = InterestTable()
    private let owner = pthread_self()

    /// The buffer that the kernel writes events to. Its contents are used within one poll only.
    private let buffer: UnsafeMutablePointer<epoll_event>
    /// The maximum number of events of one poll. The kernel reports ready descriptors in rotation, so the next polls
    /// report the others. A larger number would save system calls, but the memory that the kernel touched to report a
    /// descriptor would have left the cache before the descriptor is used: with 1,000 events per poll, an echo over as
    /// many connections costs a fifth more.
    private static let bufferCapacity = 128

    /// 0 if `epoll_pwait2` is in use, otherwise the reason: an error number, or -1 if it was switched off.
    private let nanosecondsFailure: CInt

    /// Creates a loop that belongs to the calling thread.
    ///
    /// - Throws: ``/GeventLoop/LoopError`` with code `outOfResources` if no descriptors or memory are left, or with
    ///   another code if the system refuses epoll.
    public convenience init() throws(LoopError) {
        try self.init(allowingNanoseconds: true)
    }

    /// Creates a loop that optionally avoids `epoll_pwait2`, to test the code path of older kernels.
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
        // Does not call `close()`, which asserts the thread: any thread may release the last reference, and no other
        // code can be using the loop then.
        if epoll >= 0 { _ = Glibc.close(epoll) }
        buffer.deallocate()
    }

    public var now: LoopInstant {
        assertUsable()
        return LoopInstant(nanoseconds: gevent_monotonic_time())
    }

    /// A nanosecond with `epoll_pwait2`, otherwise a millisecond.
    public var timerResolution: Duration {
        assertUsable()
        return nanosecondsFailure == 0 ? .nanoseconds(1) : .milliseconds(1)
    }

    public var waker: any LoopWaker { epollWaker }

    /// The system call used to wait.
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
            // Removes the descriptor instead of registering it without events, because the kernel reports hang-up and
            // error regardless of the interest, for as long as they last.
            if !isRegistered { return }
            table.clear(fileDescriptor)
            // A failure means that the kernel no longer has the descriptor, as after it was closed.
            _ = gevent_epoll_control(epoll, EPOLL_CTL_DEL, fileDescriptor, 0, 0)
            return
        }
        let entry = InterestTable.Entry(generation: generation, interest: interest)
        // Called even if the interest seems unchanged: the number may refer to another file, which the kernel does not
        // watch yet.
        let error = control(isRegistered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, entry, for: fileDescriptor)
        if error != 0 {
            table.clear(fileDescriptor)
            throw LoopError(errno: error, operation: "epoll_ctl", fileDescriptor: fileDescriptor)
        }
        table.set(entry, for: fileDescriptor)
    }

    /// Registers with the kernel and returns 0 or an error number.
    ///
    /// The table can be out of date, because numbers are closed and reused. So each operation falls back to the other:
    /// the kernel has removed a closed file (`ENOENT`), or a reused number is still registered (`EEXIST`).
    private func control(_ operation: CInt, _ entry: InterestTable.Entry, for fileDescriptor: CInt) -> CInt {
        // EPOLLIN includes the end of the stream, so EPOLLRDHUP is not needed.
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
            // On a signal the poll returns early, as the contract allows, so that the effects of its handler are seen
            // at once.
            if count == -EINTR { return }
            throw LoopError(errno: -count, operation: "epoll_wait")
        }
        if append(Int(count), to: &events) { try rebuild(into: &events) }
    }

    /// Returns the nanoseconds to wait: 0 to not wait at all, -1 for no deadline.
    ///
    /// The kernel adds them to its own, later reading of the same clock, so the wait never ends before the deadline.
    private func timeout(until deadline: LoopInstant?) -> Int64 {
        guard let deadline, deadline != .distantFuture else { return -1 }
        if deadline == .distantPast { return 0 }
        let now = gevent_monotonic_time()
        return deadline.nanoseconds <= now ? 0 : deadline.nanoseconds - now
    }

    /// Appends the events that the kernel wrote to the buffer. Returns whether there were orphans; see ``rebuild()``.
    private func append(_ count: Int, to events: inout ReadyEvents) -> Bool {
        var hasOrphans = false
        for index in 0..<count {
            let event = buffer + index
            let data = gevent_epoll_data(event)
            // The waker is edge-triggered: each write is reported once, and the counter need not be read.
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

    /// Replaces the epoll descriptor by a new one with the registrations of the table.
    ///
    /// The kernel watches files, not numbers. If a watched number is closed without being removed while a duplicate
    /// exists (for example in a child process), the file stays registered under a number that can no longer remove it,
    /// and is reported for ever. No core code runs between the kernel's report and its translation, so an event that is
    /// not in the table must be such an orphan. Without this function the hub would spin on it.
    ///
    /// If the new descriptor cannot be created, the old one stays with all its registrations. A registration that the
    /// kernel then refuses for lack of resources is reported as lost.
    private func rebuild(into events: inout ReadyEvents) throws(LoopError) {
        try replaceEpoll()
        for fileDescriptor in 0..<table.limit where !table[fileDescriptor].interest.isEmpty {
            let entry = table[fileDescriptor]
            let error = control(EPOLL_CTL_ADD, entry, for: fileDescriptor)
            if error == 0 { continue }
            table.clear(fileDescriptor)
            // The descriptor was closed without notice: the kernel has dropped it, and so does the loop.
            if error == EBADF || error == EPERM { continue }
            events.append(ReadyEvent(fileDescriptor: fileDescriptor, generation: entry.generation, readiness: []))
        }
    }

    /// Replaces the epoll descriptor by a new one that watches only the waker, under the same number.
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

    /// Watches the waker edge-triggered: every write to the counter is one event, and the counter is never read. A wake
    /// between two polls stays queued in the epoll descriptor, which makes wakes sticky.
    private func watchWaker(_ epoll: CInt) throws(LoopError) {
        let events = Bits.input | Bits.edge
        try LoopError.check(
            gevent_epoll_control(epoll, EPOLL_CTL_ADD, epollWaker.fileDescriptor, events, Self.wakerToken),
            "epoll_ctl(eventfd)")
    }

    public func recoverAfterFork() throws(LoopError) {
        assertUsable()
        if epoll < 0 { throw LoopError(.closed, operation: "recoverAfterFork") }
        // The old kernel objects belong to the parent. Replacing our descriptors does not affect them: a registration
        // is removed with the last descriptor of its file, and the parent has its own descriptors.
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

    /// The token of the waker. It is no descriptor's token, because its lower half would be descriptor -1.
    private static let wakerToken = UInt64.max

    /// Returns the value that the kernel reports with each event: the generation above the descriptor.
    private func token(_ fileDescriptor: CInt, _ generation: UInt32) -> UInt64 {
        UInt64(generation) << 32 | UInt64(UInt32(bitPattern: fileDescriptor))
    }

    private func assertUsable(_ call: StaticString = #function) {
        assert(pthread_equal(owner, pthread_self()) != 0, "EpollLoop.\(call) was called on another thread")
        assert(epoll >= 0, "EpollLoop.\(call) was called after close()")
    }
}

// Confined to the thread that created it; only its waker may leave that thread.
@available(*, unavailable)
extension EpollLoop: Sendable {}
