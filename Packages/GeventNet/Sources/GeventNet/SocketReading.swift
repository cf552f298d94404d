internal import CGeventSystem
internal import Gevent
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

extension Socket {
    /// Reads what is there and appends it to `buffer`, parking if nothing is there; returns how many bytes, or 0 at the
    /// end of the stream.
    ///
    /// One system call, no copy and no allocation. With data ready it does not park, except that after a read that left
    /// room in its buffer the next one looks for new data through the hub. `buffer` must have room and must stay where
    /// it is while the greenlet is parked. Throws as described at ``Socket``.
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
        precondition(!buffer.isEmpty, "a read into an empty buffer could not be told from the end of the stream")
        var deadline = try begin(timeout)
        var operation = Receive(buffer)
        return try receive(&operation, &deadline)
    }

    /// Reads what is there, at most `limit` bytes, parking if nothing is; an empty array is the end of the stream.
    ///
    /// The array is as large as what was read: a socket that waits holds no buffer. Throws as described at ``Socket``.
    ///
    /// gevent: `socket.recv(bufsize)`.
    @available(*, noasync)
    public func read(upTo limit: Int = 65536, timeout: Duration? = nil) throws -> [UInt8] {
        precondition(limit > 0, "a read of at most \(limit) bytes could not be told from the end of the stream")
        if limit <= BufferPool.bufferSize { return try withReadBytes(upTo: limit, timeout: timeout) { Array($0) } }
        return try Array(unsafeUninitializedCapacity: limit) { buffer, count in
            count = try receive(UnsafeMutableRawBufferPointer(buffer), timeout)
        }
    }

    /// Reads what is there, at most `limit` bytes or 64 KiB, and calls `body` with it; empty at the end of the stream.
    ///
    /// The bytes stand in a buffer that is lent for as long as `body` runs, which may park. Neither a call nor a socket
    /// that waits has a buffer of its own, so this is the way to hold many quiet connections:
    ///
    /// ```swift
    /// while try socket.withReadBytes({ bytes in
    ///     try socket.writeAll(bytes)
    ///     return !bytes.isEmpty
    /// }) {}
    /// ```
    ///
    /// Throws as described at ``Socket``, and what `body` throws.
    @available(*, noasync)
    @inlinable
    public func withReadBytes<Result>(
        upTo limit: Int = 65536, timeout: Duration? = nil, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        let loan = try borrowBytes(upTo: limit, timeout)
        defer { loan.release() }
        return try body(loan.bytes)
    }

    /// What ``withReadBytes(upTo:timeout:_:)`` does before it calls its body: apart, so that the rest is compiled for
    /// the body at hand.
    @usableFromInline
    func borrowBytes(upTo limit: Int, _ timeout: Duration?) throws -> BufferLoan {
        precondition(limit > 0, "a read of at most \(limit) bytes could not be told from the end of the stream")
        var deadline = try begin(timeout)
        var operation = ReceiveOnLoan(.current, limit)
        let count = try receive(&operation, &deadline)
        return BufferLoan(operation.pool, operation.whole, count: count)
    }

    /// Fills `buffer`, parking as often as it takes; the timeout is for the whole.
    ///
    /// Throws ``SocketError`` with code `endOfStream` if the peer closes before, and otherwise as described at
    /// ``Socket``; what had come in by then stands at the beginning of `buffer`.
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

    /// Reads exactly `count` bytes; the timeout is for the whole. Otherwise as
    /// ``readExactly(into:timeout:)``.
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
        if count > 0 { isUnanswered = true }
        return count
    }
}
