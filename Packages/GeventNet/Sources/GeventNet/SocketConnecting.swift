internal import CGeventSystem
internal import Gevent
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
        var patience = try patience(timeout)
        try checkFamily(of: address, "connect")
        var raw = address.raw
        var isUnderWay = false
        var pause = Duration.milliseconds(1)
        while true {
            // Asking again is also how the outcome is learnt: the kernel then reports the attempt's own error.
            let result = -gevent_net_connect(descriptor.fileDescriptor, &raw)
            switch result {
            case 0:
                peer = address
                return
            case EISCONN where isUnderWay:
                peer = address
                return
            case EINPROGRESS, EALREADY:
                isUnderWay = true
                try wait(for: .write, "connect", &patience, coversWholeCall: true, address: address)
            case EAGAIN where family == .unix:
                // The listener's queue is full. Nothing is under way and nothing will tell when there is room.
                try wait(for: pause, &patience, address)
                pause = min(pause * 2, .milliseconds(50))
            default: throw failure(errno: result, "connect", address: address)
            }
        }
    }

    private func wait(for pause: Duration, _ patience: inout Patience, _ address: SocketAddress) throws {
        if patience.isNone { throw failure(.wouldBlock, errno: EAGAIN, "connect", address: address) }
        try patience.sleep(for: pause) { timedOut("connect", address) }
        if descriptor.fileDescriptor < 0 { throw closedMeanwhile("connect") }
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
        var patience = try patience(timeout)
        while true {
            if let accepted = try acceptIfReady() { return accepted }
            try wait(for: .read, "accept", &patience)
        }
    }

    /// Accepts a connection if one is there.
    func acceptIfReady() throws -> (socket: Socket, address: SocketAddress)? {
        var raw = gevent_net_address()
        let accepted = gevent_net_accept(descriptor.fileDescriptor, &raw)
        if accepted >= 0 {
            let peer = SocketAddress(raw)
            return (try Socket(owning: accepted, family: family, peer: peer), peer)
        }
        if accepted == -EAGAIN { return nil }
        throw failure(errno: -accepted, "accept")
    }

    private func checkFamily(of address: SocketAddress, _ operation: String) throws {
        if address.family == family { return }
        throw failure(
            .badAddress, operation, address: address,
            message: "this is an address of family \(address.family), and the socket's is \(family)")
    }
}
