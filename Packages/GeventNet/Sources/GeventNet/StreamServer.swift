internal import Gevent
@_spi(GeventInternals) internal import GeventCore
@_spi(GeventInternals) internal import GeventDiagnostics
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

/// A server that accepts connections and runs a handler for each in a new greenlet.
///
/// ```swift
/// let server = StreamServer(.loopback(port: 7)) { socket, peer in
///     while try socket.withReadBytes({ bytes in
///         try socket.writeAll(bytes)
///         return !bytes.isEmpty
///     }) {}
/// }
/// try server.serveForever()
/// ```
///
/// The handler receives a ``Socket``, which is a `ByteStream`: a function that takes `some ByteStream` or
/// `any ByteStream` can be a handler too. To use another protocol over the socket, the handler first creates that
/// protocol's stream, in the connection's greenlet, where it may park.
///
/// A connection is closed when its handler returns or throws, and when the handler could not be started. An error that
/// a handler throws is reported to the hub's error handler and affects only that connection. Two errors are not
/// reported: an exit, and the loss of this connection (``SocketError/Code/connectionLost``), which clients cause all
/// the time; a handler can catch it. Reports name a connection's greenlet by its peer.
///
/// When accepting fails, for example because descriptors or memory are exhausted, the server pauses for ``minDelay``,
/// doubling up to ``maxDelay``, until accepting succeeds again. The first failure is reported. Only an error that makes
/// the listener unusable (`EBADF`, `EINVAL`, `ENOTSOCK`) closes the server, and so does the end of the accepting
/// greenlet: if it is killed, or if another greenlet waits on the same listener.
///
/// A server belongs to the thread of one hub and can't be restarted once stopped. It serves until then, even if nothing
/// retains it. gevent: `gevent.server.StreamServer`.
public final class StreamServer {
    /// A function that serves one connection. The socket is closed when it returns.
    public typealias Handler = (_ socket: Socket, _ peer: SocketAddress) throws -> Void

    /// The number of connections accepted in a row before other greenlets run; 100.
    ///
    /// 1 is fair to other processes that accept from the same listener. Smaller values count as 1.
    ///
    /// gevent: `BaseServer.max_accept`.
    public var maxAccept = 100

    /// The first pause after a failure to accept; 10 ms.
    ///
    /// gevent: `BaseServer.min_delay`.
    public var minDelay = Duration.milliseconds(10)

    /// The longest pause after repeated failures; 1 s.
    ///
    /// gevent: `BaseServer.max_delay`.
    public var maxDelay = Duration.seconds(1)

    /// The maximum number of concurrent handlers; nil for no limit. At the limit, further connections wait in the
    /// kernel.
    ///
    /// gevent: `spawn=n`.
    public let limit: Int?

    /// The address the server listens on. After ``start()`` it has the actual port, also if 0 was requested.
    ///
    /// gevent: `BaseServer.address`.
    public private(set) var address: SocketAddress

    private enum Phase {
        case new, started, closed
    }

    /// The size of a handler's stack in bytes; nil for the default.
    fileprivate let stackSize: Int?
    let handler: Handler
    private let backlog: Int
    private var phase = Phase.new
    private var listener: Socket?
    /// The file of the listener's Unix address, if this server bound it.
    private var boundFile: BoundFile?
    private var acceptor: Greenlet<Void>?
    /// A greenlet that never runs. It ends when the server closes, and `serveForever` joins it.
    private var closedGate: Greenlet<Void>?
    /// The error that closed the server, if `stop` did not.
    private var failure: (any Error)?
    /// The function that makes one attempt to accept. Tests replace it with one that fails.
    var acceptOne: (Socket) throws -> (socket: Socket, address: SocketAddress)? = { try $0.acceptIfReady() }

