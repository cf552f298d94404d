internal import CGeventSystem
@_spi(GeventInternals) internal import GeventCore
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

// How a socket's calls that may park begin and fail. The waits themselves are in `GeventIO`, which handles all
// descriptors alike.

extension Socket {
    /// Checks the thread and returns the deadline of a call that may park.
    @inline(__always)
    func begin(_ timeout: Duration?, coversWholeCall: Bool = false) throws -> CallDeadline {
        try descriptor.begin(timeout ?? self.timeout, coversWholeCall: coversWholeCall)
    }

    /// Performs an operation and returns its result.
    @inline(__always)
    func perform<Operation: DescriptorOperation>(
        _ operation: inout Operation, _ name: String, _ deadline: inout CallDeadline, waitingFirst: Bool = false
    ) throws -> Int {
        let result = try outcome(of: &operation, name, &deadline, waitingFirst: waitingFirst)
        if result < 0 { throw failure(errno: CInt(-result), name) }
        return result
    }

    /// Performs an operation and returns its result, which is a negated error number if the system call failed.
    @inline(__always)
    func outcome<Operation: DescriptorOperation>(
        of operation: inout Operation, _ name: String, _ deadline: inout CallDeadline, waitingFirst: Bool = false,
        address: SocketAddress? = nil
    ) throws -> Int {
        do {
            return try descriptor.perform(&operation, &deadline, waitingFirst: waitingFirst)
        } catch {  // control: every error is rethrown
            throw translated(error, name, address)
        }
    }

    /// Parks until another attempt is due.
    func wait(for readiness: Readiness, _ name: String, _ deadline: inout CallDeadline) throws {
        do {
            try descriptor.wait(for: readiness, &deadline)
        } catch {  // control: every error is rethrown
            throw translated(error, name)
        }
    }

    /// Returns the error of this socket that corresponds to an error of its descriptor. Returns other errors unchanged.
    @inline(never)
    func translated(_ error: any Error, _ operation: String, _ address: SocketAddress? = nil) -> any Error {
        switch error as? DescriptorFailure {
        case nil: error
        case .wouldBlock: failure(.wouldBlock, errno: EAGAIN, operation, address: address)
        // This is the library's own timeout, not the kernel's ETIMEDOUT.
        case .timedOut: failure(.timedOut, errno: ETIMEDOUT, operation, address: address, message: "timed out")
        case .closed: failure(errno: EBADF, operation)
        case .closedWhileWaiting: closedWhileWaiting(operation)
        case .system(let errno): failure(errno: errno, operation, address: address)
        }
    }

    /// Makes the handler, a greenlet that reads from this socket, end as soon as it is about to wait for another
    /// request.
    func endWhenIdle(_ handler: AnyGreenlet) {
        let handler = ObjectIdentifier(handler)
        // The socket owns the descriptor, and outlives every read from it.
        descriptor.beforeWaitingToRead = { [unowned self] in
            if handler == ObjectIdentifier(AnyGreenlet.current), try isIdle { throw GreenletExit() }
        }
    }

    /// Whether every request read so far was answered by a write and no further bytes have arrived.
    var isIdle: Bool {
        get throws { try !hasUnansweredInput && !descriptor.waitReadable(timeout: .zero) }
    }

    /// Parks until a read would not block, or for at most `timeout`; returns whether a read would not block.
    ///
    /// Also returns true at the end of the stream, for an error that the next read will report, and sometimes
    /// spuriously. For code that reads by other means; this type's own calls wait by themselves. An expired timeout is
    /// not an error. Otherwise throws as described at ``Socket``.
    ///
    /// gevent: `socket.wait_read(socket.fileno())`.
    @available(*, noasync)
    public func waitReadable(timeout: Duration? = nil) throws -> Bool {
        try isReady(for: .read, "wait to read", timeout)
    }

    /// Parks until a write would not block, or for at most `timeout`; returns whether a write would not block.
    /// Otherwise like ``waitReadable(timeout:)``.
    ///
    /// gevent: `socket.wait_write(socket.fileno())`.
    @available(*, noasync)
    public func waitWritable(timeout: Duration? = nil) throws -> Bool {
        try isReady(for: .write, "wait to write", timeout)
    }

    private func isReady(for readiness: Readiness, _ operation: String, _ timeout: Duration?) throws -> Bool {
        var deadline = try begin(timeout)
        // The caller may read now by other means, so whether it answers is unknown from here on.
        if readiness == .read { hasUnansweredInput = true }
        if deadline.forbidsParking {
            _ = try openDescriptor(operation)
            return readiness == .read
                ? try descriptor.waitReadable(timeout: .zero) : try descriptor.waitWritable(timeout: .zero)
        }
        try wait(for: readiness, operation, &deadline)
        return !deadline.hasExpired
    }
}
