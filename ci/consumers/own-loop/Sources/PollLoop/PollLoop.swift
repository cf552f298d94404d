internal import CPollLoop
public import Gevent
internal import Glibc

/// A loop on `poll(2)`: every poll hands the kernel the whole list of descriptors.
///
/// Slow with thousands of them, and complete: this is all that a loop of somebody else's has to be.
public final class PollLoop: Loop {
    public static let backendName = "poll"

    /// Makes the loop known, so that `GEVENT_LOOP=poll` finds it.
    public static func register() {
        LoopBackend.register(LoopBackend(name: backendName) { (_) throws(LoopError) in try PollLoop() })
    }

    private var interests: [CInt: (readiness: Readiness, generation: UInt32)] = [:]
    private let eventWaker: EventWaker
    private let owner = pthread_self()
    private var isClosed = false

    public init() throws(LoopError) {
        eventWaker = try EventWaker()
    }

    public var now: LoopInstant {
        assertUsable()
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return LoopInstant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    public var timerResolution: Duration { .milliseconds(1) }

    public var waker: any LoopWaker { eventWaker }

    public func setInterest(
        _ interest: Readiness, for fileDescriptor: CInt, generation: UInt32
    ) throws(LoopError) {
        assertUsable()
        if isClosed { throw LoopError(.closed, operation: "setInterest", fileDescriptor: fileDescriptor) }
        interests[fileDescriptor] = nil
        if interest.isEmpty { return }
        let error = poll_loop_check(fileDescriptor)
        if error != 0 { throw LoopError(errno: error, operation: "setInterest", fileDescriptor: fileDescriptor) }
        interests[fileDescriptor] = (interest, generation)
    }

    public func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        assertUsable()
        if isClosed { throw LoopError(.closed, operation: "poll") }
        var requests = [pollfd(fd: eventWaker.fileDescriptor, events: Int16(POLLIN), revents: 0)]
        // In the order of their numbers, and not in that of a dictionary, which is another one in each process.
        for (fileDescriptor, interest) in interests.sorted(by: { $0.key < $1.key }) {
            var bits: CInt = 0
            if interest.readiness.contains(.read) { bits |= POLLIN }
            if interest.readiness.contains(.write) { bits |= POLLOUT }
            requests.append(pollfd(fd: fileDescriptor, events: Int16(bits), revents: 0))
        }
        if Glibc.poll(&requests, nfds_t(requests.count), milliseconds(until: deadline)) < 0 {
            // A signal is an early return, which is allowed.
            if errno == EINTR { return }
            throw LoopError(errno: errno, operation: "poll")
        }
        if requests[0].revents != 0 { eventWaker.drain() }
        for request in requests.dropFirst() where request.revents != 0 {
            let bits = CInt(request.revents)
            // Closed while it was watched: forgotten, or every poll from now on would return at once.
            if bits & POLLNVAL != 0 {
                interests[request.fd] = nil
                continue
            }
            guard let generation = interests[request.fd]?.generation else { continue }
            var readiness: Readiness = bits & (POLLHUP | POLLERR) != 0 ? [.read, .write] : []
            if bits & POLLIN != 0 { readiness.insert(.read) }
            if bits & POLLOUT != 0 { readiness.insert(.write) }
            events.append(ReadyEvent(fileDescriptor: request.fd, generation: generation, readiness: readiness))
        }
    }

    /// Rounded up, so that a return at the deadline is not early; a far deadline is approached in steps.
    private func milliseconds(until deadline: LoopInstant?) -> CInt {
        guard let deadline else { return -1 }
        let now = now
        if deadline <= now { return 0 }
        let (nanoseconds, isFar) = deadline.nanoseconds.subtractingReportingOverflow(now.nanoseconds)
        return isFar ? .max : CInt(clamping: (nanoseconds - 1) / 1_000_000 + 1)
    }

    public func recoverAfterFork() throws(LoopError) {
        assertUsable()
        if isClosed { throw LoopError(.closed, operation: "recoverAfterFork") }
        interests = [:]
        try eventWaker.replaceAfterFork()
    }

    public func close() {
        isClosed = true
        interests = [:]
    }

    private func assertUsable(_ call: StaticString = #function) {
        assert(pthread_equal(owner, pthread_self()) != 0, "PollLoop.\(call) was called on another thread")
        assert(!isClosed, "PollLoop.\(call) was called after close()")
    }
}

@available(*, unavailable)
extension PollLoop: Sendable {}
