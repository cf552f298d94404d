internal import CGeventSystem
internal import Gevent
@_spi(GeventInternals) internal import GeventCore
@_spi(GeventInternals) public import GeventIO
internal import Glibc

/// A stream socket: TCP over IPv4 or IPv6, or Unix.
///
/// ```swift
/// let socket = try Socket.connect(to: SocketAddress("127.0.0.1:7"))
/// defer { socket.close() }
/// try socket.writeAll("hello\n")
/// let answer = try socket.read()
/// ```
///
/// It is a `ByteStream`, which has further forms of its calls: for pointers, arrays and strings, and without a timeout.
///
/// Calls look blocking and park only the calling greenlet. The system call comes first and the wait after it, so what
/// is ready does not yield; the exception is a read that follows a short one, see ``read(into:timeout:)``.
///
/// **Timeouts.** Each call that may park takes a `timeout`; nil, the default, means the socket's own ``timeout``. No
/// timeout at all parks for as long as it takes; zero or less never parks and throws `wouldBlock`; a positive one
/// throws `timedOut` when it is over. It limits one wait in ``read(into:timeout:)``, ``write(_:timeout:)`` and
/// ``accept(timeout:)``, and the whole of ``connect(to:timeout:)-method``, ``readExactly(_:timeout:)`` and
/// ``writeAll(_:timeout:)``.
///
/// **Who may use it.** A socket belongs to the hub of the thread it was made on; other threads are thrown `HubError`
/// with `.wrongThread`. At most one greenlet may wait to read and one to write; a further one is thrown
/// `.concurrentUse`.
///
/// **What is thrown.** ``SocketError``, `HubError`, and what interrupts the greenlet: a kill or a timeout from outside,
/// after which the socket is as it was, except that part of a longer read or write has happened.
///
/// **TCP_NODELAY** is on for all TCP sockets made here, and those they accept inherit it: who writes a message in one
/// call wants it sent, and delaying it for an earlier one's acknowledgement costs tens of milliseconds. gevent leaves
/// the kernel's default; `setOption(.noDelay, to: false)` gives it back.
///
/// A socket that is dropped is closed. gevent: `gevent.socket.socket`.
public final class Socket: ByteStream {
    let descriptor: WatchedDescriptor

    /// The kind of its addresses.
    public let family: SocketAddress.Family

    /// The timeout of calls that are given none: nil parks, zero or less does not park, and a positive one limits the
    /// wait. Nil at first, also for accepted sockets.
    ///
    /// gevent: `socket.settimeout(value)`, `socket.gettimeout()`.
    @exclusivity(unchecked) public var timeout: Duration?

    // Unchecked exclusivity here and above: each access is a single load or store that no switch can fall into, and the
    // checks would be made for every read and write.

    /// Bytes were read since the last write, or may have been by other means: a request may be under way.
    @exclusivity(unchecked) var isUnanswered = false
    /// The connection broke: an error with code `connectionLost` was thrown.
    @exclusivity(unchecked) var isLost = false
    /// The other end, if it is known without asking the kernel, which forgets it when the connection is reset.
    @exclusivity(unchecked) var peer: SocketAddress?

    // MARK: Making

    /// A socket that is neither bound nor connected.
    ///
    /// Makes the thread's hub if there is none. Never parks. Throws ``SocketError`` if there are no descriptors or
    /// memory left, and what making the hub throws.
    ///
    /// gevent: `socket.socket(family, type)`.
    public init(family: SocketAddress.Family) throws {
        let made = gevent_net_socket(family.raw)
        if made < 0 { throw SocketError(errno: -made, operation: "socket") }
        descriptor = try WatchedDescriptor(owning: made)
        self.family = family
        if family.isInternet { try setOption(.noDelay, to: true) }
    }

    /// Takes over a descriptor made elsewhere: inherited, received, or from a C library. It is made non-blocking.
    ///
    /// The socket closes it; but if this throws, it is still the caller's. Throws ``SocketError`` if it is not a socket
    /// of a kind that this type knows.
    ///
    /// gevent: `socket.socket(fileno=…)`.
    public init(fileDescriptor: CInt) throws {
        let raw = gevent_net_family(fileDescriptor)
        if raw < 0 { throw SocketError(errno: -raw, operation: "adopt descriptor \(fileDescriptor)") }
        guard let family = SocketAddress.Family(raw: raw) else {
            throw SocketError(errno: EAFNOSUPPORT, operation: "adopt descriptor \(fileDescriptor)")
        }
        // An empty datagram would read as the end of a stream.
        guard gevent_net_is_stream(fileDescriptor) else {
            throw SocketError(errno: EPROTOTYPE, operation: "adopt descriptor \(fileDescriptor)")
        }
        let result = gevent_net_set_nonblocking(fileDescriptor)
        if result < 0 { throw SocketError(errno: -result, operation: "adopt descriptor \(fileDescriptor)") }
        descriptor = try WatchedDescriptor(fileDescriptor)
        self.family = family
    }

