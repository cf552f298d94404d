internal import CGeventSystem
internal import Glibc

/// A timerfd that keeps the deadline of a poll: for loops on a C library whose own timers are too coarse.
///
/// libev and libuv wait in whole milliseconds. A descriptor that becomes readable at the deadline, to the nanosecond,
/// ends their wait like any other event does; the library still runs one complete iteration of its own, so whatever
/// else lives on its loop is served as always.
///
/// The kernel is told only what it must know: a deadline later than the one that is set already is left for then, when
/// the poll returns early, once, and sets it. A program whose timeouts move forward with each request, as most do,
/// hardly ever sets the timer.
public struct DeadlineTimer: ~Copyable {
    /// The timerfd, to be watched for reading. Its number never changes, not even in a forked child.
    public let fileDescriptor: CInt

    private enum State {
        case idle
        case armed(LoopInstant)
        /// Readable, and so until it is set anew.
        case expired
    }

    private var state = State.idle

    /// A timer that is not set.
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
            // Left expired it would end every poll at once.
            if case .expired = state { try set(nil) }
            return
        }
        if case .armed(let earlier) = state, earlier <= deadline { return }
        try set(deadline)
    }

    /// To be called when the descriptor was reported readable. It need not be read.
    public mutating func expire() {
        state = .expired
    }

    /// Puts a fresh timer, not set, behind the same number: the old one is shared with the parent process.
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
