/// The reason why a put or a get of a queue failed.
@nonexhaustive
public enum QueueError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The queue is empty, and no element was put in time.
    ///
    /// gevent: `gevent.queue.Empty`.
    case empty
    /// The queue is full, and no element was taken in time.
    ///
    /// gevent: `gevent.queue.Full`.
    case full
    /// The queue was shut down: it accepts no elements, or no elements remain.
    ///
    /// gevent: `gevent.queue.ShutDown`.
    case shutDown

    public var description: String {
        switch self {
        case .empty: "the queue is empty"
        case .full: "the queue is full"
        case .shutDown: "the queue was shut down"
        }
    }
}