    // Unmanaged, because a connection removes itself when it is deallocated: this is how the server notices one that
    // never ran.
    private var connections: [Unmanaged<Connection>] = []
    /// A greenlet that never runs. It ends when a full server has room again, and the acceptor joins it.
    private var vacancyGate: Greenlet<Void>?
    private var startFailed = false
    private var pause = Duration.zero
    /// The number of errors of single connections since the last accepted one.
    private var consecutiveConnectionErrors = 0
    private var acceptPredictor = AcceptPredictor()

    // MARK: Creating

    /// Creates a server that will listen on `address`; connections are refused before ``start()``. Never parks.
    ///
    /// - Parameters:
    ///   - address: the address to listen on; port 0 lets the system choose.
    ///   - backlog: the maximum number of connections that wait to be accepted; the kernel caps it.
    ///   - limit: the maximum number of concurrent handlers, at least 1; nil for no limit.
    ///   - stackSize: stack bytes of each handler, from 16 KiB to 64 MiB, see `Gevent.spawn(stackSize:_:)`; nil for the
    ///     value of `GEVENT_STACK_SIZE`.
    ///   - handler: serves one connection, in a new greenlet.
    ///
    /// gevent: `StreamServer(listener, handle, backlog=None, spawn='default')`.
    public init(
        _ address: SocketAddress, backlog: Int = 128, limit: Int? = nil, stackSize: Int? = nil,
        handler: @escaping Handler
    ) {
        StreamServer.check(limit, stackSize)
        self.stackSize = stackSize
        self.address = address
        self.backlog = backlog
        self.limit = limit
        self.handler = handler
    }

    /// Creates a server on a listening socket; connections are queued before ``start()``. The server owns the socket
    /// and closes it when it is stopped. Throws ``SocketError`` if the socket is closed. Never parks.
    public init(listener: Socket, limit: Int? = nil, stackSize: Int? = nil, handler: @escaping Handler) throws {
        StreamServer.check(limit, stackSize)
        self.stackSize = stackSize
        address = try listener.localAddress
        backlog = 0
        self.listener = listener
        self.limit = limit
        self.handler = handler
    }

    private static func check(_ limit: Int?, _ stackSize: Int?) {
        precondition(limit ?? 1 >= 1, "the limit of a server must be at least 1, not \(limit ?? 0)")
        precondition(
            (16 << 10...64 << 20).contains(stackSize ?? 1 << 20),
            "stackSize must be 16384 (16 KiB) to 67108864 (64 MiB) bytes, not \(stackSize ?? 0)")
    }

    // MARK: Properties

    /// Whether the server accepts connections, or will again after a pause.
    ///
    /// gevent: `BaseServer.started`.
    public var isStarted: Bool { phase == .started }

    /// Whether the server was stopped, or closed by an error.
    ///
    /// gevent: `BaseServer.closed`.
    public var isClosed: Bool { phase == .closed }

    /// The port of ``address``; 0 for a Unix address.
    ///
    /// gevent: `BaseServer.server_port`.
    public var port: Int { address.port }

    /// The number of handlers that run or are about to.
    public var handlerCount: Int { connections.count }

    // MARK: Starting and stopping

    /// Starts to listen and to accept. Has no effect on a started server. Never parks.
    ///
    /// Throws ``SocketError``: `addressInUse`, which names the address, or `closed` if the server was stopped or closed
    /// by an error.
    ///
    /// gevent: `BaseServer.start()`.
    public func start() throws {
        switch phase {
        case .started: return
        case .closed:
            throw SocketError(
                .closed, operation: "start a server on", address: address,
                message: failure.map { "the server was closed by an error: \($0)" } ?? "the server was stopped")
        case .new: break
        }
        let listener = try self.listener ?? listen()
        address = try listener.localAddress
        self.listener = listener
        phase = .started
        let acceptor = Greenlet<Void> { try self.accept(from: listener) }
        acceptor.name = "accept on \(address)"
        // Runs however the acceptor ends, even if it never ran.
        acceptor.rawLink { acceptor in try self.acceptorEnded(acceptor.exit ?? acceptor.error) }
        self.acceptor = acceptor
        acceptor.start()
    }

