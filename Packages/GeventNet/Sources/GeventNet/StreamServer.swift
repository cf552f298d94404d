internal import Gevent
@_spi(GeventInternals) internal import GeventCore
@_spi(GeventInternals) internal import GeventDiagnostics
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

/// Accepts connections and runs a handler for each, in a greenlet of its own.
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
/// The handler gets a ``Socket``, which is a `ByteStream`: a function that serves `some ByteStream` or `any ByteStream`
/// is a handler too, and one that speaks another protocol over the socket makes the stream of that protocol first, in
/// the connection's own greenlet, where it may park.
///
/// A connection is closed when its handler returns or throws, and when the handler could not be started. An error that
/// a handler throws is reported to the hub's error handler and touches nothing but its own connection. Not reported are
/// an exit, and the error that this very connection was lost (``SocketError/Code/connectionLost``), which clients cause
/// every day; a handler that wants to know catches it. Reports name a connection's greenlet by its peer.
///
/// When accepting fails, for want of descriptors or memory for example, it pauses: ``minDelay``, doubling up to
/// ``maxDelay``, until it succeeds again. The first failure is reported. Only an error that says that the listener
/// itself is of no use (`EBADF`, `EINVAL`, `ENOTSOCK`) closes the server, and so does the end of the greenlet that
/// accepts: if it is killed, or another greenlet waits on the same listener.
///
/// A server is used on the thread of one hub and serves once: what was stopped stays stopped. It goes on serving until
/// then, even if nothing holds it. gevent: `gevent.server.StreamServer`.
public final class StreamServer {
    /// Serves one connection. The socket is closed when it returns.
    public typealias Handler = (_ socket: Socket, _ peer: SocketAddress) throws -> Void

    /// Connections accepted one after the other before other greenlets get their turn; 100.
    ///
    /// 1 is fair to other processes that accept from the same listener. Less counts as 1.
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

    /// How many handlers may run at once; nil for any number. While they do, further connections wait in the kernel.
    ///
    /// gevent: `spawn=n`.
    public let limit: Int?

    /// Where it listens. After ``start()`` the port is the real one, also if 0 was asked for.
    ///
    /// gevent: `BaseServer.address`.
    public private(set) var address: SocketAddress

    private enum Phase {
        case new, started, closed
    }

    /// The bytes of a handler's stack; nil for the default.
    fileprivate let stackSize: Int?
    let handler: Handler
    private let backlog: Int
    private var phase = Phase.new
    private var listener: Socket?
    /// The file of the listener's Unix address, if it was bound here.
    private var boundFile: BoundFile?
    private var acceptor: Greenlet<Void>?
    /// Never runs; it is ended when the server closes, and `serveForever` joins it.
    private var closing: Greenlet<Void>?
    /// What closed the server, if `stop` did not.
    private var failure: (any Error)?
    /// One attempt to accept. Tests replace it by one that fails.
    var acceptOne: (Socket) throws -> (socket: Socket, address: SocketAddress)? = { try $0.acceptIfReady() }

    // Unmanaged, since a connection takes itself out when it goes, and that is how we learn of one that never ran.
    private var connections: [Unmanaged<Connection>] = []
    /// Never runs; it is ended when a full server gets room, and the acceptor joins it.
    private var vacancy: Greenlet<Void>?
    private var startFailed = false
    private var pause = Duration.zero
    /// Errors of single connections since the last one that was accepted.
    private var brokenInARow = 0
    private var arrivals = Arrivals()

    // MARK: Making

    /// A server that will listen on `address`: before ``start()`` connections are refused. Never parks.
    ///
    /// - Parameters:
    ///   - address: where to listen; port 0 lets the system choose.
    ///   - backlog: how many connections may wait to be accepted; the kernel caps it.
    ///   - limit: how many handlers may run at once, at least 1; nil for any number.
    ///   - stackSize: bytes of stack for each handler, from 16 KiB to 64 MiB, see `Gevent.spawn(stackSize:_:)`; nil for
    ///     what `GEVENT_STACK_SIZE` says.
    ///   - handler: serves one connection, in a greenlet of its own.
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

