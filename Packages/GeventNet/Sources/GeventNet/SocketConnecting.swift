internal import CGeventSystem
internal import Gevent
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

// How sockets come to be connected: connect on one side; bind, listen and accept on the other.

extension Socket {
    /// A socket connected to `address`. If this throws, whatever the reason, no half-open socket is left.
    ///
    /// Parks until the connection stands; `timeout` is for the whole, and nil waits until the kernel gives up, which
    /// can be minutes. Throws as described at ``Socket``.
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

    /// Connects to `address`. Parks until the connection stands; the timeout is for the whole.
    ///
    /// A timeout of zero begins and throws `wouldBlock`; calling again asks how it went. After any other error the
    /// socket is good for closing only. Throws as described at ``Socket``; ``SocketError`` with code `badAddress` if
    /// the address is of another family.
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
            // The listener's queue is full. Nothing is under way, and no event tells when there is room.
            do {
                try deadline.sleep(for: pause)
            } catch {  // control: every error is thrown on
                throw translated(error, "connect", address)
            }
            if isClosed { throw closedMeanwhile("connect") }
            pause = min(pause * 2, .milliseconds(50))
        }
        peer = address
    }

    /// Gives the socket its own address; port 0 lets the system choose one. Never parks.
    ///
    /// The path of a Unix address must not exist; the file stays when the socket is closed. Throws ``SocketError``,
    /// which names the address.
    ///
    /// gevent: `socket.bind(address)`.
    public func bind(to address: SocketAddress) throws {
        let fileDescriptor = try openDescriptor("bind")
        try checkFamily(of: address, "bind")
        var raw = address.raw
        let result = gevent_net_bind(fileDescriptor, &raw)
        if result < 0 { throw failure(errno: -result, "bind", address: address) }
    }

    /// Lets others connect. Never parks. Throws ``SocketError``.
    ///
    /// - Parameter backlog: how many connections may wait to be accepted; the kernel caps it.
    ///
    /// gevent: `socket.listen(backlog)`.
    public func listen(backlog: Int = 128) throws {
        let capped = CInt(clamping: backlog)
        if Glibc.listen(try openDescriptor("listen"), capped) < 0 {
            throw failure(errno: Glibc.errno, "listen")
        }
    }

    /// A socket that listens on `address`, with the reuse of addresses on. Never parks.
    ///
    /// Throws ``SocketError``, which names the address: `addressInUse` if somebody listens there.
    ///
    /// gevent: `socket.create_server(address, backlog=…)`.
    public static func listen(on address: SocketAddress, backlog: Int = 128) throws -> Socket {
        let socket = try Socket(family: address.family)
        if address.family.isInternet { try socket.setOption(.reuseAddress, to: true) }
        try socket.bind(to: address)
        do {
            try socket.listen(backlog: backlog)
        } catch let error as SocketError {
            // Somebody else may have begun to listen between our bind and now.
            throw SocketError(errno: error.errno, operation: "listen on", address: address)
        }
        return socket
    }

    /// Accepts a connection, parking if none is there. Returns its socket and the peer's address.
    ///
    /// Throws as described at ``Socket``. Some errors are of a connection that is gone again (`ECONNABORTED`) or pass
    /// (`outOfResources`): ``StreamServer`` knows which.
    ///
    /// gevent: `socket.accept()`.
    @available(*, noasync)
    public func accept(timeout: Duration? = nil) throws -> (socket: Socket, address: SocketAddress) {
        var deadline = try begin(timeout)
        var operation = Accept()
        return try accepted(perform(&operation, "accept", &deadline), from: operation)
    }

    /// Accepts a connection if one is there.
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
            message: "this is an address of family \(address.family), and the socket's is \(family)")
    }
}