    private func listen() throws -> Socket {
        let listener = try Socket.listen(on: address, backlog: backlog)
        boundFile = address.pathname.flatMap { BoundFile($0) }
        return listener
    }

    /// Closes the listener, waits for running handlers for at most `timeout`, and then kills the remaining ones.
    ///
    /// Handlers of idle connections are killed at once, and those of other connections as soon as the connection
    /// becomes idle. A connection is idle if its handler waits to read from it with the calls of ``Socket``, has
    /// answered everything it read before with a write, and nothing more has arrived. This needs no knowledge of the
    /// protocol: it holds between two requests and before the first one. A handler that only reads is never idle, nor
    /// is one that reads by other means or in another greenlet.
    ///
    /// Parks. A killed handler that waits in its cleanup gets another second. When a handler calls `stop`, its own
    /// greenlet is spared. Can be called repeatedly; a stop before the start prevents the server from ever starting.
    /// Throws the error that interrupts the caller; the handlers are then killed, but `stop` does not wait for them.
    ///
    /// Removes the file of a Unix address if this server created it and the path still names it. In a forked child the
    /// file remains, because the parent still listens.
    ///
    /// - Parameter timeout: the time for handlers to finish; nil for no limit, zero to kill them at once.
    ///
    /// gevent: `BaseServer.stop(timeout=1)`.
    @available(*, noasync)
    public func stop(timeout: Duration? = .seconds(1)) throws {
        try close()
        let handlers = connections.map { $0.takeUnretainedValue() }.filter { $0 !== AnyGreenlet.current }
        // A handler that was killed before it ran stays in the ready queue until the hub reaches it. Its connection is
        // closed now.
        defer { for handler in handlers where handler.isDead { handler.finish() } }
        do {
            for (index, handler) in handlers.enumerated() {
                try handler.endWhenIdle()
                // Each iteration makes a system call, so with many handlers the caller yields now and then.
                if index % 1000 == 999 { try sleep() }
            }
            try joinAll(handlers, timeout: timeout)
        } catch {
            try killAll(handlers, blocking: false)
            throw error
        }
        try killAll(handlers, blocking: false)
        try joinAll(handlers, timeout: .seconds(1))
    }

    /// Starts the server if necessary, and parks until another greenlet stops it; then waits as ``stop(timeout:)`` does
    /// and returns.
    ///
    /// Returns at once if the server was stopped before. If this greenlet is killed or times out, stops the server and
    /// then rethrows the error. Throws the errors of ``start()``, and the error that closed the server, if any:
    /// ``SocketError`` with code `closed` if the accepting greenlet was killed.
    ///
    /// gevent: `BaseServer.serve_forever(stop_timeout=None)`.
    @available(*, noasync)
    public func serveForever(stopTimeout: Duration? = .seconds(1)) throws {
        if phase == .closed {
            if let failure { throw failure }
            return
        }
        try start()
        let closedGate = self.closedGate ?? Greenlet<Void> {}
        self.closedGate = closedGate
        do {
            try closedGate.join()
        } catch {
            try stopInNewGreenlet(stopTimeout)
            throw error
        }
        try stopInNewGreenlet(stopTimeout)
        if let failure { throw failure }
    }

    /// Stops the server in a new greenlet, so that a second interruption of this one does not cut the stop short.
    private func stopInNewGreenlet(_ timeout: Duration?) throws {
        try spawn { try self.stop(timeout: timeout) }.join()
    }

    /// Stops listening; running handlers continue.
    private func close() throws {
        if phase == .closed { return }
        if let acceptor, acceptor !== AnyGreenlet.current { try acceptor.kill(blocking: false) }
        phase = .closed
        acceptor = nil
        listener?.close()
        listener = nil
        boundFile?.remove()
        boundFile = nil
        try closedGate?.kill(blocking: false)
    }

