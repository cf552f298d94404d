internal import CGeventSystem
public import GeventLoop
internal import Glibc

/// A loop on virtual time, which starts at zero and jumps to the next deadline when the program is idle. Tests of
/// timeouts take no real time and always see the same order.
///
/// It is also the smallest complete loop: **read this one first** if you want to write your own. It gets readiness from
/// `poll(2)`, which receives every descriptor on each call, so there is no kernel state to keep consistent. The
/// remainder implements the contract in ``/GeventLoop/Loop`` line by line.
///
/// ## Time
/// - A poll with nothing ready and a future deadline moves ``now`` to the deadline and returns.
/// - A poll without a deadline blocks in real time until a descriptor is ready or another thread wakes it, because
///   nothing else can end it.
/// - Time must also pass for a program that is never idle, or an endless loop of `sleep()` under a timeout would never
///   end. After ``busyPollLimit`` consecutive polls that had no reason to wait, each further one takes
///   ``busyPollStep``.
/// - Other threads and processes take no virtual time: data that another process will write to a pipe "soon" arrives
///   after any deadline.
/// - The time of `VirtualLoop(advancesAutomatically: false)` moves only by ``advance(by:)``. A poll with a future
///   deadline then blocks like one without a deadline.
///
/// ## Descriptors
/// Pipes and sockets work as on any loop. In addition, ``makeReady(_:_:)`` makes an open descriptor count as ready,
/// regardless of the kernel.
public final class VirtualLoop: Loop {
    /// "virtual".
    public static var backendName: String { "virtual" }

    /// The number of consecutive polls without a reason to wait before time begins to pass.
    public static let busyPollLimit = 100

    /// The virtual time that each further poll takes.
    public static let busyPollStep = Duration.microseconds(100)

    private struct Interest {
        var readiness: Readiness
        var generation: UInt32
    }

    private var time = LoopInstant(nanoseconds: 0)
    private var busyPolls = 0
    private let advancesAutomatically: Bool
    private var interests: [CInt: Interest] = [:]
    private var injected: [CInt: Readiness] = [:]
    private let pipe: WakePipe
    private let owner = pthread_self()
    private var isClosed = false

    /// Creates a loop at time zero that belongs to the calling thread.
    ///
    /// - Parameter advancesAutomatically: whether time jumps to the deadline when nothing is ready; if false, it moves
    ///   only by ``advance(by:)``.
    /// - Throws: ``/GeventLoop/LoopError`` if no descriptors are left.
    public init(advancesAutomatically: Bool = true) throws(LoopError) {
        self.advancesAutomatically = advancesAutomatically
        pipe = try WakePipe()
    }

    public var now: LoopInstant {
        assertUsable()
        return time
    }

    /// A nanosecond: virtual deadlines are kept exactly.
    public var timerResolution: Duration {
        assertUsable()
        return .nanoseconds(1)
    }

    /// True: the loop does not wait for a deadline.
    public var hasVirtualTime: Bool { true }

    public var waker: any LoopWaker { pipe }

    public func close() {
        assertThread()
        isClosed = true
        interests = [:]
        injected = [:]
    }

    // MARK: Time

    /// Moves time forward. Due timers fire at the next poll.
    ///
    /// - Parameter duration: not negative.
    public func advance(by duration: Duration) {
        assertUsable()
        precondition(duration >= .zero, "time cannot move backwards")
        time = time.advanced(by: duration)
    }

    // MARK: Descriptors

    /// Makes a descriptor count as ready until its interest is removed or ``clearReady(_:)`` is called.
    ///
    /// Every poll reports it, as for a descriptor that no reader drains, but only the readiness that the interest
    /// includes.
    public func makeReady(_ fileDescriptor: CInt, _ readiness: Readiness) {
        assertUsable()
        injected[fileDescriptor, default: []].formUnion(readiness)
    }

    /// Reverts ``makeReady(_:_:)``. The readiness that the kernel reports for the descriptor still counts.
    public func clearReady(_ fileDescriptor: CInt) {
        assertUsable()
        injected[fileDescriptor] = nil
    }

    public func setInterest(
        _ interest: Readiness, for fileDescriptor: CInt, generation: UInt32
    ) throws(LoopError) {
        assertUsable()
        if isClosed { throw LoopError(.closed, operation: "setInterest", fileDescriptor: fileDescriptor) }
        interests[fileDescriptor] = nil
        if interest.isEmpty {
            injected[fileDescriptor] = nil
            return
        }
        try checkPollable(fileDescriptor)
        interests[fileDescriptor] = Interest(readiness: interest, generation: generation)
    }