    /// One that the kernel has made for us: open, non-blocking, and closed here if there is no hub to put it on.
    init(owning fileDescriptor: CInt, family: SocketAddress.Family, peer: SocketAddress? = nil) throws {
        descriptor = try WatchedDescriptor(owning: fileDescriptor)
        self.family = family
        self.peer = peer
    }

    /// Two connected Unix sockets. Never parks. Throws what ``init(family:)`` throws.
    ///
    /// gevent: `socket.socketpair()`.
    public static func pair() throws -> (Socket, Socket) {
        var descriptors: (CInt, CInt) = (-1, -1)
        let result = withUnsafeMutableBytes(of: &descriptors) {
            gevent_net_pair($0.assumingMemoryBound(to: CInt.self).baseAddress)
        }
        if result < 0 { throw SocketError(errno: -result, operation: "socketpair") }
        let first: Socket
        do {
            first = try Socket(owning: descriptors.0, family: .unix)
        } catch {
            _ = Glibc.close(descriptors.1)
            throw error
        }
        return (first, try Socket(owning: descriptors.1, family: .unix))
    }

    // MARK: Facts

    /// The descriptor's number, for C libraries; -1 once the socket is closed or detached.
    ///
    /// gevent: `socket.fileno()`.
    public var fileDescriptor: CInt { descriptor.fileDescriptor }

    /// Whether it was closed or detached on this side.
    public var isClosed: Bool { descriptor.fileDescriptor < 0 }

    /// What it is bound to. Throws ``SocketError`` if it is closed.
    ///
    /// gevent: `socket.getsockname()`.
    public var localAddress: SocketAddress {
        get throws {
            var raw = gevent_net_address()
            let result = gevent_net_local_address(try openDescriptor("localAddress"), &raw)
            if result < 0 { throw failure(errno: -result, "localAddress") }
            return SocketAddress(raw)
        }
    }

    /// Whom it is connected to. Throws ``SocketError`` if it is not (`ENOTCONN`).
    ///
    /// gevent: `socket.getpeername()`.
    public var peerAddress: SocketAddress {
        get throws {
            var raw = gevent_net_address()
            let result = gevent_net_peer_address(try openDescriptor("peerAddress"), &raw)
            if result < 0 { throw failure(errno: -result, "peerAddress") }
            return SocketAddress(raw)
        }
    }

    // MARK: The end

    /// Ends one half of the connection, or both; who waits in it wakes. The socket stays open. Never parks.
    ///
    /// Throws ``SocketError`` with errno `ENOTCONN` if it is not connected, or not any more.
    ///
    /// gevent: `socket.shutdown(how)`.
    public func shutdown(_ direction: StreamDirection) throws {
        let (how, readiness): (Int, Readiness) =
            switch direction {
            case .read: (SHUT_RD, .read)
            case .write: (SHUT_WR, .write)
            case .both: (SHUT_RDWR, [.read, .write])
            }
        if Glibc.shutdown(try openDescriptor("shutdown"), CInt(how)) < 0 {
            throw failure(errno: Glibc.errno, "shutdown")
        }
        // TCP makes the descriptor ready; a Unix socket does not for those who wait to write.
        try descriptor.wake(readiness)
    }

    /// Closes the socket. Greenlets that wait on it are thrown ``SocketError`` with code `closed`. Repeatable, never
    /// parks. Traps on a foreign thread: there is nothing to be thrown into a `defer`.
    ///
    /// gevent: `socket.close()`.
    public func close() {
        do {
            try descriptor.close()
        } catch let error as HubError where error.code == .destroyed {
            // Nobody is left who could wait; the descriptor itself goes with the object.
        } catch {  // control: close() does not park, so this is no kill; it is the foreign thread
            fatalError("Socket.close(): \(error)")
        }
    }

    /// Gives the descriptor up without closing it and returns it; non-blocking, as it was. Greenlets that wait on it
    /// are thrown ``SocketError`` with code `closed`. Never parks.
    ///
    /// gevent: `socket.detach()`.
    public func detach() throws -> CInt {
        _ = try openDescriptor("detach")
        return try descriptor.detach()
    }

    /// The number, if it is open and the thread is right.
    func openDescriptor(_ operation: String) throws -> CInt {
        try descriptor.checkThread()
        let fileDescriptor = descriptor.fileDescriptor
        if fileDescriptor < 0 { throw failure(errno: EBADF, operation) }
        return fileDescriptor
    }
}

@available(*, unavailable)
extension Socket: Sendable {}

extension WatchedDescriptor {
    /// Takes a descriptor over for good: it is closed if there is no hub to put it on.
    fileprivate convenience init(owning fileDescriptor: CInt) throws {
        do {
            try self.init(fileDescriptor)
        } catch {
            _ = Glibc.close(fileDescriptor)
            throw error
        }
    }
}
