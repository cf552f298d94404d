internal import Gevent
internal import Glibc

// How the calls of a socket wait: the one place where timeouts, closing and spurious readiness are dealt with.

/// How long a call may still wait.
struct Patience {
    /// Nil without a limit; zero or less if it must not wait.
    let limit: Duration?
    /// When the whole call is over; set at its first wait, so that a call that need not wait never reads the clock.
    private var deadline: LoopInstant?
    /// The time is up. One more attempt is due, and after it nothing but the error.
    fileprivate(set) var isOver = false

    @inline(__always)
    init(_ limit: Duration?) { self.limit = limit }

    /// Whether it must not wait at all.
    @inline(__always)
    var isNone: Bool {
        guard let limit else { return false }
        return limit <= .zero
    }

    /// What is left of a limit for the call as a whole.
    fileprivate mutating func remaining() -> Duration? {
        guard let limit else { return nil }
        let now = Hub.current.now
        if let deadline { return now.duration(to: deadline) }
        deadline = now.advanced(by: limit)
        return limit
    }

    /// Sleeps for `pause`, but not beyond the call's time; throws if that is up already.
    mutating func sleep(for pause: Duration, timedOut: () -> any Error) throws {
        guard let remaining = remaining() else { return try Gevent.sleep(for: pause) }
        if remaining <= .zero { throw timedOut() }
        try Gevent.sleep(for: min(pause, remaining))
    }
}

extension Socket {
    /// What a call begins with: the thread is the right one, and this is how long it may wait.
    @inline(__always)
    func patience(_ timeout: Duration?) throws -> Patience {
        try descriptor.checkThread()
        return Patience(timeout ?? self.timeout)
    }

    /// Waits until another attempt is due. Afterwards the call tries again, also if the time was up meanwhile: what
    /// came in at the last moment counts.
    ///
    /// `coversWholeCall`: whether the limit is for all the waits of the call together, and not for each.
    func wait(
        for readiness: Readiness, _ operation: String, _ patience: inout Patience, coversWholeCall: Bool = false,
        address: SocketAddress? = nil
    ) throws {
        if descriptor.fileDescriptor < 0 { throw failure(errno: EBADF, operation) }
        if patience.isNone { throw failure(.wouldBlock, errno: EAGAIN, operation, address: address) }
        if patience.isOver { throw timedOut(operation, address) }
        let limit = coversWholeCall ? patience.remaining() : patience.limit
        // The core takes zero for "look without waiting", which would let a late call go on for ever.
        if let limit, limit <= .zero { throw timedOut(operation, address) }
        if handlerToEnd != nil, readiness == .read { try endIfIdle() }
        do {
            let isReady =
                readiness == .read
                ? try descriptor.waitReadable(timeout: limit) : try descriptor.waitWritable(timeout: limit)
            if !isReady { patience.isOver = true }
        } catch let error as LoopError {
            throw error.code == .closed || error.code == .badDescriptor
                ? closedMeanwhile(operation) : failure(errno: error.errno, operation, address: address)
        }
        // Woken by an event, and closed before this greenlet's turn came.
        if descriptor.fileDescriptor < 0 { throw closedMeanwhile(operation) }
    }

    /// The server stops: ends the handler if it is about to wait for another request.
    @inline(never)
    private func endIfIdle() throws {
        if handlerToEnd == ObjectIdentifier(AnyGreenlet.current), try hasNoRequest { throw GreenletExit() }
    }

    /// Whether everything that was read has been answered by a write, and nothing else has come in.
    var hasNoRequest: Bool {
        get throws { try !isUnanswered && !descriptor.waitReadable(timeout: .zero) }
    }

    /// An attempt has failed: waits until the next is due, or throws what the system said.
    @inline(never)
    func recover(
        from errno: CInt, _ readiness: Readiness, _ operation: String, _ patience: inout Patience,
        coversWholeCall: Bool = false
    ) throws {
        guard errno == EAGAIN else { throw failure(errno: errno, operation) }
        try wait(for: readiness, operation, &patience, coversWholeCall: coversWholeCall)
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
        var patience = try patience(timeout)
        // What is read then, and whether it is answered, is not known here.
        if readiness == .read { isUnanswered = true }
        if patience.isNone {
            _ = try openDescriptor(operation)
            return readiness == .read
                ? try descriptor.waitReadable(timeout: .zero) : try descriptor.waitWritable(timeout: .zero)
        }
        try wait(for: readiness, operation, &patience)
        return !patience.isOver
    }
}
