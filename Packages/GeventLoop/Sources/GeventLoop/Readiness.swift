/// The operations that a descriptor is ready for, or is watched for.
///
/// Hang-up and error have no separate value. They are reported as ``read`` and as ``write``, so every waiter wakes and
/// gets the result from its own system call.
@frozen
public struct Readiness: OptionSet, Sendable, Hashable, CustomStringConvertible {
    /// One bit per kind; the other bits are zero.
    public let rawValue: UInt8

    /// Creates the set with these bits.
    @inlinable
    public init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    /// Ready to read without blocking: there is data, a connection to accept, or the end of the stream.
    @inlinable
    public static var read: Readiness { Readiness(rawValue: 1) }

    /// Ready to write without blocking: there is buffer space, or a connection attempt has ended.
    @inlinable
    public static var write: Readiness { Readiness(rawValue: 2) }

    /// The set as text, such as "read+write" or "none".
    public var description: String {
        switch (contains(.read), contains(.write)) {
        case (true, true): "read+write"
        case (true, false): "read"
        case (false, true): "write"
        case (false, false): "none"
        }
    }
}

/// A descriptor that a poll found ready, or whose registration was lost.
@frozen
public struct ReadyEvent: Sendable, Hashable {
    /// The descriptor, as it was given to ``Loop/setInterest(_:for:generation:)``.
    public var fileDescriptor: CInt

    /// The generation that was set with the interest.
    ///
    /// The core increments it whenever a descriptor number is reused. It drops events of an older generation: they were
    /// found before the descriptor was closed and its number reused.
    public var generation: UInt32

    /// The operations that the descriptor is ready for. Empty if the loop failed to register the descriptor, the first
    /// time or again, and therefore no longer watches it.
    public var readiness: Readiness

    /// Creates an event with these values.
    @inlinable
    public init(fileDescriptor: CInt, generation: UInt32, readiness: Readiness) {
        self.fileDescriptor = fileDescriptor
        self.generation = generation
        self.readiness = readiness
    }
}
