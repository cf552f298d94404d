@_spi(GeventInternals) public import GeventCore

/// A system call on a descriptor, such as receive, send, accept or connect, that is retried until the descriptor is
/// ready. For `GeventNet`.
///
/// `WatchedDescriptor.perform` runs all such calls: it makes the system call, and if the descriptor is not ready, it
/// waits and tries again. Each operation is a value that describes the whole call, so a loop that completes operations
/// itself, as io_uring does, would need changes only there.
@_spi(GeventInternals)
public protocol DescriptorOperation {
    /// The readiness that the operation needs: either `read` or `write`.
    static var readiness: Readiness { get }

    /// The maximum number of bytes the operation can receive; 0, the default, if it receives none.
    var capacity: Int { get }

    /// Makes the system call on a non-blocking descriptor. Returns its result or a negated error number, or nil if the
    /// descriptor is not ready.
    mutating func attempt(_ fileDescriptor: CInt) -> Int?
}

@_spi(GeventInternals)
extension DescriptorOperation {
    @inlinable
    public var capacity: Int { 0 }
}

/// The reason an operation failed without an error from its system call. The caller translates it. For `GeventNet`.
@_spi(GeventInternals)
public enum DescriptorFailure: Error {
    /// The operation would have to park, and the timeout forbids it.
    case wouldBlock
    /// The timeout expired.
    case timedOut
    /// The descriptor was closed before the operation began to wait.
    case closed
    /// The descriptor was closed while the operation waited.
    case closedWhileWaiting
    /// The loop can't watch the descriptor; the value is the error number.
    case system(CInt)
}

extension WatchedDescriptor {
    /// Checks the thread and returns the deadline of a call that may park. Throws `HubError` on a foreign thread.
    @_spi(GeventInternals)
    @inlinable
    @inline(__always)
    public func begin(_ timeout: Duration?, coversWholeCall: Bool = false) throws -> CallDeadline {
        try checkThread()
        return CallDeadline(timeout, coversWholeCall: coversWholeCall)
    }

    /// Makes an operation's system call, parking as often as the descriptor is not ready. Returns the result of the
    /// system call, a negated error number if it failed.
    ///
    /// A short read shows that the kernel's buffer was empty. The next read therefore waits before its first attempt,
    /// which would almost always fail; a failed attempt costs a third of a successful one. No event is lost, because
    /// the loop is level-triggered: new data, the end of the stream or an error makes the descriptor readable, and the
    /// wait ends at the next poll. A timeout of zero skips this wait, because it asks for the data that is there now.
    ///
    /// With `waitingFirst`, waits before the first attempt in any case.
    @_spi(GeventInternals)
    @inlinable
    @inline(__always)
    public func perform<Operation: DescriptorOperation>(
        _ operation: inout Operation, _ deadline: inout CallDeadline, waitingFirst: Bool = false
    ) throws -> Int {
        if waitingFirst || (Operation.readiness == .read && isDrained && !deadline.forbidsParking) {
            try wait(for: Operation.readiness, &deadline)
        }
        while true {
            if let result = performIfReady(&operation) { return result }
            try wait(for: Operation.readiness, &deadline)
        }
    }

    /// Makes an operation's system call once. Returns nil if the descriptor is not ready.
    @_spi(GeventInternals)
    @inlinable
    @inline(__always)
    public func performIfReady<Operation: DescriptorOperation>(_ operation: inout Operation) -> Int? {
        let result = operation.attempt(fileDescriptor)
        if Operation.readiness == .read {
            // No wait is needed at the end of the stream: every further read returns it again.
            isDrained = result.map { $0 > 0 && $0 < operation.capacity } ?? false
        }
        return result
    }

    /// Parks until another attempt is due. The caller tries again even if the deadline expired meanwhile, since data
    /// may have arrived at the last moment. Throws `DescriptorFailure`, and the error that interrupts the greenlet.
    @_spi(GeventInternals)
    @inline(never)
    public func wait(for readiness: Readiness, _ deadline: inout CallDeadline) throws {
        if fileDescriptor < 0 { throw DescriptorFailure.closed }
        if deadline.forbidsParking { throw DescriptorFailure.wouldBlock }
        if deadline.hasExpired { throw DescriptorFailure.timedOut }
        let limit = deadline.nextTimeout()
        // The core reads zero as "check without waiting", which would let an expired call continue forever.
        if let limit, limit <= .zero { throw DescriptorFailure.timedOut }
        if readiness == .read, let beforeWaitingToRead { try beforeWaitingToRead() }
        do {
            if try !wait(for: readiness, timeout: limit) { deadline.hasExpired = true }
        } catch let error as LoopError {
            throw error.code == .closed || error.code == .badDescriptor
                ? DescriptorFailure.closedWhileWaiting : .system(error.errno)
        }
        // An event woke this greenlet, but the descriptor was closed before it ran.
        if fileDescriptor < 0 { throw DescriptorFailure.closedWhileWaiting }
    }
}
