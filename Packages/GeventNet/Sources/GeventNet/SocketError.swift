internal import CGeventSystem
internal import Glibc

/// A failed operation on a socket, as a value that programs can inspect.
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
        /// The timeout of the call or of the socket expired, or the kernel gave up the connection (`ETIMEDOUT`).
        case timedOut
        /// The operation would have to wait, and a timeout of zero forbids it (`EAGAIN`).
        case wouldBlock
        /// The socket was closed on this side, before the call or by another greenlet during it (`EBADF`).
        case closed
        /// The peer closed the connection before all of the expected bytes arrived. No error number.
        case endOfStream
        /// The connection was lost: `ECONNRESET`, `EPIPE`, `ECONNABORTED`.
        case connectionLost
        /// No socket listens on the address (`ECONNREFUSED`).
        case connectionRefused
        /// Another socket is bound to the address (`EADDRINUSE`).
        case addressInUse
        /// The address is invalid, or not of this socket's family. No error number.
        case badAddress
        /// Descriptors or memory are exhausted: `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`.
        case outOfResources
        /// Any other failed system call; see ``SocketError/errno``.
        case system
    }

    /// The kind of failure.
    public let code: Code

    /// The system's error number, or 0 if no system call failed.
    public let errno: CInt

    /// The operation that failed, such as "connect" or "read".
    public let operation: String

    /// The address passed to the operation, such as that of a connect or a bind.
    public let address: SocketAddress?

    /// The address the socket was bound to, if known.
    public let localAddress: SocketAddress?

    /// The peer's address, if known. Unnamed Unix sockets have none.
    public let peerAddress: SocketAddress?

    /// A readable description of the failure, without the operation and the address.
    public let message: String

    /// Creates an error with these parts.
    ///
    /// - Parameters:
    ///   - code: the kind of failure.
    ///   - errno: the system's error number, 0 if none.
    ///   - operation: the operation that failed.
    ///   - address: the address passed to the operation.
    ///   - localAddress: the address the socket was bound to.
    ///   - peerAddress: the peer's address.
    ///   - message: a readable description of the failure; nil derives it from the code and the error number.
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

    /// Creates the error of a failed system call, with the code that corresponds to its number.
    public init(errno: CInt, operation: String, address: SocketAddress? = nil) {
        self.init(Self.code(of: errno), errno: errno, operation: operation, address: address)
    }

    /// The operation, the address and the failure on one line, such as "connect to 127.0.0.1:1: Connection refused
    /// (ECONNREFUSED 111)" or "read from 192.0.2.7:4711: Connection reset by peer (ECONNRESET 104)". It names one
    /// address: the one passed to the operation, or else the peer's, or else the local one.
    public var description: String { "\(operation)\(location): \(message)" }

    private var location: String {
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
    /// Returns an error of this socket that names its local and its peer address, as far as they are known.
    ///
    /// Queries the kernel only here, so that a connection without errors costs nothing, and never for `wouldBlock`,
    /// which may be frequent. The kernel no longer knows the peer of a connection that was reset; ``peer`` does.
    ///
    /// This and the functions below are never inlined and return a boxed error. The frames of waiting calls are part of
    /// the cost of an idle connection, and an unboxed error takes hundreds of bytes in each.
    @inline(never)
    func failure(
        _ code: SocketError.Code, errno: CInt = 0, _ operation: String, address: SocketAddress? = nil,
        message: String? = nil
    ) -> any Error {
        if code == .connectionLost { isLost = true }
        let canQueryKernel = code != .wouldBlock && !isClosed
        return SocketError(
            code, errno: errno, operation: operation, address: address,
            localAddress: canQueryKernel ? endpoint(isPeer: false) : nil,
            peerAddress: peer.flatMap { $0.isUnnamed ? nil : $0 }
                ?? (canQueryKernel ? endpoint(isPeer: true) : nil),
            message: message)
    }

    /// Returns the error of a failed system call.
    @inline(never)
    func failure(errno: CInt, _ operation: String, address: SocketAddress? = nil) -> any Error {
        failure(SocketError.code(of: errno), errno: errno, operation, address: address)
    }

    @inline(never)
    func closedWhileWaiting(_ operation: String) -> any Error {
        failure(.closed, errno: EBADF, operation, message: "closed in another greenlet")
    }

    private func endpoint(isPeer: Bool) -> SocketAddress? {
        var raw = gevent_net_address()
        guard gevent_net_address_of(fileDescriptor, isPeer, &raw) == 0 else { return nil }
        let address = SocketAddress(raw)
        return address.isUnnamed ? nil : address
    }
}
