/// There is no element, and none to wait for any longer.
///
/// gevent: `gevent.queue.Empty`.
public struct QueueEmpty: Error, Sendable, Hashable, CustomStringConvertible {
    /// The error.
    public init() {}

    public var description: String { "the queue is empty" }
}

/// There is no room, and no time left to wait for some.
///
/// gevent: `gevent.queue.Full`.
public struct QueueFull: Error, Sendable, Hashable, CustomStringConvertible {
    /// The error.
    public init() {}

    public var description: String { "the queue is full" }
}

/// The queue was shut down: nothing can be put any more, or nothing is left to get.
///
/// gevent: `gevent.queue.ShutDown`.
public struct QueueShutDown: Error, Sendable, Hashable, CustomStringConvertible {
    /// The error.
    public init() {}

    public var description: String { "the queue was shut down" }
}
