internal import CPollLoop
public import Gevent
internal import Glibc

/// A loop on `poll(2)`: every poll passes the whole list of descriptors to the kernel.
///
/// It is slow with thousands of descriptors, but complete: a third-party loop needs no more than this.
public final class PollLoop: Loop {
    public static let backendName = "poll"

    /// Registers the loop, so that `GEVENT_LOOP=poll` selects it.
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
        // In order of their numbers, because a dictionary's order differs from process to process.
        for (fileDescriptor, interest) in interests.sorted(by: { $0.key < $1.key }) {
            var bits: CInt = 0
            if interest.readiness.contains(.read) { bits |= POLLIN }
            if interest.readiness.contains(.write) { bits |= POLLOUT }
            requests.append(pollfd(fd: fileDescriptor, events: Int16(bits), revents: 0))
        }
        if Glibc.poll(&requests, nfds_t(requests.count), milliseconds(until: deadline)) < 0 {
            // A signal causes an early return, which the contract allows.
            if errno == EINTR { return }
            throw LoopError(errno: errno, operation: "poll")
        }
        if requests[0].revents != 0 { eventWaker.drain() }
        for request in requests.dropFirst() where request.revents != 0 {
            let bits = CInt(request.revents)
            // Closed while watched. It must be dropped, or every later poll would return at once.
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

    /// The timeout in milliseconds, rounded up so that poll does not return early. A far deadline takes several polls.
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
