// What these calls are named in gevent: whoever types it is told the name here.

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
}
