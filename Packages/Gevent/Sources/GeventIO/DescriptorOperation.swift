@_spi(GeventInternals) public import GeventCore

/// A call on a descriptor that parks until it can be done: receive, send, accept, connect. For `GeventNet`.
///
/// `WatchedDescriptor.perform` makes all such calls: it makes the system call, and if the descriptor is not ready it
/// waits and tries again. It is the one place to change for a loop that completes operations by itself, as io_uring
/// does: an operation is a value that describes the whole call.
@_spi(GeventInternals)
public protocol DescriptorOperation {
    /// What the descriptor must be ready for: one of `read` and `write`.
    static var readiness: Readiness { get }

    /// The most bytes that it can receive; 0, the default, if it receives none.
    var room: Int { get }

    /// Makes the system call on a non-blocking descriptor. Returns its result, or a negated error number, or nil if the
    /// descriptor has to become ready first.
    mutating func attempt(_ fileDescriptor: CInt) -> Int?
}

@_spi(GeventInternals)
extension DescriptorOperation {
    @inlinable
    public var room: Int { 0 }
}

/// Why an operation was given up, if the system call does not say so: for its caller to translate. For `GeventNet`.
@_spi(GeventInternals)
public enum DescriptorFailure: Error {
    /// It could not be done without parking, and the timeout forbids that.
    case wouldBlock
    /// Its time is up.
    case timedOut
    /// The descriptor was closed before it began to wait.
    case closed
    /// The descriptor was closed while it waited.
    case closedMeanwhile
    /// The loop cannot watch the descriptor, for the reason with this error number.
    case system(CInt)
}

extension WatchedDescriptor {
    /// Begins a call that may park: checks the thread, and returns how long the call may park. Throws `HubError` on a
    /// foreign thread.
    @_spi(GeventInternals)
    @inlinable
    @inline(__always)
    public func begin(_ timeout: Duration?, coversWholeCall: Bool = false) throws -> CallDeadline {
        try checkThread()
        return CallDeadline(timeout, coversWholeCall: coversWholeCall)
    }

    /// Makes an operation's system call, and parks as often as the descriptor has to become ready first. Returns the
    /// result of the call, which is a negated error number if it failed.
    ///
    /// After a read that got less than it had room for, the kernel's buffer is known to have been empty. So the next
    /// read waits before its first attempt, which would nearly always fail, and a failed attempt costs a third of what
    /// a good one does. Nothing is missed by that, because the loop is level-triggered: data that came in between, and
    /// the end of the stream or an error behind the data that was read, make the descriptor readable, so the wait ends
    /// at the loop's next look. It is not done with a timeout of zero, which asks what is there now.
    ///
    /// `waitingFirst`: whether to wait before the first attempt in any case.
    @_spi(GeventInternals)
    @inlinable
    @inline(__always)
    public func perform<Operation: DescriptorOperation>(
        _ operation: inout Operation, _ deadline: inout CallDeadline, waitingFirst: Bool = false
    ) throws -> Int {
        if waitingFirst || (Operation.readiness == .read && isDrained && !deadline.isNone) {
            try wait(for: Operation.readiness, &deadline)
        }
        while true {
            if let result = performIfReady(&operation) { return result }
            try wait(for: Operation.readiness, &deadline)
        }
    }

    /// Makes an operation's system call once. Returns nil if the descriptor has to become ready first.
    @_spi(GeventInternals)
    @inlinable
    @inline(__always)
    public func performIfReady<Operation: DescriptorOperation>(_ operation: inout Operation) -> Int? {
        let result = operation.attempt(fileDescriptor)
        if Operation.readiness == .read {
            // At the end of the stream there is nothing to wait for: every further read says so again.
            isDrained = result.map { $0 > 0 && $0 < operation.room } ?? false
        }
        return result
    }

    /// Parks until another attempt is due. Afterwards the call tries again, also if the time was up meanwhile: what
    /// came in at the last moment counts. Throws `DescriptorFailure`, and what interrupts the greenlet.
    @_spi(GeventInternals)
    @inline(never)
    public func wait(for readiness: Readiness, _ deadline: inout CallDeadline) throws {
        if fileDescriptor < 0 { throw DescriptorFailure.closed }
        if deadline.isNone { throw DescriptorFailure.wouldBlock }
        if deadline.isOver { throw DescriptorFailure.timedOut }
        let limit = deadline.next()
        // The core takes zero for "look without waiting", which would let a late call go on for ever.
        if let limit, limit <= .zero { throw DescriptorFailure.timedOut }
        if readiness == .read, let beforeWaitingToRead { try beforeWaitingToRead() }
        do {
            if try !wait(for: readiness, timeout: limit) { deadline.isOver = true }
        } catch let error as LoopError {
            throw error.code == .closed || error.code == .badDescriptor
                ? DescriptorFailure.closedMeanwhile : .system(error.errno)
        }
        // Woken by an event, and closed before this greenlet's turn came.
        if fileDescriptor < 0 { throw DescriptorFailure.closedMeanwhile }
    }
}
