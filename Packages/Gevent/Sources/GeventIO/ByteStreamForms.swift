// The forms of ByteStream's calls that take no span. Each passes a span to the requirement. They are inlinable, so the
// compiler specialises them for the stream at hand.

// MARK: Reading

extension ByteStream {
    /// Reads available bytes and appends them to `buffer`, with the stream's default timeout.
    @available(*, noasync)
    @inlinable
    public func read(into buffer: inout OutputRawSpan) throws -> Int { try read(into: &buffer, timeout: nil) }

    /// Reads available bytes and appends them to `buffer`; parks if there are none. Returns the number of bytes, or 0
    /// at the end of the stream.
    ///
    /// ```swift
    /// try bytes.append(addingCapacity: 4096) { _ = try stream.read(into: &$0) }
    /// ```
    @available(*, noasync)
    @inlinable
    public func read(into buffer: inout OutputSpan<UInt8>, timeout: Duration? = nil) throws -> Int {
        try buffer.withUnsafeMutableBufferPointer { bytes, filled in
            var span = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(bytes), initializedCount: filled)
            let count = try read(into: &span, timeout: timeout)
            filled += count
            return count
        }
    }

    /// Reads available bytes into the beginning of `buffer`, overwriting it; parks if there are none. Returns the
    /// number of bytes, or 0 at the end of the stream.
    ///
    /// `buffer` must not be empty, and its memory must not move while the greenlet is parked.
    @available(*, noasync)
    @inlinable
    public func read(into buffer: inout MutableRawSpan, timeout: Duration? = nil) throws -> Int {
        try buffer.withUnsafeMutableBytes { try read(into: $0, timeout: timeout) }
    }

    /// Reads available bytes into the beginning of `buffer`; otherwise like the form for a `MutableRawSpan`.
    ///
    /// gevent: `socket.recv_into(buffer)`.
    @available(*, noasync)
    @inlinable
    public func read(into buffer: UnsafeMutableRawBufferPointer, timeout: Duration? = nil) throws -> Int {
        var span = OutputRawSpan(buffer: buffer, initializedCount: 0)
        return try read(into: &span, timeout: timeout)
    }
}

// MARK: Writing

extension ByteStream {
    /// Writes as much of `bytes` as there is room for, with the stream's default timeout.
    @available(*, noasync)
    @inlinable
    public func write(_ bytes: RawSpan) throws -> Int { try write(bytes, timeout: nil) }

    /// Writes as much of `bytes` as there is room for and returns the number of bytes; parks if there is no room at
    /// all.
    @available(*, noasync)
    @inlinable
    public func write(_ bytes: UnsafeRawBufferPointer, timeout: Duration? = nil) throws -> Int {
        try write(RawSpan(_unsafeBytes: bytes), timeout: timeout)
    }

    /// Writes as much of `bytes` as there is room for and returns the number of bytes; parks if there is no room at
    /// all.
    ///
    /// Copies the bytes only if they are not contiguous in memory, as those of an `Array` are.
    ///
    /// gevent: `socket.send(data)`.
    @available(*, noasync)
    @inlinable
    public func write(_ bytes: some Sequence<UInt8>, timeout: Duration? = nil) throws -> Int {
        try withBytes(of: bytes) { try write($0, timeout: timeout) }
    }

    /// Writes as much of `text`, as UTF-8, as there is room for and returns the number of bytes; parks if there is no
    /// room at all. To write all of it, call `writeAll`.
    @available(*, noasync)
    @inlinable
    public func write(_ text: some StringProtocol, timeout: Duration? = nil) throws -> Int {
        try withBytes(of: text.utf8) { try write($0, timeout: timeout) }
    }

    /// Writes all of `bytes`, with the stream's default timeout.
    @available(*, noasync)
    @inlinable
    public func writeAll(_ bytes: RawSpan) throws { try writeAll(bytes, timeout: nil) }

