/// Why a queue did not take an element, or had none to give.
@nonexhaustive
public enum QueueError: Error, Sendable, Hashable, CustomStringConvertible {
    /// There is no element, and none came in time.
    ///
    /// gevent: `gevent.queue.Empty`.
    case empty
    /// There is no room, and none was made in time.
    ///
    /// gevent: `gevent.queue.Full`.
    case full
    /// The queue was shut down: nothing can be put any more, or nothing is left to get.
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
