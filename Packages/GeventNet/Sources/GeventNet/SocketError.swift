internal import CGeventSystem
internal import Glibc

/// What went wrong with a socket, as a value that other code can act on.
///
/// ```swift
/// do {
///     try serve(socket)
/// } catch let error as SocketError where error.code == .timedOut {
///     print("too slow")
/// } catch let error as SocketError where error.errno == EHOSTUNREACH {
///     print(error)  // connect to 10.9.9.9:80: No route to host (EHOSTUNREACH 113)
/// }
/// ```
///
/// gevent: `OSError` and its subclasses, `socket.timeout`.
public struct SocketError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of failure. New kinds may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// The timeout of the call or of the socket is over, or the kernel gave a connection up (`ETIMEDOUT`).
        case timedOut
        /// It could not be done without waiting, and a timeout of zero said not to wait (`EAGAIN`).
        case wouldBlock
        /// The socket is closed on this side: before the call, or by another greenlet while it waited (`EBADF`).
        case closed
        /// The peer closed the connection in the middle of what was to be read. No error number.
        case endOfStream
        /// The connection broke: `ECONNRESET`, `EPIPE`, `ECONNABORTED`.
        case connectionLost
        /// Nobody listens there (`ECONNREFUSED`).
        case connectionRefused
        /// Somebody else is bound to the address (`EADDRINUSE`).
        case addressInUse
        /// Not an address, or not one of this kind of socket. No error number.
        case badAddress
        /// No descriptors or no memory left: `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`.
        case outOfResources
        /// Any other failed system call; ``SocketError/errno`` says which way.
        case system
    }

    /// The kind of failure.
    public let code: Code

    /// The system's error number, or 0 if no system call failed.
    public let errno: CInt

    /// What was being done, such as "connect" or "read".
    public let operation: String

    /// The address that the operation was given, such as that of a connect or a bind.
    public let address: SocketAddress?

    /// What the socket was bound to, if that is known.
    public let localAddress: SocketAddress?

    /// The other end of the connection, if that is known. Unnamed Unix sockets have none.
    public let peerAddress: SocketAddress?

    /// What went wrong, for people; without the operation and the address.
    public let message: String

    /// An error with these parts.
    ///
    /// - Parameters:
    ///   - code: the kind of failure.
    ///   - errno: the system's error number, 0 if none.
    ///   - operation: what was being done.
    ///   - address: the address that the operation was given.
    ///   - localAddress: what the socket was bound to.
    ///   - peerAddress: the other end of the connection.
    ///   - message: what went wrong; if nil, made from the code and the error number.
    public init(
        _ code: Code, errno: CInt = 0, operation: String, address: SocketAddress? = nil,
        localAddress: SocketAddress? = nil, peerAddress: SocketAddress? = nil, message: String? = nil
    ) {
        self.code = code
        self.errno = errno
        self.operation = operation
        self.address = address
        self.localAddress = localAddress
        self.peerAddress = peerAddress
        self.message = message ?? Self.text(for: code, errno: errno)
    }

    /// The error of a failed system call, with the code that goes with its number.
    public init(errno: CInt, operation: String, address: SocketAddress? = nil) {
        self.init(Self.code(of: errno), errno: errno, operation: operation, address: address)
    }

    /// The whole story on one line, such as "connect to 127.0.0.1:1: Connection refused (ECONNREFUSED 111)" or "read
    /// from 192.0.2.7:4711: Connection reset by peer (ECONNRESET 104)". It names one address: the one that the
    /// operation was given, or else the peer's, or else the socket's own.
    public var description: String { "\(operation)\(place): \(message)" }

    private var place: String {
        if let address { return operation == "connect" ? " to \(address)" : " \(address)" }
        if let peerAddress {
            switch operation {
            case "read", "wait to read": return " from \(peerAddress)"
            case "write", "wait to write": return " to \(peerAddress)"
            default: return " with \(peerAddress)"
            }
        }
        return localAddress.map { " on \($0)" } ?? ""
    }

    static func code(of errno: CInt) -> Code {
        switch errno {
        case ETIMEDOUT: .timedOut
        case EAGAIN: .wouldBlock
        case EBADF: .closed
        case ECONNRESET, EPIPE, ECONNABORTED: .connectionLost
        case ECONNREFUSED: .connectionRefused
        case EADDRINUSE: .addressInUse
        case EMFILE, ENFILE, ENOBUFS, ENOMEM: .outOfResources
        default: .system
        }
    }

    private static func text(for code: Code, errno: CInt) -> String {
        if code == .wouldBlock { return "would block" }
        if code == .closed { return "the socket is closed" }
        if errno == 0 { return code == .endOfStream ? "the connection was closed by the peer" : code.rawValue }
        let text = gevent_errno_text(errno).map { String(cString: $0) } ?? "Unknown error"
        let name = gevent_errno_name(errno).map { String(cString: $0) } ?? "errno"
        return "\(text) (\(name) \(errno))"
    }
}

extension SocketError {
    static func badAddress(_ text: String, _ reason: String) -> SocketError {
        SocketError(.badAddress, operation: "address \"\(text)\"", message: reason)
    }
}

extension Socket {
    /// An error of this socket, which names both of its ends as far as they are known.
    ///
    /// The kernel is asked only now, so that a connection without errors costs nothing, and never for `wouldBlock`,
    /// which a program may meet all the time. It has forgotten the peer of a connection that was reset; ``peer`` has
    /// not.
    ///
    /// Never inlined and boxed, like the calls below: the frames of calls that wait are part of what an idle connection
    /// costs, and an error by value takes hundreds of bytes in each.
    @inline(never)
    func failure(
        _ code: SocketError.Code, errno: CInt = 0, _ operation: String, address: SocketAddress? = nil,
        message: String? = nil
    ) -> any Error {
        if code == .connectionLost { isLost = true }
        let mayAsk = code != .wouldBlock && !isClosed
        return SocketError(
            code, errno: errno, operation: operation, address: address,
            localAddress: mayAsk ? end(gevent_net_local_address) : nil,
            peerAddress: peer.flatMap { $0.isUnnamed ? nil : $0 } ?? (mayAsk ? end(gevent_net_peer_address) : nil),
            message: message)
    }

    /// The error of a failed system call.
    @inline(never)
    func failure(errno: CInt, _ operation: String, address: SocketAddress? = nil) -> any Error {
        failure(SocketError.code(of: errno), errno: errno, operation, address: address)
    }

    @inline(never)
    func closedMeanwhile(_ operation: String) -> any Error {
        failure(.closed, errno: EBADF, operation, message: "closed in another greenlet")
    }

    private func end(_ ask: (CInt, UnsafeMutablePointer<gevent_net_address>?) -> CInt) -> SocketAddress? {
        var raw = gevent_net_address()
        guard ask(fileDescriptor, &raw) == 0 else { return nil }
        let address = SocketAddress(raw)
        return address.isUnnamed ? nil : address
    }
}
