internal import CGeventSystem
internal import Gevent
@_spi(GeventInternals) internal import GeventIO
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
    public func write(_ bytes: RawSpan, timeout: Duration?) throws -> Int {
        var deadline = try begin(timeout)
        if bytes.isEmpty { return 0 }
        return try bytes.withUnsafeBytes { bytes in
            var operation = Send(bytes)
            return try send(&operation, &deadline, waitingFirst: false)
        }
    }

    /// Writes all of `bytes`, parking as often as it takes; the timeout is for the whole.
    ///
    /// Nothing to write is no system call and cannot time out. A timeout of zero writes what there is room for and
    /// throws if that is not everything. An error does not say how much was written before: the connection is of no use
    /// then. Throws as described at ``Socket``.
    ///
    /// gevent: `socket.sendall(data)`.
    @available(*, noasync)
    public func writeAll(_ bytes: RawSpan, timeout: Duration?) throws {
        var deadline = try begin(timeout, coversWholeCall: true)
        try bytes.withUnsafeBytes { bytes in
            var rest = bytes
            while !rest.isEmpty {
                var operation = Send(rest)
                // An earlier attempt took less than it was offered, so the kernel's buffer is full and another one
                // would fail.
                let count = try send(&operation, &deadline, waitingFirst: rest.count < bytes.count)
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
            }
        }
    }

    /// Writes all bytes of `parts` in their order, with one system call for up to 64 parts if there is room; otherwise
    /// as ``writeAll(_:timeout:)``.
    ///
    /// gevent: `socket.sendmsg(buffers)`, but for all of the bytes.
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
        if count > 0 { isUnanswered = false }
        return count
    }
}
