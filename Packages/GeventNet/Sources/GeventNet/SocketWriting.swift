internal import CGeventSystem
internal import Gevent
@_spi(GeventInternals) internal import GeventIO
internal import Glibc

// Writing. A write to a closed connection fails with EPIPE or ECONNRESET and never raises a signal.

extension Socket {
    /// Writes as much of `bytes` as there is room for; parks if there is no room at all. Returns the number of bytes,
    /// at least 1 unless `bytes` is empty.
    ///
    /// Makes one system call, without a copy or an allocation. "Written" means handed to the kernel, not received by
    /// the peer. Throws as described at ``Socket``.
    ///
    /// gevent: `socket.send(data)`.
    @available(*, noasync)
    public func write(_ bytes: RawSpan, timeout: Duration?) throws -> Int {
        var deadline = try begin(timeout)
        if bytes.isEmpty { return 0 }
        return try bytes.withUnsafeBytes { bytes in
            var operation = Send(bytes)
            return try send(&operation, &deadline, waitingFirst: false)
        }
    }

    /// Writes all of `bytes`, parking as often as necessary; the timeout covers the whole call.
    ///
    /// An empty write makes no system call and can't time out. With a timeout of zero it writes what there is room for,
    /// and throws if that is not everything. After an error the number of bytes written is unknown, so the connection
    /// is no longer usable. Throws as described at ``Socket``.
    ///
    /// gevent: `socket.sendall(data)`.
    @available(*, noasync)
    public func writeAll(_ bytes: RawSpan, timeout: Duration?) throws {
        var deadline = try begin(timeout, coversWholeCall: true)
        try bytes.withUnsafeBytes { bytes in
            var rest = bytes
            while !rest.isEmpty {
                var operation = Send(rest)
                // A partial write shows that the kernel's buffer is full, so another attempt would fail.
                let count = try send(&operation, &deadline, waitingFirst: rest.count < bytes.count)
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
            }
        }
    }

    /// Writes all bytes of `parts` in order, with one system call for up to 64 parts if there is room; otherwise like
    /// ``writeAll(_:timeout:)``.
    ///
    /// gevent: `socket.sendmsg(buffers)`, but writes all of the bytes.
    @available(*, noasync)
    public func writeAll(gathering parts: UnsafeBufferPointer<UnsafeRawBufferPointer>, timeout: Duration?) throws {
        var deadline = try begin(timeout, coversWholeCall: true)
        var operation = SendGathered(parts)
        var isFull = false
        while !operation.isDone {
            let count = try send(&operation, &deadline, waitingFirst: isFull)
            isFull = count < operation.offered
            operation.advance(by: count)
        }
    }

    @inline(__always)
    private func send<Operation: DescriptorOperation>(
        _ operation: inout Operation, _ deadline: inout CallDeadline, waitingFirst: Bool
    ) throws -> Int {
        let count = try perform(&operation, "write", &deadline, waitingFirst: waitingFirst)
        if count > 0 { hasUnansweredInput = false }
        return count
    }
}