    // MARK: Accepting

    private func accept(from listener: Socket) throws {
        do {
            while true { try acceptBatch(from: listener) }
        } catch let error as SocketError {
            // The server was stopped after this greenlet was woken and before it ran. Its listener is closed, which is
            // no failure.
            if phase != .closed { throw error }
        }
    }

    /// Closes the server when its acceptor ends, so that clients don't queue at a listener that nothing accepts from.
    private func acceptorEnded(_ error: (any Error)?) throws {
        if phase != .started { return }
        if let exit = error as? any GreenletExitError {
            failure = SocketError(
                .closed, operation: "serve on", address: address,
                message: "the accepting greenlet was killed (\(exit))")
        } else {
            failure = error
        }
        try close()
    }

    /// Accepts pending connections within the limits, and then waits until it can continue.
    private func acceptBatch(from listener: Socket) throws {
        do {
            var accepted = 0
            while canAcceptMore {
                guard let (socket, _) = try acceptOne(listener) else {
                    acceptPredictor.recordEmptyAttempt(after: accepted)
                    return try listener.waitToAccept()
                }
                consecutiveConnectionErrors = 0
                Connection(socket, of: self).begin()
                accepted += 1
                if accepted >= maxAccept { return try sleep() }
                if !acceptPredictor.expectsMore(after: accepted) { return try listener.waitToAccept() }
            }
            if startFailed {
                // The core has reported this failure.
                startFailed = false
                try pauseAccepting()
            } else {
                try waitForVacancy()
            }
        } catch let error as SocketError {
            try recover(from: error)
        }
    }

    /// Waits until another attempt to accept is due, or rethrows an error after which no attempt can succeed. See
    /// accept(2). Errors of registering the listener with the loop, such as ENOSPC, arrive here too.
    private func recover(from error: SocketError) throws {
        switch error.errno {
        case EBADF, EINVAL, ENOTSOCK:
            throw error
        case ECONNABORTED, EPROTO, EPERM, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP,
            ENETUNREACH, ETIMEDOUT, ECONNRESET:
            // Errors of one connection that no longer exists; EPERM from a firewall is one too. The next connection may
            // succeed, so the server pauses only after many errors in a row: then the network is down, or something
            // refuses all connections.
            consecutiveConnectionErrors += 1
            if consecutiveConnectionErrors <= maxAccept { return try sleep() }
            fallthrough
        default:
            if pause == .zero { spawnRaw { throw error } }
            try pauseAccepting()
        }
    }

    private var canAcceptMore: Bool { !startFailed && connections.count < limit ?? .max }

    private func pauseAccepting() throws {
        pause = pause == .zero ? minDelay : min(pause * 2, maxDelay)
        try sleep(for: pause)
    }

    private func waitForVacancy() throws {
        let vacancyGate = Greenlet<Void> {}
        self.vacancyGate = vacancyGate
        defer { self.vacancyGate = nil }
        try vacancyGate.join()
    }

    // MARK: Connections

    fileprivate func add(_ connection: Connection) -> Int {
        connections.append(.passUnretained(connection))
        return connections.count - 1
    }

    /// Resets the pause: a handler runs, so the resource that was exhausted is available again.
    fileprivate func didStart() { pause = .zero }

    /// Removes a connection in constant time: the last one moves to its index.
    fileprivate func remove(at index: Int, didNotStart: Bool) {
        let last = connections.removeLast()
        if index < connections.count {
            connections[index] = last
            last._withUnsafeGuaranteedRef { $0.index = index }
        }
        if didNotStart { startFailed = true }
        // The gate was never started, so ending it only wakes its joiners.
        if let vacancyGate { wake(vacancyGate) }
    }

    private func wake(_ gate: Greenlet<Void>) {
        do {
            try gate.kill(blocking: false)
        } catch {  // control: without blocking, a kill throws on a foreign thread only, where no connection ends
            fatalError("\(error)")
        }
    }
}

