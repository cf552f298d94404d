internal import CGeventSystem
internal import Gevent
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

extension Socket {
    /// Reads available bytes and appends them to `buffer`; parks if there are none. Returns the number of bytes, or 0
    /// at the end of the stream.
    ///
    /// Makes one system call, without a copy or an allocation. Does not park if data is ready, except that the read
    /// after a short read, one that left room in its buffer, waits for readiness through the hub first. `buffer` must
    /// have room, and its memory must not move while the greenlet is parked. Throws as described at ``Socket``.
    ///
    /// gevent: `socket.recv_into(buffer)`.
    @available(*, noasync)
    public func read(into buffer: inout OutputRawSpan, timeout: Duration?) throws -> Int {
        try buffer.withUnsafeMutableBytes { bytes, filled in
            let count = try receive(UnsafeMutableRawBufferPointer(rebasing: bytes[filled...]), timeout)
            filled += count
            return count
        }
    }

    private func receive(_ buffer: UnsafeMutableRawBufferPointer, _ timeout: Duration?) throws -> Int {
        precondition(!buffer.isEmpty, "a read into an empty buffer can't be distinguished from the end of the stream")
        var deadline = try begin(timeout)
        var operation = Receive(buffer)
        return try receive(&operation, &deadline)
    }

    /// Reads available bytes, at most `limit`; parks if there are none. Returns an empty array at the end of the
    /// stream.
    ///
    /// The array is as large as the data that was read: a waiting socket holds no buffer. Throws as described at
    /// ``Socket``.
    ///
    /// gevent: `socket.recv(bufsize)`.
    @available(*, noasync)
    public func read(upTo limit: Int = 65536, timeout: Duration? = nil) throws -> [UInt8] {
        precondition(limit > 0, "the limit of a read must be at least 1 byte, not \(limit)")
        if limit <= BufferPool.bufferSize { return try withReadBytes(upTo: limit, timeout: timeout) { Array($0) } }
        return try Array(unsafeUninitializedCapacity: limit) { buffer, count in
            count = try receive(UnsafeMutableRawBufferPointer(buffer), timeout)
        }
    }

    /// Reads available bytes, at most `limit` or 64 KiB, and calls `body` with them; parks if there are none. `body`
    /// gets no bytes at the end of the stream.
    ///
    /// The bytes are in a buffer that is borrowed while `body` runs; `body` may park. A waiting call or socket holds no
    /// buffer, so this call suits programs with many idle connections:
    ///
    /// ```swift
    /// while try socket.withReadBytes({ bytes in
    ///     try socket.writeAll(bytes)
    ///     return !bytes.isEmpty
    /// }) {}
    /// ```
    ///
    /// Throws as described at ``Socket``, and rethrows the error of `body`.
    @available(*, noasync)
    @inlinable
    public func withReadBytes<Result>(
        upTo limit: Int = 65536, timeout: Duration? = nil, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        let borrowed = try borrowBytes(upTo: limit, timeout)
        defer { borrowed.release() }
        return try body(borrowed.bytes)
    }

    /// Reads into a borrowed buffer for ``withReadBytes(upTo:timeout:_:)``. Separate, so that only the rest of that
    /// call is specialised for each body.
    @usableFromInline
    func borrowBytes(upTo limit: Int, _ timeout: Duration?) throws -> BorrowedBuffer {
        precondition(limit > 0, "the limit of a read must be at least 1 byte, not \(limit)")
        var deadline = try begin(timeout)
        var operation = ReceiveIntoPoolBuffer(.current, limit)
        let count = try receive(&operation, &deadline)
        return BorrowedBuffer(operation.pool, operation.buffer, count: count)
    }

    /// Fills `buffer`, parking as often as necessary; the timeout covers the whole call.
    ///
    /// Throws ``SocketError`` with code `endOfStream` if the peer closes the connection first, and otherwise as
    /// described at ``Socket``. The bytes received before the error are at the beginning of `buffer`.
    @available(*, noasync)
    public func readExactly(into buffer: UnsafeMutableRawBufferPointer, timeout: Duration? = nil) throws {
        if buffer.isEmpty { return }
        var deadline = try begin(timeout, coversWholeCall: true)
        var rest = buffer[...]
        while !rest.isEmpty {
            var operation = Receive(UnsafeMutableRawBufferPointer(rebasing: rest))
            let count = try receive(&operation, &deadline)
            if count == 0 {
                throw failure(
                    .endOfStream, "read",
                    message:
                        "the peer closed the connection after \(buffer.count - rest.count) of \(buffer.count) bytes")
            }
            rest = rest.dropFirst(count)
        }
    }

    /// Reads exactly `count` bytes; the timeout covers the whole call. Otherwise like ``readExactly(into:timeout:)``.
    @available(*, noasync)
    public func readExactly(_ count: Int, timeout: Duration? = nil) throws -> [UInt8] {
        try Array(unsafeUninitializedCapacity: count) { buffer, filled in
            try readExactly(into: UnsafeMutableRawBufferPointer(buffer), timeout: timeout)
            filled = count
        }
    }

    @inline(__always)
    private func receive<Operation: DescriptorOperation>(
        _ operation: inout Operation, _ deadline: inout CallDeadline
    ) throws -> Int {
        let count = try perform(&operation, "read", &deadline)
        if count > 0 { hasUnansweredInput = true }
        return count
    }
}
