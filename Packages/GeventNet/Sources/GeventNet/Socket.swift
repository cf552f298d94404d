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
/// A socket is a `ByteStream`. That protocol adds further forms of its calls: for pointers, arrays and strings, and
/// without a timeout.
///
/// Calls look blocking but park only the calling greenlet. Each makes its system call first and waits only if it must,
/// so a call on a ready socket does not yield. The exception is a read after a short read, see ``read(into:timeout:)``.
///
/// **Timeouts.** Each call that may park takes a `timeout`; nil, the default, means the socket's own ``timeout``. If
/// that is nil too, the call waits without a limit. With zero or less a call never parks and throws `wouldBlock`; a
/// positive timeout throws `timedOut` when it expires. It limits one wait in ``read(into:timeout:)``,
/// ``write(_:timeout:)`` and ``accept(timeout:)``, and the whole of ``connect(to:timeout:)-method``,
/// ``readExactly(_:timeout:)`` and ``writeAll(_:timeout:)``.
///
/// **Threads and greenlets.** A socket belongs to the hub of the thread that created it; calls on other threads throw
/// `HubError` with `.wrongThread`. At most one greenlet may wait to read and one to write; the call of another greenlet
/// throws `.concurrentUse`.
///
/// **Errors.** Calls throw ``SocketError``, `HubError`, and the error that interrupts the greenlet: a kill or an outer
/// timeout. After an interruption the socket is as it was, except that part of a longer read or write may have been
/// done.
///
/// **TCP_NODELAY** is on for all TCP sockets created here, and accepted sockets inherit it. A message written in one
/// call should be sent at once; delaying it until an earlier one is acknowledged costs tens of milliseconds. gevent
/// leaves the kernel's default; `setOption(.noDelay, to: false)` restores it.
///
/// A socket is closed when it is deallocated. gevent: `gevent.socket.socket`.
public final class Socket: ByteStream {
    let descriptor: WatchedDescriptor

    /// The family of the socket's addresses.
    public let family: SocketAddress.Family

    /// The timeout of calls without one of their own: nil for no limit, zero or less to never park, and a positive one
    /// to limit the wait. Initially nil, also for accepted sockets.
    ///
    /// gevent: `socket.settimeout(value)`, `socket.gettimeout()`.
    @exclusivity(unchecked) public var timeout: Duration?

    // Exclusivity is unchecked here and above: each access is a single load or store, which no switch can interrupt,
    // and every read and write would pay for the checks.

    /// Whether bytes were read since the last write, or may have been read by other means: a request may be in
    /// progress.
    @exclusivity(unchecked) var hasUnansweredInput = false
    /// Whether the connection was lost: an error with code `connectionLost` was thrown.
    @exclusivity(unchecked) var isLost = false
    /// The peer's address, if known without a system call. The kernel forgets it when the connection is reset.
    @exclusivity(unchecked) var peer: SocketAddress?

    // MARK: Creating

    /// Creates a socket that is neither bound nor connected.
    ///
    /// Creates the thread's hub if there is none. Never parks. Throws ``SocketError`` if descriptors or memory are
    /// exhausted, and any error of creating the hub.
    ///
    /// gevent: `socket.socket(family, type)`.
    public init(family: SocketAddress.Family) throws {
        let fileDescriptor = gevent_net_socket(family.raw)
        if fileDescriptor < 0 { throw SocketError(errno: -fileDescriptor, operation: "socket") }
        descriptor = try WatchedDescriptor(owning: fileDescriptor)
        self.family = family
        if family.isInternet { try setOption(.noDelay, to: true) }
    }

