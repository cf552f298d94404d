/// What a descriptor is, or should be, ready for.
///
/// Hang-up and error have no value of their own: they read as ``read`` and as ``write``, so that everyone who waits
/// wakes and learns the truth from their own system call.
@frozen
public struct Readiness: OptionSet, Sendable, Hashable, CustomStringConvertible {
    /// One bit per kind; the other bits are zero.
    public let rawValue: UInt8

    /// The set with these bits.
    @inlinable
    public init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    /// A read would not block: there is data, a connection to accept, or the end of the stream.
    @inlinable
    public static var read: Readiness { Readiness(rawValue: 1) }

    /// A write would not block: there is room, or a connection attempt has ended.
    @inlinable
    public static var write: Readiness { Readiness(rawValue: 2) }

    /// The set as in "read+write", or "none".
    public var description: String {
        switch (contains(.read), contains(.write)) {
        case (true, true): "read+write"
        case (true, false): "read"
        case (false, true): "write"
        case (false, false): "none"
        }
    }
}

/// One descriptor that a poll found ready, or whose registration was lost.
@frozen
public struct ReadyEvent: Sendable, Hashable {
    /// The descriptor, as it was given to ``Loop/setInterest(_:for:generation:)``.
    public var fileDescriptor: CInt

    /// The generation given with the interest.
    ///
    /// The core counts it up whenever a descriptor number changes hands, so an event that was already on its way when
    /// the descriptor was closed and its number reused is told apart and dropped.
    public var generation: UInt32

    /// What the descriptor is ready for; empty if the loop could not register it, or could not register it anew, and
    /// so does not watch it any more.
    public var readiness: Readiness

    /// An event with these values.
    @inlinable
    public init(fileDescriptor: CInt, generation: UInt32, readiness: Readiness) {
        self.fileDescriptor = fileDescriptor
        self.generation = generation
        self.readiness = readiness
    }
}