@available(*, unavailable)
extension StreamServer: Sendable {}

/// Predicts whether another connection is pending after an accepted one.
///
/// An attempt that finds no connection is expensive: the kernel allocates a file and a socket before it checks.
/// Skipping the attempt loses nothing, because the loop is level-triggered. But when many connections arrive, an
/// attempt costs less than waiting for the hub's next poll, which may come late.
private struct AcceptPredictor {
    /// Whether the last batch that ended with an empty attempt had a single connection.
    private var wasLastBatchSingle = false
    private var skippedAttempts = 0

    mutating func expectsMore(after accepted: Int) -> Bool {
        if accepted > 1 || !wasLastBatchSingle { return true }
        // One attempt in eight is made anyway, so that a burst is noticed soon.
        skippedAttempts += 1
        return skippedAttempts % 8 == 0
    }

    /// Records an attempt that found no further connection.
    mutating func recordEmptyAttempt(after accepted: Int) {
        if accepted > 0 { wasLastBatchSingle = accepted == 1 }
    }
}

/// The greenlet of one connection. A subclass of `Greenlet`, so that a connection needs one object and no closure.
private final class Connection: Greenlet<Void> {
    private let server: StreamServer
    private let socket: Socket
    /// The index among the server's connections.
    fileprivate var index = -1
    private var isFinished = false

    init(_ socket: Socket, of server: StreamServer) {
        self.server = server
        self.socket = socket
        if let stackSize = server.stackSize { super.init(stackSize: stackSize) } else { super.init() }
    }

    deinit {
        // The greenlet was killed before it ran, or no stack was available.
        finish()
    }

    func begin() {
        index = server.add(self)
        start()
    }

    override func run() throws {
        defer { finish() }
        server.didStart()
        publishName()
        do {
            try server.handler(socket, socket.peer ?? .unnamed)
        } catch {  // control: every error except the loss of the connection is rethrown
            if !isLossOfOwnConnection(error) { throw error }
        }
    }

    /// Whether the peer reset this connection, or closed it while the handler wrote, which is no failure of the server.
    /// The loss of another connection, which the handler opened, is one.
    ///
    /// Separate from `run`, whose frame is part of the cost of an idle connection.
    @inline(never)
    private func isLossOfOwnConnection(_ error: any Error) -> Bool {
        guard socket.isLost, let error = error as? SocketError, error.code == .connectionLost else { return false }
        return error.peerAddress == socket.peer.flatMap { $0.isUnnamed ? nil : $0 }
    }

    /// Ends the handler when the server stops: now if the connection is idle, or else once it becomes idle.
    func endWhenIdle() throws {
        if isDead { return }
        socket.endWhenIdle(self)
        if socket.descriptor.isReader(self), try socket.isIdle { try kill(blocking: false) }
    }

    /// Closes the connection and removes it from the server. Can be called repeatedly.
    func finish() {
        if isFinished { return }
        isFinished = true
        socket.close()
        server.remove(at: index, didNotStart: (error as? HubError)?.code == .outOfStacks)
    }

    // MARK: Name

    /// The peer's address, or the server's if the peer is unnamed, as clients of Unix sockets are.
    private var displayAddress: SocketAddress {
        guard let peer = socket.peer, !peer.isUnnamed else { return server.address }
        return peer
    }

    override var automaticName: String? { "\(displayAddress)" }

    /// Publishes the name for the reports of a monitor and of a stack overflow, which can't call this object.
    @inline(never)
    private func publishName() {
        displayAddress.withCText(publishAutomaticName)
    }
}

extension Socket {
    /// Parks until a connection is pending, regardless of the socket's own timeout.
    fileprivate func waitToAccept() throws {
        var deadline = try descriptor.begin(nil)
        try wait(for: .read, "accept", &deadline)
    }
}
