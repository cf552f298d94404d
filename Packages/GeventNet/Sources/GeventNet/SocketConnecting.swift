internal import CGeventSystem
internal import Gevent
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

// Connecting on the client's side; binding, listening and accepting on the server's.

extension Socket {
    /// Creates a socket and connects it to `address`. If this throws for any reason, no half-open socket remains.
    ///
    /// Parks until the connection is established; `timeout` covers the whole call, and nil waits until the kernel gives
    /// up, which can take minutes. Throws as described at ``Socket``.
    ///
    /// gevent: `socket.create_connection(address, timeout)`.
    @available(*, noasync)
    public static func connect(to address: SocketAddress, timeout: Duration? = nil) throws -> Socket {
        let socket = try Socket(family: address.family)
        do {
            try socket.connect(to: address, timeout: timeout)
        } catch {
            socket.close()
            throw error
        }
        return socket
    }

    /// Connects to `address`. Parks until the connection is established; the timeout covers the whole call.
    ///
    /// With a timeout of zero the call starts to connect and throws `wouldBlock`; call it again to get the result.
    /// After any other error the socket can only be closed. Throws as described at ``Socket``, and ``SocketError`` with
    /// code `badAddress` if the address is of another family.
    ///
    /// gevent: `socket.connect(address)`.
    @available(*, noasync)
    public func connect(to address: SocketAddress, timeout: Duration? = nil) throws {
        var deadline = try begin(timeout, coversWholeCall: true)
        try checkFamily(of: address, "connect")
        var operation = Connect(address)
        var pause = Duration.milliseconds(1)
        while true {
            let result = -(try outcome(of: &operation, "connect", &deadline, address: address))
            if result == 0 { break }
            guard result == EAGAIN, family == .unix else {
                throw failure(errno: CInt(result), "connect", address: address)
            }
            // The listener's queue is full. The kernel has not started to connect, and no event announces room in the
            // queue.
            do {
                try deadline.sleep(for: pause)
            } catch {  // control: every error is rethrown
                throw translated(error, "connect", address)
            }
            if isClosed { throw closedWhileWaiting("connect") }
            pause = min(pause * 2, .milliseconds(50))
        }
        peer = address
    }

    /// Binds the socket to a local address; port 0 lets the system choose one. Never parks.
    ///
    /// The path of a Unix address must not exist, and its file remains when the socket is closed. Throws
    /// ``SocketError``, which names the address.
    ///
    /// gevent: `socket.bind(address)`.
    public func bind(to address: SocketAddress) throws {
        let fileDescriptor = try openDescriptor("bind")
        try checkFamily(of: address, "bind")
        var raw = address.raw
        let result = gevent_net_bind(fileDescriptor, &raw)
        if result < 0 { throw failure(errno: -result, "bind", address: address) }
    }

    /// Starts to listen for connections. Never parks. Throws ``SocketError``.
    ///
    /// - Parameter backlog: the maximum number of connections that wait to be accepted; the kernel caps it.
    ///
    /// gevent: `socket.listen(backlog)`.
    public func listen(backlog: Int = 128) throws {
        let capped = CInt(clamping: backlog)
        if Glibc.listen(try openDescriptor("listen"), capped) < 0 {
            throw failure(errno: Glibc.errno, "listen")
        }
    }

    /// Creates a socket that listens on `address`, with `reuseAddress` on. Never parks.
    ///
    /// Throws ``SocketError``, which names the address: `addressInUse` if another socket listens there.
    ///
    /// gevent: `socket.create_server(address, backlog=…)`.
    public static func listen(on address: SocketAddress, backlog: Int = 128) throws -> Socket {
        let socket = try Socket(family: address.family)
        if address.family.isInternet { try socket.setOption(.reuseAddress, to: true) }
        try socket.bind(to: address)
        do {
            try socket.listen(backlog: backlog)
        } catch let error as SocketError {
            // Another socket may have started to listen between our bind and now.
            throw SocketError(errno: error.errno, operation: "listen on", address: address)
        }
        return socket
    }

    /// Accepts a connection; parks if none is pending. Returns its socket and the peer's address.
    ///
    /// Throws as described at ``Socket``. Some errors concern a connection that no longer exists (`ECONNABORTED`) or
    /// are temporary (`outOfResources`); ``StreamServer`` distinguishes them.
    ///
    /// gevent: `socket.accept()`.
    @available(*, noasync)
    public func accept(timeout: Duration? = nil) throws -> (socket: Socket, address: SocketAddress) {
        var deadline = try begin(timeout)
        var operation = Accept()
        return try accepted(perform(&operation, "accept", &deadline), from: operation)
    }

    /// Accepts a pending connection; returns nil if there is none.
    func acceptIfReady() throws -> (socket: Socket, address: SocketAddress)? {
        var operation = Accept()
        guard let result = descriptor.performIfReady(&operation) else { return nil }
        if result < 0 { throw failure(errno: CInt(-result), "accept") }
        return try accepted(result, from: operation)
    }

    private func accepted(
        _ fileDescriptor: Int, from operation: Accept
    ) throws -> (socket: Socket, address: SocketAddress) {
        let peer = SocketAddress(operation.address)
        return (try Socket(owning: CInt(fileDescriptor), family: family, peer: peer), peer)
    }

    private func checkFamily(of address: SocketAddress, _ operation: String) throws {
        if address.family == family { return }
        throw failure(
            .badAddress, operation, address: address,
            message: "the address has family \(address.family), but the socket has family \(family)")
    }
}
