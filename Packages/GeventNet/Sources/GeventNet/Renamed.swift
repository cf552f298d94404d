// Names from gevent, names of a sibling type and names that users might guess. The compiler's error suggests the right
// one.

extension Socket {
    @available(*, unavailable, renamed: "read(upTo:)")
    public func recv(_ bufferSize: Int) throws -> [UInt8] { fatalError("unavailable") }

    // swift-format-ignore: AlwaysUseLowerCamelCase
    @available(*, unavailable, renamed: "read(into:)")
    public func recv_into(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int { fatalError("unavailable") }

    @available(*, unavailable, renamed: "write(_:)")
    public func send(_ bytes: [UInt8]) throws -> Int { fatalError("unavailable") }

    @available(*, unavailable, renamed: "writeAll(_:)")
    public func sendall(_ bytes: [UInt8]) throws { fatalError("unavailable") }

    @available(*, unavailable, renamed: "writeAll(_:)")
    public func sendAll(_ bytes: [UInt8]) throws { fatalError("unavailable") }

    @available(*, unavailable, renamed: "timeout")
    public func settimeout(_ timeout: Duration?) { fatalError("unavailable") }

    @available(*, unavailable, renamed: "setOption(_:to:)")
    public func setsockopt(_ level: CInt, _ name: CInt, _ value: CInt) throws { fatalError("unavailable") }

    @available(*, unavailable, renamed: "fileDescriptor")
    public func fileno() -> CInt { fatalError("unavailable") }

    @available(
        *, unavailable,
        message:
            "write connect(to: SocketAddress(host: …, port: …)); the host is a numeric address, since names are not resolved yet"
    )
    public static func connect(host: String, port: Int, timeout: Duration? = nil) throws -> Socket {
        fatalError("unavailable")
    }

    @available(
        *, unavailable,
        message:
            "write connect(to: SocketAddress(host: …, port: …)); the host is a numeric address, since names are not resolved yet"
    )
    public func connect(host: String, port: Int, timeout: Duration? = nil) throws { fatalError("unavailable") }
}

extension StreamServer {
    @available(*, unavailable, renamed: "address")
    public var localAddress: SocketAddress { fatalError("unavailable") }
}

extension StatusServer {
    @available(*, unavailable, renamed: "address")
    public var localAddress: SocketAddress { fatalError("unavailable") }
}