    /// Throws for a descriptor that real loops reject. `poll(2)` itself reports regular files as always ready.
    private func checkPollable(_ fileDescriptor: CInt) throws(LoopError) {
        // Checked before the probe is created, because the probe may get the same number.
        var error = fcntl(fileDescriptor, F_GETFD) < 0 ? errno : 0
        if error == 0 {
            let probe = gevent_epoll()
            error = probe < 0 ? -probe : gevent_check_pollable(probe, fileDescriptor)
            if probe >= 0 { _ = Glibc.close(probe) }
        }
        if error != 0 { throw LoopError(errno: error, operation: "setInterest", fileDescriptor: fileDescriptor) }
    }

    // MARK: Polling

    public func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        assertUsable()
        if isClosed { throw LoopError(.closed, operation: "poll") }
        let isDue = deadline.map { $0 <= time } ?? false
        if try collect(blocking: false, into: &events) || isDue {
            passBusyTime(until: deadline)
            return
        }
        busyPolls = 0
        if let deadline, deadline != .distantFuture, advancesAutomatically {
            time = deadline
        } else {
            _ = try collect(blocking: true, into: &events)
        }
    }

    /// Counts a poll that did not wait. Time does not pass a deadline that was still in the future.
    private func passBusyTime(until deadline: LoopInstant?) {
        busyPolls += 1
        if busyPolls <= Self.busyPollLimit || !advancesAutomatically { return }
        let later = time.advanced(by: Self.busyPollStep)
        if let deadline, deadline > time { time = min(later, deadline) } else { time = later }
    }

    /// Appends the ready descriptors. Returns whether there was an event or a wake.
    private func collect(blocking: Bool, into events: inout ReadyEvents) throws(LoopError) -> Bool {
        // Sorted by descriptor, so that a test sees the same order in every run.
        let watched = interests.keys.sorted()
        var requests = [pollfd(fd: pipe.readEnd, events: Int16(POLLIN), revents: 0)]
        for fileDescriptor in watched {
            let readiness = interests[fileDescriptor]?.readiness ?? []
            var bits: CInt = 0
            if readiness.contains(.read) { bits |= POLLIN }
            if readiness.contains(.write) { bits |= POLLOUT }
            requests.append(pollfd(fd: fileDescriptor, events: Int16(bits), revents: 0))
        }
        let result = Glibc.poll(&requests, nfds_t(requests.count), blocking ? -1 : 0)
        if result < 0 {
            // A signal ends the poll early.
            if errno == EINTR { return false }
            throw LoopError(errno: errno, operation: "poll")
        }
        var found = false
        if requests[0].revents != 0 {
            pipe.drain()
            found = true
        }
        for request in requests.dropFirst() {
            guard let interest = interests[request.fd] else { continue }
            if CInt(request.revents) & POLLNVAL != 0 {
                // The descriptor was closed while it was watched. A kernel would drop it then, and so does this loop;
                // otherwise it would spin.
                interests[request.fd] = nil
                continue
            }
            let readiness = readiness(CInt(request.revents))
                .union(injected[request.fd, default: []].intersection(interest.readiness))
            if readiness.isEmpty { continue }
            found = true
            events.append(
                ReadyEvent(fileDescriptor: request.fd, generation: interest.generation, readiness: readiness))
        }
        return found
    }

    private func readiness(_ bits: CInt) -> Readiness {
        if bits & (POLLHUP | POLLERR) != 0 { return [.read, .write] }
        var readiness: Readiness = []
        if bits & POLLIN != 0 { readiness.insert(.read) }
        if bits & POLLOUT != 0 { readiness.insert(.write) }
        return readiness
    }

    // MARK: Forking and confinement

    public func recoverAfterFork() throws(LoopError) {
        assertUsable()
        if isClosed { throw LoopError(.closed, operation: "recoverAfterFork") }
        interests = [:]
        injected = [:]
        try pipe.replaceAfterFork()
    }

    private func assertThread(_ call: StaticString = #function) {
        assert(pthread_equal(owner, pthread_self()) != 0, "VirtualLoop.\(call) was called on another thread")
    }

    private func assertUsable(_ call: StaticString = #function) {
        assertThread(call)
        assert(!isClosed, "VirtualLoop.\(call) was called after close()")
    }
}

@available(*, unavailable)
extension VirtualLoop: Sendable {}
