internal import CGeventSystem
@_spi(GeventInternals) internal import GeventCore
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

// How the calls of a socket that may park begin and fail. How they wait is `GeventIO`'s, which is the same for all
// descriptors.

extension Socket {
    /// Begins a call that may park: the thread is the right one, and this is how long it may park.
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
        } catch {  // control: every error is thrown on
            throw translated(error, name, address)
        }
    }

    /// Parks until another attempt is due.
    func wait(for readiness: Readiness, _ name: String, _ deadline: inout CallDeadline) throws {
        do {
            try descriptor.wait(for: readiness, &deadline)
        } catch {  // control: every error is thrown on
            throw translated(error, name)
        }
    }

    /// What is thrown for an error of a descriptor: an error of this socket. Other errors are left as they are.
    @inline(never)
    func translated(_ error: any Error, _ operation: String, _ address: SocketAddress? = nil) -> any Error {
        switch error as? DescriptorFailure {
        case nil: error
        case .wouldBlock: failure(.wouldBlock, errno: EAGAIN, operation, address: address)
        // The library's own timeout, as opposed to the kernel's ETIMEDOUT.
        case .timedOut: failure(.timedOut, errno: ETIMEDOUT, operation, address: address, message: "timed out")
        case .closed: failure(errno: EBADF, operation)
        case .closedMeanwhile: closedMeanwhile(operation)
        case .system(let errno): failure(errno: errno, operation, address: address)
        }
    }

    /// Ends the handler, from now on, as soon as it is about to wait for another request: a greenlet that reads here.
    func endWhenIdle(_ handler: AnyGreenlet) {
        let handler = ObjectIdentifier(handler)
        // The socket owns the descriptor, and is there while a greenlet reads from it.
        descriptor.beforeWaitingToRead = { [unowned self] in
            if handler == ObjectIdentifier(AnyGreenlet.current), try hasNoRequest { throw GreenletExit() }
        }
    }

    /// Whether everything that was read has been answered by a write, and nothing else has come in.
    var hasNoRequest: Bool {
        get throws { try !isUnanswered && !descriptor.waitReadable(timeout: .zero) }
    }

    /// Parks until a read would not block, or for at most `timeout`; returns whether it is so.
    ///
    /// True also for the end of the stream, for an error that the next read will report, and now and then for nothing.
    /// For code that reads by other means; this type's own calls wait by themselves. That the time is up is no error.
    /// Otherwise throws as described at ``Socket``.
    ///
    /// gevent: `socket.wait_read(socket.fileno())`.
    @available(*, noasync)
    public func waitReadable(timeout: Duration? = nil) throws -> Bool {
        try isReady(for: .read, "wait to read", timeout)
    }

    /// Parks until a write would not block, or for at most `timeout`; returns whether it is so. Otherwise as
    /// ``waitReadable(timeout:)``.
    ///
    /// gevent: `socket.wait_write(socket.fileno())`.
    @available(*, noasync)
    public func waitWritable(timeout: Duration? = nil) throws -> Bool {
        try isReady(for: .write, "wait to write", timeout)
    }

    private func isReady(for readiness: Readiness, _ operation: String, _ timeout: Duration?) throws -> Bool {
        var deadline = try begin(timeout)
        // What is read then, and whether it is answered, is not known here.
        if readiness == .read { isUnanswered = true }
        if deadline.isNone {
            _ = try openDescriptor(operation)
            return readiness == .read
                ? try descriptor.waitReadable(timeout: .zero) : try descriptor.waitWritable(timeout: .zero)
        }
        try wait(for: readiness, operation, &deadline)
        return !deadline.isOver
    }
}