    /// Adopts a descriptor from elsewhere: inherited, received, or from a C library. Makes it non-blocking.
    ///
    /// The socket owns the descriptor and closes it; if this initializer throws, the caller still owns it. Throws
    /// ``SocketError`` if the descriptor is not a stream socket of a supported family.
    ///
    /// gevent: `socket.socket(fileno=…)`.
    public init(fileDescriptor: CInt) throws {
        let operation = "adopt descriptor \(fileDescriptor)"
        var raw = gevent_net_address()
        let result = gevent_net_address_of(fileDescriptor, false, &raw)
        if result < 0 { throw SocketError(errno: -result, operation: operation) }
        guard let family = SocketAddress.Family(raw: raw.family) else {
            throw SocketError(errno: EAFNOSUPPORT, operation: operation)
        }
        // An empty datagram would look like the end of a stream.
        var (type, length) = (CInt(0), socklen_t(MemoryLayout<CInt>.size))
        if Glibc.getsockopt(fileDescriptor, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_STREAM.rawValue {
            throw SocketError(errno: EPROTOTYPE, operation: operation)
        }
        let flags = fcntl(fileDescriptor, F_GETFL)
        if flags < 0 || (flags & O_NONBLOCK == 0 && fcntl(fileDescriptor, F_SETFL, flags | O_NONBLOCK) < 0) {
            throw SocketError(errno: Glibc.errno, operation: operation)
        }
        descriptor = try WatchedDescriptor(fileDescriptor)
        self.family = family
    }

    /// Adopts a new non-blocking descriptor from the kernel, and closes it if no hub can be created.
    init(owning fileDescriptor: CInt, family: SocketAddress.Family, peer: SocketAddress? = nil) throws {
        descriptor = try WatchedDescriptor(owning: fileDescriptor)
        self.family = family
        self.peer = peer
    }

    /// Creates two connected Unix sockets. Never parks. Throws the errors of ``init(family:)``.
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

    // MARK: Properties

    /// The descriptor's number, for C libraries; -1 once the socket is closed or detached.
    ///
    /// gevent: `socket.fileno()`.
    public var fileDescriptor: CInt { descriptor.fileDescriptor }

    /// Whether the socket was closed or detached on this side.
    public var isClosed: Bool { descriptor.fileDescriptor < 0 }

    /// The address the socket is bound to. Throws ``SocketError`` if the socket is closed.
    ///
    /// gevent: `socket.getsockname()`.
    public var localAddress: SocketAddress {
        get throws { try address(ofPeer: false, "localAddress") }
    }

    /// The address the socket is connected to. Throws ``SocketError`` if it is not connected (`ENOTCONN`).
    ///
    /// gevent: `socket.getpeername()`.
    public var peerAddress: SocketAddress {
        get throws { try address(ofPeer: true, "peerAddress") }
    }

    private func address(ofPeer isPeer: Bool, _ operation: String) throws -> SocketAddress {
        var raw = gevent_net_address()
        let result = gevent_net_address_of(try openDescriptor(operation), isPeer, &raw)
        if result < 0 { throw failure(errno: -result, operation) }
        return SocketAddress(raw)
    }

    // MARK: Closing

    /// Shuts down one direction of the connection, or both, and wakes the waiters of that direction. The socket stays
    /// open. Never parks.
    ///
    /// Throws ``SocketError`` with errno `ENOTCONN` if the socket is not connected, or no longer connected.
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
        // TCP makes the descriptor ready; a Unix socket does not do so for greenlets that wait to write.
        try descriptor.wake(readiness)
    }

    /// Closes the socket. Greenlets that wait on it receive ``SocketError`` with code `closed`. Can be called
    /// repeatedly; never parks. Traps on a foreign thread, since it is called in `defer` and can't throw.
    ///
    /// gevent: `socket.close()`.
    public func close() {
        do {
            try descriptor.close()
        } catch let error as HubError where error.code == .destroyed {
            // The hub is gone, so there are no waiters. The descriptor is closed when the object is deallocated.
        } catch {  // control: close() does not park, so this is the error for a foreign thread, not a kill
            fatalError("Socket.close(): \(error)")
        }
    }

    /// Releases the descriptor without closing it and returns it; it stays non-blocking. Greenlets that wait on it
    /// receive ``SocketError`` with code `closed`. Never parks.
    ///
    /// gevent: `socket.detach()`.
    public func detach() throws -> CInt {
        _ = try openDescriptor("detach")
        return try descriptor.detach()
    }

    /// Returns the descriptor's number; throws if the socket is closed or the thread is the wrong one.
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
    /// Adopts a descriptor, and closes it if no hub can be created.
    fileprivate convenience init(owning fileDescriptor: CInt) throws {
        do {
            try self.init(fileDescriptor)
        } catch {
            _ = Glibc.close(fileDescriptor)
            throw error
        }
    }
}