    /// Writes all of `bytes`; the timeout covers the whole call.
    @available(*, noasync)
    @inlinable
    public func writeAll(_ bytes: UnsafeRawBufferPointer, timeout: Duration? = nil) throws {
        try writeAll(RawSpan(_unsafeBytes: bytes), timeout: timeout)
    }

    /// Writes all of `bytes`; the timeout covers the whole call.
    ///
    /// Copies the bytes only if they are not contiguous in memory, as those of an `Array` are.
    ///
    /// gevent: `socket.sendall(data)`.
    @available(*, noasync)
    @inlinable
    public func writeAll(_ bytes: some Sequence<UInt8>, timeout: Duration? = nil) throws {
        try withBytes(of: bytes) { try writeAll($0, timeout: timeout) }
    }

    /// Writes all of `text` as UTF-8; the timeout covers the whole call. Copies the text only if it is not a native
    /// string.
    @available(*, noasync)
    @inlinable
    public func writeAll(_ text: some StringProtocol, timeout: Duration? = nil) throws {
        try withBytes(of: text.utf8) { try writeAll($0, timeout: timeout) }
    }
}

// MARK: Gathered writes

extension ByteStream {
    /// Writes all of `first` and then all of `second`; the timeout covers the whole call. A socket with enough room
    /// does so in one system call.
    ///
    /// ```swift
    /// try stream.writeAll("HTTP/1.1 200 OK\r\nContent-Length: \(body.count)\r\n\r\n".utf8, body)
    /// ```
    ///
    /// gevent: `socket.sendmsg(buffers)`, but writes all of the bytes.
    @available(*, noasync)
    @inlinable
    public func writeAll(
        _ first: some Sequence<UInt8>, _ second: some Sequence<UInt8>, timeout: Duration? = nil
    ) throws {
        try withBytes(of: first) { first in
            try withBytes(of: second) { try writeAll(parts: [first, $0], timeout) }
        }
    }

    /// Writes all of `first`, `second` and `third`, as one message.
    @available(*, noasync)
    @inlinable
    public func writeAll(
        _ first: some Sequence<UInt8>, _ second: some Sequence<UInt8>, _ third: some Sequence<UInt8>,
        timeout: Duration? = nil
    ) throws {
        try withBytes(of: first) { first in
            try withBytes(of: second) { second in
                try withBytes(of: third) { try writeAll(parts: [first, second, $0], timeout) }
            }
        }
    }

    /// Writes all of `first` and then all of `second`, as one message.
    @available(*, noasync)
    @inlinable
    public func writeAll(_ first: RawSpan, _ second: RawSpan, timeout: Duration? = nil) throws {
        try first.withUnsafeBytes { first in
            try second.withUnsafeBytes { try writeAll(parts: [first, $0], timeout) }
        }
    }

    /// Writes all of `first`, `second` and `third`, as one message.
    @available(*, noasync)
    @inlinable
    public func writeAll(
        _ first: RawSpan, _ second: RawSpan, _ third: RawSpan, timeout: Duration? = nil
    ) throws {
        try first.withUnsafeBytes { first in
            try second.withUnsafeBytes { second in
                try third.withUnsafeBytes { try writeAll(parts: [first, second, $0], timeout) }
            }
        }
    }

    /// Writes the parts from an array on the stack.
    @available(*, noasync)
    @inlinable
    func writeAll<let count: Int>(
        parts: InlineArray<count, UnsafeRawBufferPointer>, _ timeout: Duration?
    ) throws {
        try parts.span.withUnsafeBufferPointer { try writeAll(gathering: $0, timeout: timeout) }
    }
}

/// Calls `body` with the bytes in contiguous memory; copies them only if they are not contiguous.
@inlinable
func withBytes<Result>(
    of bytes: some Sequence<UInt8>, _ body: (UnsafeRawBufferPointer) throws -> Result
) throws -> Result {
    if let result = try bytes.withContiguousStorageIfAvailable({ try body(UnsafeRawBufferPointer($0)) }) {
        return result
    }
    return try Array(bytes).withUnsafeBytes(body)
}
