internal import CGeventSystem
internal import Gevent
internal import Glibc

// Reading.
//
// After a read that got less than it had room for, the kernel's buffer is known to have been empty, so the next read
// waits first: the attempt would nearly always fail, and a failed attempt costs a third of what a good one does.
// Nothing is missed by that, because the loop is level-triggered. Data that came in between, and the end of the stream
// or an error behind the data that was read, make the descriptor readable, so the wait ends at the loop's next look. It
// is not done with a timeout of zero, which asks what is there now.

extension Socket {
    /// Reads what is there into `buffer`, parking if nothing is; returns how many bytes, or 0 at the end of the stream.
    ///
    /// One system call, no copy and no allocation. With data ready it does not park, except that after a read that left
    /// room in its buffer the next one looks for new data through the hub. `buffer` must not be empty and must stay
    /// where it is while the greenlet is parked. Throws as described at ``Socket``.
    ///
    /// gevent: `socket.recv_into(buffer)`.
    @available(*, noasync)
    public func read(into buffer: UnsafeMutableRawBufferPointer, timeout: Duration? = nil) throws -> Int {
        precondition(!buffer.isEmpty, "a read into an empty buffer could not be told from the end of the stream")
        var patience = try patience(timeout)
        if isDrained && !patience.isNone { try wait(for: .read, "read", &patience) }
        while true {
            let count = receive(buffer)
            if count >= 0 { return count }
            try recover(from: CInt(-count), .read, "read", &patience)
        }
    }

    /// Reads what is there into `span`; otherwise as ``read(into:timeout:)-(UnsafeMutableRawBufferPointer,_)``.
    @available(*, noasync)
    public func read(into span: inout MutableRawSpan, timeout: Duration? = nil) throws -> Int {
        try span.withUnsafeMutableBytes { try read(into: $0, timeout: timeout) }
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
            count = try read(into: UnsafeMutableRawBufferPointer(buffer), timeout: timeout)
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
        defer { loan.giveBack() }
        return try body(loan.bytes)
    }

    /// What ``withReadBytes(upTo:timeout:_:)`` does before it calls its body: apart, so that the rest is compiled for
    /// the body at hand.
    @usableFromInline
    func borrowBytes(upTo limit: Int, _ timeout: Duration?) throws -> BufferLoan {
        precondition(limit > 0, "a read of at most \(limit) bytes could not be told from the end of the stream")
        var patience = try patience(timeout)
        if isDrained && !patience.isNone { try wait(for: .read, "read", &patience) }
        let pool = BufferPool.current
        while true {
            let buffer = pool.take()
            let count = receive(UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(limit)))
            if count >= 0 { return BufferLoan(pool, buffer, count: count) }
            // Who waits has no buffer.
            pool.giveBack(buffer)
            try recover(from: CInt(-count), .read, "read", &patience)
        }
    }

    /// Fills `buffer`, parking as often as it takes; the timeout is for the whole.
    ///
    /// Throws ``SocketError`` with code `endOfStream` if the peer closes before, and otherwise as described at
    /// ``Socket``; what had come in by then stands at the beginning of `buffer`.
    @available(*, noasync)
    public func readExactly(into buffer: UnsafeMutableRawBufferPointer, timeout: Duration? = nil) throws {
        if buffer.isEmpty { return }
        var patience = try patience(timeout)
        var rest = buffer[...]
        if isDrained && !patience.isNone { try wait(for: .read, "read", &patience, coversWholeCall: true) }
        while true {
            let count = receive(UnsafeMutableRawBufferPointer(rebasing: rest))
            if count == rest.count { return }
            if count > 0 {
                rest = rest.dropFirst(count)
                if !patience.isNone { try wait(for: .read, "read", &patience, coversWholeCall: true) }
            } else if count == 0 {
                throw failure(
                    .endOfStream, "read",
                    message:
                        "the peer closed the connection after \(buffer.count - rest.count) of \(buffer.count) bytes")
            } else {
                try recover(from: CInt(-count), .read, "read", &patience, coversWholeCall: true)
            }
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

    /// One attempt: the number of bytes, or a negated error number.
    @inline(__always)
    private func receive(_ buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = gevent_net_receive(descriptor.fileDescriptor, buffer.baseAddress, buffer.count)
        // At the end of the stream there is nothing to wait for: every further read says so again.
        isDrained = count > 0 && count < buffer.count
        if count > 0 { isUnanswered = true }
        return count
    }
}
