internal import GeventCore

/// A connection that carries bytes in order, in both directions or in one: a socket, and what is built on one.
///
/// Code for any kind of connection takes `some ByteStream`, which the compiler specialises for each kind and which
/// costs nothing, or `any ByteStream`, which costs one indirect call for each operation:
///
/// ```swift
/// func greet(_ stream: any ByteStream) throws {
///     try stream.writeAll("hello\n")
///     try stream.shutdown(.write)
/// }
/// ```
///
/// A type conforms with the six requirements, of which `writeAll(_:timeout:)` and `writeAll(gathering:timeout:)` have
/// a default. All other forms of these calls, for arrays, strings and pointers, and without a timeout, come with the
/// protocol.
///
/// **Rules.** Calls look blocking and park only the calling greenlet. A stream belongs to the hub of the thread on
/// which it was made; calls on another thread throw. At most one greenlet reads and one writes at a time. A call that
/// is interrupted by a kill or a timeout from outside leaves the stream as it was, except that a part of a longer write
/// may have been done.
///
/// **Timeouts.** Each call that can park takes one. Nil means what the stream does by itself: a `Socket` has
/// a timeout of its own, others wait for as long as it takes. Zero or less never parks and throws if the call would
/// have to. What is thrown when the time is up is the stream's own error.
///
/// gevent: the socket and file objects of `gevent.socket` and `gevent.fileobject`.
public protocol ByteStream: AnyObject {
    /// Reads what is there and appends it to `buffer`; returns the number of bytes, or 0 at the end of the stream.
    ///
    /// Parks if nothing is there. `buffer` must have room for at least one byte. The memory of `buffer` must stay in
    /// place while the greenlet is parked.
    @available(*, noasync)
    func read(into buffer: inout OutputRawSpan, timeout: Duration?) throws -> Int

    /// Writes a part of `bytes`, as much as there is room for; returns the number of bytes.
    ///
    /// Parks if there is no room at all. Returns at least 1, unless `bytes` is empty. "Written" means handed on, not
    /// received by the peer.
    @available(*, noasync)
    func write(_ bytes: RawSpan, timeout: Duration?) throws -> Int

    /// Writes all of `bytes`. Parks as often as necessary; the timeout is for the whole.
    ///
    /// After an error it is not known how much was written. By default it calls `write(_:timeout:)` until everything
    /// is written.
    @available(*, noasync)
    func writeAll(_ bytes: RawSpan, timeout: Duration?) throws

    /// Writes the bytes of all `parts`, in their order, as if they were one. Parks as often as necessary; the timeout
    /// is for the whole.
    ///
    /// The pointers must stay valid during the call. By default it writes one part after another. A stream that can
    /// hand several parts to the kernel at once, as a socket can, does so. Callers that do not hold pointers use
    /// `writeAll(_:_:timeout:)`.
    @available(*, noasync)
    func writeAll(gathering parts: UnsafeBufferPointer<UnsafeRawBufferPointer>, timeout: Duration?) throws

    /// Ends one direction of the stream, or both. Calls that are parked in it wake.
    ///
    /// A stream that has to send something for that, as TLS has, may park as in a write without a timeout.
    @available(*, noasync)
    func shutdown(_ direction: StreamDirection) throws

    /// Closes the stream. Calls that are parked in it throw. Repeatable; never parks.
    func close()
}

/// The direction of a stream that ``ByteStream/shutdown(_:)`` ends.
public enum StreamDirection: Sendable, Hashable {
    /// Nothing more is received: reads return the end of the stream.
    case read
    /// Nothing more is sent: the peer reads the end of the stream.
    case write
    /// Both.
    case both
}

// MARK: What requirements do unless a stream does better

extension ByteStream {
    @available(*, noasync)
    public func writeAll(_ bytes: RawSpan, timeout: Duration?) throws {
        var time = TimeForWhole(timeout)
        var rest = bytes
        while !rest.isEmpty {
            let count = try write(rest, timeout: time.left())
            rest = rest.extracting(droppingFirst: count)
        }
    }

    @available(*, noasync)
    public func writeAll(gathering parts: UnsafeBufferPointer<UnsafeRawBufferPointer>, timeout: Duration?) throws {
        var time = TimeForWhole(timeout)
        for part in parts where !part.isEmpty { try writeAll(part, timeout: time.left()) }
    }
}

/// The time for a call that is made of several, each with a timeout of its own.
private struct TimeForWhole {
    private let limit: Duration?
    private var deadline: LoopInstant?

    init(_ limit: Duration?) { self.limit = limit }

    /// The timeout of the next call: all of the time for the first one. When the time is up it is as short as can be,
    /// but not zero, which is a wish not to park: so the stream throws its own error for a timeout.
    mutating func left() -> Duration? {
        guard let limit, limit > .zero else { return limit }
        let now = Hub.current.now
        guard let deadline else {
            deadline = now.advanced(by: limit)
            return limit
        }
        return max(now.duration(to: deadline), .nanoseconds(1))
    }
}
