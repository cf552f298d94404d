internal import CGeventSystem
internal import Glibc

/// A timerfd for the deadline of a poll, for loops on a C library whose own timers are too coarse.
///
/// libev and libuv wait in whole milliseconds. The timerfd becomes readable at the deadline, to the nanosecond, and
/// ends their wait like any other event. The library still runs one complete iteration, so everything else on its loop
/// is served as usual.
///
/// Setting the timer is a system call, so later deadlines do not set it. If a deadline is later than the one already
/// set, the poll returns early once, at the earlier one, and the next poll sets the later one. A program that moves its
/// timeouts forward with each request, as most do, hardly ever sets the timer.
public struct DeadlineTimer: ~Copyable {
    /// The timerfd, to be watched for reading. Its number never changes, not even in a forked child.
    public let fileDescriptor: CInt

    private enum State {
        case idle
        case armed(LoopInstant)
        /// The timer is readable and stays so until it is set again.
        case expired
    }

    private var state = State.idle

    /// Creates a timer that is not set.
    ///
    /// - Throws: ``LoopError`` with code `outOfResources` if there are no descriptors left.
    public init() throws(LoopError) {
        fileDescriptor = try LoopError.check(gevent_timerfd(), "timerfd_create")
    }

    deinit {
        _ = Glibc.close(fileDescriptor)
    }

    /// Makes the descriptor readable at the deadline or earlier, for a poll that is about to block.
    ///
    /// - Parameter deadline: an instant of `CLOCK_MONOTONIC`, greater than zero; nil if there is none.
    /// - Throws: ``LoopError`` if the system refuses to set the timer.
    public mutating func arm(until deadline: LoopInstant?) throws(LoopError) {
        guard let deadline, deadline != .distantFuture else {
            // An expired timer stays readable and would end every poll at once.
            if case .expired = state { try set(nil) }
            return
        }
        if case .armed(let earlier) = state, earlier <= deadline { return }
        try set(deadline)
    }

    /// Records that the descriptor was reported readable. The descriptor need not be read.
    public mutating func expire() {
        state = .expired
    }

    /// Replaces the timer, which is shared with the parent process, by a new unset one under the same number.
    ///
    /// - Throws: ``LoopError`` with code `outOfResources` if there are no descriptors left.
    public mutating func replaceAfterFork() throws(LoopError) {
        let fresh = try LoopError.check(gevent_timerfd(), "timerfd_create")
        try LoopError.check(gevent_replace(fileDescriptor, fresh), "dup3")
        state = .idle
    }

    private mutating func set(_ deadline: LoopInstant?) throws(LoopError) {
        try LoopError.check(gevent_set_timer(fileDescriptor, deadline?.nanoseconds ?? 0), "timerfd_settime")
        state = deadline.map { .armed($0) } ?? .idle
    }
}

@available(*, unavailable)
extension DeadlineTimer: Sendable {}
