internal import Glibc

/// An option of a socket that the kernel stores, with the type of its value.
///
/// ```swift
/// try socket.setOption(.keepAlive, to: true)
/// try socket.setOption(.linger, to: .zero)  // close() resets the connection
/// let room = try socket.option(.receiveBufferSize)
/// ```
///
/// Create other options with ``flag(_:level:number:)`` and ``number(_:level:number:)``.
public struct SocketOption<Value: Sendable>: Sendable {
    /// The kernel's name for the option, such as "SO_KEEPALIVE", as shown in errors.
    public let name: String
    let level: CInt
    let number: CInt
    /// The size of the value in bytes: that of one or two C ints.
    var size: socklen_t = 4
    let encode: @Sendable (Value) -> (CInt, CInt)
    let decode: @Sendable ((CInt, CInt)) -> Value
}

extension SocketOption where Value == Bool {
    /// Returns an option that is on or off.
    public static func flag(_ name: String, level: CInt, number: CInt) -> SocketOption<Bool> {
        SocketOption(
            name: name, level: level, number: number, encode: { ($0 ? 1 : 0, 0) }, decode: { $0.0 != 0 })
    }

    /// Whether an address can be bound again while closed connections linger on it. On in
    /// ``Socket/listen(on:backlog:)``.
    public static var reuseAddress: SocketOption<Bool> {
        .flag("SO_REUSEADDR", level: SOL_SOCKET, number: SO_REUSEADDR)
    }

    /// Whether several sockets can listen on one address; the kernel distributes connections among them.
    public static var reusePort: SocketOption<Bool> {
        .flag("SO_REUSEPORT", level: SOL_SOCKET, number: SO_REUSEPORT)
    }

    /// Whether the kernel sends keep-alive probes to a silent peer, to detect that it no longer exists.
    public static var keepAlive: SocketOption<Bool> {
        .flag("SO_KEEPALIVE", level: SOL_SOCKET, number: SO_KEEPALIVE)
    }

    /// Whether small writes are sent at once instead of waiting for acknowledgements. On for TCP sockets created here.
    public static var noDelay: SocketOption<Bool> {
        .flag("TCP_NODELAY", level: CInt(IPPROTO_TCP), number: TCP_NODELAY)
    }

    /// Whether an IPv6 socket refuses IPv4 connections.
    public static var ipv6Only: SocketOption<Bool> {
        .flag("IPV6_V6ONLY", level: CInt(IPPROTO_IPV6), number: IPV6_V6ONLY)
    }
}

extension SocketOption where Value == Int {
    /// Returns an option whose value is an integer. Values that don't fit a C int are clamped.
    public static func number(_ name: String, level: CInt, number: CInt) -> SocketOption<Int> {
        SocketOption(
            name: name, level: level, number: number, encode: { (CInt(clamping: $0), 0) },
            decode: { Int($0.0) })
    }

    /// The size of the kernel's receive buffer in bytes. Linux doubles the value and reports the doubled one.
    public static var receiveBufferSize: SocketOption<Int> {
        .number("SO_RCVBUF", level: SOL_SOCKET, number: SO_RCVBUF)
    }

    /// The size of the kernel's send buffer in bytes. Linux doubles the value and reports the doubled one.
    public static var sendBufferSize: SocketOption<Int> {
        .number("SO_SNDBUF", level: SOL_SOCKET, number: SO_SNDBUF)
    }

    /// The number of unanswered keep-alive probes that ends a connection.
    public static var keepAliveCount: SocketOption<Int> {
        .number("TCP_KEEPCNT", level: CInt(IPPROTO_TCP), number: TCP_KEEPCNT)
    }
}

extension SocketOption where Value == Duration {
    /// The silence before the first keep-alive probe; whole seconds, rounded up.
    public static var keepAliveIdle: SocketOption<Duration> {
        .duration("TCP_KEEPIDLE", TCP_KEEPIDLE, unit: .seconds(1))
    }

    /// The interval between keep-alive probes; whole seconds, rounded up.
    public static var keepAliveInterval: SocketOption<Duration> {
        .duration("TCP_KEEPINTVL", TCP_KEEPINTVL, unit: .seconds(1))
    }

    /// The time that written bytes may stay unacknowledged before the kernel gives up the connection; milliseconds,
    /// rounded up. Zero leaves the choice to the kernel.
    public static var userTimeout: SocketOption<Duration> {
        .duration("TCP_USER_TIMEOUT", TCP_USER_TIMEOUT, unit: .milliseconds(1))
    }

    private static func duration(_ name: String, _ number: CInt, unit: Duration) -> SocketOption<Duration> {
        SocketOption(
            name: name, level: CInt(IPPROTO_TCP), number: number,
            encode: { (wholeUnits($0, unit), 0) }, decode: { unit * Int($0.0) })
    }
}

extension SocketOption where Value == Duration? {
    /// The treatment of unsent bytes by `close()`. Nil, the default: they are sent in the background. Zero: they are
    /// dropped and the connection is reset. More: the kernel keeps trying for that long, in whole seconds, rounded up.
    public static var linger: SocketOption<Duration?> {
        SocketOption(
            name: "SO_LINGER", level: SOL_SOCKET, number: SO_LINGER, size: 8,
            // struct linger: whether it is on, and the number of seconds.
            encode: { $0.map { (1, wholeUnits($0, .seconds(1))) } ?? (0, 0) },
            decode: { $0.0 == 0 ? nil : .seconds(Int($0.1)) })
    }
}

/// Returns the duration in whole units, rounded up and clamped to the range of a C int.
private func wholeUnits(_ duration: Duration, _ unit: Duration) -> CInt {
    CInt(clamping: Int((duration / unit).rounded(.up).clamped(to: 0...Double(CInt.max))))
}

extension Double {
    fileprivate func clamped(to range: ClosedRange<Double>) -> Double {
        Swift.min(Swift.max(self, range.lowerBound), range.upperBound)
    }
}

extension Socket {
    /// Returns the value of an option. Throws ``SocketError``; never parks.
    ///
    /// gevent: `socket.getsockopt(level, name)`.
    public func option<Value>(_ option: SocketOption<Value>) throws -> Value {
        var values: (CInt, CInt) = (0, 0)
        var length = option.size
        if Glibc.getsockopt(try openDescriptor(option.name), option.level, option.number, &values, &length) < 0 {
            throw failure(errno: Glibc.errno, "get \(option.name)")
        }
        return option.decode(values)
    }

    /// Sets an option. Throws ``SocketError``; never parks.
    ///
    /// gevent: `socket.setsockopt(level, name, value)`.
    public func setOption<Value>(_ option: SocketOption<Value>, to value: Value) throws {
        var values = option.encode(value)
        if Glibc.setsockopt(try openDescriptor(option.name), option.level, option.number, &values, option.size) < 0 {
            throw failure(errno: Glibc.errno, "set \(option.name)")
        }
    }
}
