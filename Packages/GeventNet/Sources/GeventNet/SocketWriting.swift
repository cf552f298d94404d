internal import CGeventSystem
internal import Gevent
internal import Glibc

// Writing. A peer that is gone is EPIPE or ECONNRESET, never a signal.

extension Socket {
    /// Writes some of `bytes`, parking if there is no room at all; returns how many, at least 1 unless `bytes` is
    /// empty.
    ///
    /// One system call, no copy and no allocation. "Written" means handed to the kernel, not received by the peer.
    /// Throws as described at ``Socket``.
    ///
    /// gevent: `socket.send(data)`.
    @available(*, noasync)
    public func write(_ bytes: UnsafeRawBufferPointer, timeout: Duration? = nil) throws -> Int {
        var patience = try patience(timeout)
        if bytes.isEmpty { return 0 }
        while true {
            let count = send(bytes)
            if count >= 0 { return count }
            try recover(from: CInt(-count), .write, "write", &patience)
        }
    }

    /// Writes some of `bytes`; otherwise as ``write(_:timeout:)-(UnsafeRawBufferPointer,_)``.
    ///
    /// Copies them only if they do not stand in memory one after the other, as those of an `Array` do.
    @available(*, noasync)
    @inlinable
    public func write(_ bytes: some Sequence<UInt8>, timeout: Duration? = nil) throws -> Int {
        try withBytes(of: bytes) { try write($0, timeout: timeout) }
    }

    /// Writes some of `text` as UTF-8 and returns how many bytes; otherwise as
    /// ``write(_:timeout:)-(UnsafeRawBufferPointer,_)``. To write all of it, call `writeAll`.
    @available(*, noasync)
    @inlinable
    public func write(_ text: some StringProtocol, timeout: Duration? = nil) throws -> Int {
        try withBytes(of: text.utf8) { try write($0, timeout: timeout) }
    }

    /// Writes some of `span`; otherwise as ``write(_:timeout:)-(UnsafeRawBufferPointer,_)``.
    @available(*, noasync)
    public func write(_ span: RawSpan, timeout: Duration? = nil) throws -> Int {
        try span.withUnsafeBytes { try write($0, timeout: timeout) }
    }

    /// Writes all of `bytes`, parking as often as it takes; the timeout is for the whole.
    ///
    /// Nothing to write is no system call and cannot time out. A timeout of zero writes what there is room for and
    /// throws if that is not everything. How much was written before an error is not told: the connection is of no use
    /// then. Throws as described at ``Socket``.
    ///
    /// gevent: `socket.sendall(data)`.
    @available(*, noasync)
    public func writeAll(_ bytes: UnsafeRawBufferPointer, timeout: Duration? = nil) throws {
        var patience = try patience(timeout)
        var rest = bytes
        while !rest.isEmpty {
            let count = send(rest)
            if count == rest.count { return }
            if count >= 0 {
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
                // It took less than was offered, so its buffer is full and another attempt would fail.
                try wait(for: .write, "write", &patience, coversWholeCall: true)
            } else {
                try recover(from: CInt(-count), .write, "write", &patience, coversWholeCall: true)
            }
        }
    }

    /// Writes all of `bytes`; otherwise as ``writeAll(_:timeout:)-(UnsafeRawBufferPointer,_)``.
    ///
    /// Copies them only if they do not stand in memory one after the other, as those of an `Array` do.
    @available(*, noasync)
    @inlinable
    public func writeAll(_ bytes: some Sequence<UInt8>, timeout: Duration? = nil) throws {
        try withBytes(of: bytes) { try writeAll($0, timeout: timeout) }
    }

    /// Writes all of `span`; otherwise as ``writeAll(_:timeout:)-(UnsafeRawBufferPointer,_)``.
    @available(*, noasync)
    public func writeAll(_ span: RawSpan, timeout: Duration? = nil) throws {
        try span.withUnsafeBytes { try writeAll($0, timeout: timeout) }
    }

    /// Writes all of `text` as UTF-8, without a copy if it is a native string; otherwise as
    /// ``writeAll(_:timeout:)-(UnsafeRawBufferPointer,_)``.
    @available(*, noasync)
    @inlinable
    public func writeAll(_ text: some StringProtocol, timeout: Duration? = nil) throws {
        try withBytes(of: text.utf8) { try writeAll($0, timeout: timeout) }
    }

    /// One attempt: the number of bytes, or a negated error number.
    @inline(__always)
    private func send(_ bytes: UnsafeRawBufferPointer) -> Int {
        let count = gevent_net_send(descriptor.fileDescriptor, bytes.baseAddress, bytes.count)
        if count > 0 { isUnanswered = false }
        return count
    }
}

@inlinable
func withBytes<Result>(
    of bytes: some Sequence<UInt8>, _ body: (UnsafeRawBufferPointer) throws -> Result
) throws -> Result {
    if let result = try bytes.withContiguousStorageIfAvailable({ try body(UnsafeRawBufferPointer($0)) }) {
        return result
    }
    return try Array(bytes).withUnsafeBytes(body)
}
