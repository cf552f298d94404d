/// A connection that carries an ordered sequence of bytes in one or both directions: a socket, or a protocol on top of
/// one.
///
/// Code that works with any kind of stream takes `some ByteStream`, which the compiler specialises at no cost, or
/// `any ByteStream`, which costs one indirect call for each operation:
///
/// ```swift
/// func greet(_ stream: any ByteStream) throws {
///     try stream.writeAll("hello\n")
///     try stream.shutdown(.write)
/// }
/// ```
///
/// The protocol has six requirements. Two of them, `writeAll(_:timeout:)` and `writeAll(gathering:timeout:)`, have
/// default implementations. Extensions add the other forms of these calls: for arrays, strings and pointers, and
/// without a timeout.
///
/// **Rules.** Calls look blocking but park only the calling greenlet. A stream belongs to the hub of the thread that
/// created it. On another thread, calls that can throw do so, and `close()` traps. At most one greenlet may read and
/// one may write at a time. When a kill or an outer timeout interrupts a call, the stream remains usable, but part of a
/// long write may already be written.
///
/// **Timeouts.** Each call that can park takes a timeout. Nil means the stream's default timeout: `Socket.timeout`, and
/// none for other streams. If the timeout is zero or less, the call throws instead of parking. When the timeout
/// expires, the call throws the stream's own error.
///
/// gevent: the socket and file objects of `gevent.socket` and `gevent.fileobject`.
public protocol ByteStream: AnyObject {
    /// Reads available bytes and appends them to `buffer`; returns the number of bytes, or 0 at the end of the stream.
    ///
    /// Parks if no bytes are available. `buffer` must have room for at least one byte, and its memory must not move
    /// while the greenlet is parked.
    @available(*, noasync)
    func read(into buffer: inout OutputRawSpan, timeout: Duration?) throws -> Int

    /// Writes as much of `bytes` as there is room for; returns the number of bytes.
    ///
    /// Parks if there is no room at all. Returns at least 1, unless `bytes` is empty. "Written" means accepted by the
    /// stream, not received by the peer.
    @available(*, noasync)
    func write(_ bytes: RawSpan, timeout: Duration?) throws -> Int

    /// Writes all of `bytes`. Parks as often as necessary; a timeout that is not nil covers the whole call.
    ///
    /// After an error, the number of bytes written is unknown. The default implementation calls `write(_:timeout:)`
    /// until everything is written.
    @available(*, noasync)
    func writeAll(_ bytes: RawSpan, timeout: Duration?) throws

    /// Writes the bytes of all `parts` in order, as one write. Parks as often as necessary; a timeout that is not nil
    /// covers the whole call.
    ///
    /// The pointers must stay valid during the call. The default implementation writes one part after another. A stream
    /// that can pass several parts to the kernel at once, as a socket can, does so. Callers without pointers use
    /// `writeAll(_:_:timeout:)`.
    @available(*, noasync)
    func writeAll(gathering parts: UnsafeBufferPointer<UnsafeRawBufferPointer>, timeout: Duration?) throws

    /// Shuts down one direction of the stream, or both, and wakes the calls parked in it.
    ///
    /// A stream that sends a message for this, such as TLS, may park, without a limit.
    @available(*, noasync)
    func shutdown(_ direction: StreamDirection) throws

    /// Closes the stream. Calls parked in it throw. Can be called repeatedly; never parks.
    func close()
}

/// The direction of a stream that ``ByteStream/shutdown(_:)`` shuts down.
public enum StreamDirection: Sendable, Hashable {
    /// The receiving direction: further reads return the end of the stream.
    case read
    /// The sending direction: the peer reads the end of the stream.
    case write
    /// Both directions.
    case both
}

// MARK: Default implementations

extension ByteStream {
    @available(*, noasync)
    public func writeAll(_ bytes: RawSpan, timeout: Duration?) throws {
        var deadline = CallDeadline(timeout, coversWholeCall: true)
        var rest = bytes
        while !rest.isEmpty {
            let count = try write(rest, timeout: deadline.nextPartTimeout())
            rest = rest.extracting(droppingFirst: count)
        }
    }

    @available(*, noasync)
    public func writeAll(gathering parts: UnsafeBufferPointer<UnsafeRawBufferPointer>, timeout: Duration?) throws {
        var deadline = CallDeadline(timeout, coversWholeCall: true)
        for part in parts where !part.isEmpty { try writeAll(part, timeout: deadline.nextPartTimeout()) }
    }
}

extension CallDeadline {
    /// Returns the timeout of the next of several calls that make up one: the whole limit for the first one. An expired
    /// limit becomes 1 ns rather than zero. With zero the stream would throw its error for a call that must not park,
    /// instead of its timeout.
    fileprivate mutating func nextPartTimeout() -> Duration? {
        if forbidsParking { return limit }
        return nextTimeout().map { max($0, .nanoseconds(1)) }
    }
}