    /// A server on a socket that listens already: before ``start()`` connections are queued. It closes the socket when
    /// it is stopped. Throws ``SocketError`` if the socket is closed. Never parks.
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
        precondition(limit ?? 1 >= 1, "a server that may run \(limit ?? 0) handlers serves nobody")
        precondition(
            (16 << 10...64 << 20).contains(stackSize ?? 1 << 20),
            "a stack of \(stackSize ?? 0) bytes: stackSize takes 16384 (16 KiB) to 67108864 (64 MiB)")
    }

    // MARK: Facts

    /// Whether it accepts connections, or will again after a pause.
    ///
    /// gevent: `BaseServer.started`.
    public var isStarted: Bool { phase == .started }

    /// Whether it was stopped, or closed by an error.
    ///
    /// gevent: `BaseServer.closed`.
    public var isClosed: Bool { phase == .closed }

    /// The port of ``address``; 0 for a Unix address.
    ///
    /// gevent: `BaseServer.server_port`.
    public var port: Int { address.port }

    /// How many handlers run, or are about to.
    public var handlerCount: Int { connections.count }

    // MARK: Starting and stopping

    /// Begins to listen and to accept. No effect on a started server. Never parks.
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
                message: failure.map { "it was closed by an error: \($0)" } ?? "it was stopped")
        case .new: break
        }
        let listener = try self.listener ?? listen()
        address = try listener.localAddress
        self.listener = listener
        phase = .started
        let acceptor = Greenlet<Void> { try self.accept(from: listener) }
        acceptor.name = "accept on \(address)"
        // However it ends, and also if it never runs.
        acceptor.rawLink { acceptor in try self.acceptorEnded(acceptor.exit ?? acceptor.error) }
        self.acceptor = acceptor
        acceptor.start()
    }

    private func listen() throws -> Socket {
        let listener = try Socket.listen(on: address, backlog: backlog)
        boundFile = address.pathname.flatMap { BoundFile($0) }
        return listener
    }

    /// Closes the listener, waits for the handlers that run for at most `timeout`, and kills those that are left.
    ///
    /// Handlers of idle connections are killed at once, and those of the others as soon as their connections are idle.
    /// A connection is idle if its handler waits to read from it with calls of ``Socket``, has answered by a write
    /// whatever it read before, and nothing more has come in. That is what can be known without the protocol: it holds
    /// between two requests, and before the first one. A handler that only reads is never idle, nor is one that reads
    /// by other means or in another greenlet.
    ///
    /// Parks. A handler that waits in its clean-up after being killed is given another second. Called in a handler, it
    /// spares that one. Repeatable; a stop before the start keeps the server from ever starting. Throws what interrupts
    /// the caller; the handlers are killed then, but not waited for.
    ///
    /// Removes the file of a Unix address if this server made it and it is still the same file; in a forked child it
    /// stays, since the parent goes on listening.
    ///
    /// - Parameter timeout: how long handlers may go on; nil for as long as they take, zero to kill them at once.
    ///
    /// gevent: `BaseServer.stop(timeout=1)`.
    @available(*, noasync)
    public func stop(timeout: Duration? = .seconds(1)) throws {
        try close()
        let handlers = connections.map { $0.takeUnretainedValue() }.filter { $0 !== AnyGreenlet.current }
        // One that was killed before it ran stands in the ready queue until its turn; its connection need not.
        defer { for handler in handlers where handler.isDead { handler.finish() } }
        do {
            for (index, handler) in handlers.enumerated() {
                try handler.endOnceIdle()
                // Each is a system call; with many, others get their turn.
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

    /// Starts the server if need be, and parks until it is stopped from another greenlet; then waits as
    /// ``stop(timeout:)`` does and returns.
    ///
    /// Returns at once if it was stopped before. If this greenlet is killed or timed out, the server is stopped, and
    /// then the error is thrown on. Throws what ``start()`` throws, and the error that closed the server if one did:
    /// ``SocketError`` with code `closed` if the greenlet that accepts was killed.
    ///
    /// gevent: `BaseServer.serve_forever(stop_timeout=None)`.
    @available(*, noasync)
    public func serveForever(stopTimeout: Duration? = .seconds(1)) throws {
        if phase == .closed {
            if let failure { throw failure }
            return
        }
        try start()
        let closing = self.closing ?? Greenlet<Void> {}
        self.closing = closing
        do {
            try closing.join()
        } catch {
            try stopApart(stopTimeout)
            throw error
        }
        try stopApart(stopTimeout)
        if let failure { throw failure }
    }

    /// Stops in a greenlet of its own: what interrupts this one a second time does not cut the stop short.
    private func stopApart(_ timeout: Duration?) throws {
        try spawn { try self.stop(timeout: timeout) }.join()
    }

    /// Ends the listening; what runs goes on.
    private func close() throws {
        if phase == .closed { return }
        if let acceptor, acceptor !== AnyGreenlet.current { try acceptor.kill(blocking: false) }
        phase = .closed
        acceptor = nil
        listener?.close()
        listener = nil
        boundFile?.remove()
        boundFile = nil
        try closing?.kill(blocking: false)
    }

    // MARK: Accepting

    private func accept(from listener: Socket) throws {
        do {
            while true { try acceptSome(from: listener) }
        } catch let error as SocketError {
            // Stopped between being woken and running: the listener it was woken for is closed, and that is no failure.
            if phase != .closed { throw error }
        }
    }

    /// Without its acceptor the server is closed: clients must not queue at a listener that nothing accepts from.
    private func acceptorEnded(_ error: (any Error)?) throws {
        if phase != .started { return }
        if let exit = error as? any GreenletExitError {
            failure = SocketError(
                .closed, operation: "serve on", address: address,
                message: "the greenlet that accepts was killed (\(exit))")
        } else {
            failure = error
        }
        try close()
    }

    /// Accepts what is there, within the bounds, and waits for whatever is needed to go on.
    private func acceptSome(from listener: Socket) throws {
        do {
            var accepted = 0
            while isReadyForMore {
                guard let (socket, _) = try acceptOne(listener) else {
                    arrivals.ended(after: accepted)
                    return try listener.waitToAccept()
                }
                brokenInARow = 0
                Connection(socket, of: self).begin()
                accepted += 1
                if accepted >= maxAccept { return try sleep() }
                if !arrivals.expectsMore(after: accepted) { return try listener.waitToAccept() }
            }
            if startFailed {
                // The core has reported it.
                startFailed = false
                try rest()
            } else {
                try waitForVacancy()
            }
        } catch let error as SocketError {
            try recover(from: error)
        }
    }

    /// Waits until another attempt to accept is due, or throws the error if no attempt can succeed any more. See
    /// accept(2); errors of registering the listener with the loop, such as ENOSPC, arrive here too.
    private func recover(from error: SocketError) throws {
        switch error.errno {
        case EBADF, EINVAL, ENOTSOCK:
            throw error
        case ECONNABORTED, EPROTO, EPERM, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP,
            ENETUNREACH, ETIMEDOUT, ECONNRESET:
            // Errors of one connection, which is gone again; a firewall's EPERM is one, too. The next may be fine, so
            // there is no pause until many have come in a row: then the network is down, or something refuses them all.
            brokenInARow += 1
            if brokenInARow <= maxAccept { return try sleep() }
            fallthrough
        default:
            if pause == .zero { spawnRaw { throw error } }
            try rest()
        }
    }

    private var isReadyForMore: Bool { !startFailed && connections.count < limit ?? .max }

    private func rest() throws {
        pause = pause == .zero ? minDelay : min(pause * 2, maxDelay)
        try sleep(for: pause)
    }

    private func waitForVacancy() throws {
        let vacancy = Greenlet<Void> {}
        self.vacancy = vacancy
        defer { self.vacancy = nil }
        try vacancy.join()
    }

    // MARK: Connections

    fileprivate func add(_ connection: Connection) -> Int {
        connections.append(.passUnretained(connection))
        return connections.count - 1
    }

    /// A handler runs: whatever was short is there again.
    fileprivate func didStart() { pause = .zero }

    /// Constant time: the last one takes its place.
    fileprivate func remove(at index: Int, didNotStart: Bool) {
        let last = connections.removeLast()
        if index < connections.count {
            connections[index] = last
            last._withUnsafeGuaranteedRef { $0.index = index }
        }
        if didNotStart { startFailed = true }
        // Never started, so ending it only wakes who joins it.
        if let vacancy { wake(vacancy) }
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

/// Guesses whether another connection waits behind the one that was accepted.
///
/// An attempt that finds none is dear: the kernel makes a file and a socket before it looks. Nothing is missed without
/// it, since the loop is level-triggered. But if many come in, an attempt is cheaper than another look by the hub,
/// whose turn may take a while.
private struct Arrivals {
    /// The last time that no more was found, only one had been.
    private var comeAlone = false
    private var skipped = 0

    mutating func expectsMore(after accepted: Int) -> Bool {
        if accepted > 1 || !comeAlone { return true }
        // One attempt in eight, so that a crowd is found soon.
        skipped += 1
        return skipped % 8 == 0
    }

    /// There was no further one.
    mutating func ended(after accepted: Int) {
        if accepted > 0 { comeAlone = accepted == 1 }
    }
}

/// The greenlet of one connection. A subclass, so that a connection costs one object and no closure.
private final class Connection: Greenlet<Void> {
    private let server: StreamServer
    private let socket: Socket
    /// Its place among the server's connections.
    fileprivate var index = -1
    private var isFinished = false

    init(_ socket: Socket, of server: StreamServer) {
        self.server = server
        self.socket = socket
        if let stackSize = server.stackSize { super.init(stackSize: stackSize) } else { super.init() }
    }

    deinit {
        // Killed before it ran, or there was no stack for it.
        finish()
    }

    func begin() {
        index = server.add(self)
        start()
    }

    override func run() throws {
        defer { finish() }
        server.didStart()
        showName()
        do {
            try server.handler(socket, socket.peer ?? .unnamed)
        } catch {  // control: everything but the loss of the connection is thrown on
            if !isOwnLoss(error) { throw error }
        }
    }

    /// Whether the peer reset this very connection, or closed it while the handler wrote: no failure of the server. The
    /// loss of another connection, which the handler has opened, is one.
    ///
    /// Apart from `run`, whose frame is part of what an idle connection costs.
    @inline(never)
    private func isOwnLoss(_ error: any Error) -> Bool {
        guard socket.isLost, let error = error as? SocketError, error.code == .connectionLost else { return false }
        return error.peerAddress == socket.peer.flatMap { $0.isUnnamed ? nil : $0 }
    }

    /// The server stops: ends the handler now if the connection is idle, or else when it comes to be.
    func endOnceIdle() throws {
        if isDead { return }
        socket.endWhenIdle(self)
        if socket.descriptor.isReader(self), try socket.hasNoRequest { try kill(blocking: false) }
    }

    /// Closes the connection and takes it out of the server. Repeatable.
    func finish() {
        if isFinished { return }
        isFinished = true
        socket.close()
        server.remove(at: index, didNotStart: (error as? HubError)?.code == .outOfStacks)
    }

    // MARK: Its name

    /// The peer's address, or the server's if the peer is unnamed, as clients of Unix sockets are.
    private var shownAddress: SocketAddress {
        guard let peer = socket.peer, !peer.isUnnamed else { return server.address }
        return peer
    }

    override var automaticName: String? { "\(shownAddress)" }

    /// For the reports of a monitor and of an overflow, which cannot call this object.
    @inline(never)
    private func showName() {
        shownAddress.withCText(showAutomaticName)
    }
}

extension Socket {
    /// Parks until there is something to accept, whatever the socket's own timeout.
    fileprivate func waitToAccept() throws {
        var deadline = try descriptor.begin(nil)
        try wait(for: .read, "accept", &deadline)
    }
}
