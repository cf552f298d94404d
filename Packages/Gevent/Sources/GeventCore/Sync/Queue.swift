/// A queue, first in, first out, that also knows when everything put into it has been dealt with.
///
/// ```swift
/// let jobs = Queue<Job>(maxSize: 10)
/// spawn {
///     while let job = try jobs.next() {
///         defer { jobs.taskDone() }
///         try run(job)
///     }
/// }
/// for job in list { try jobs.put(job) }
/// try jobs.join()
/// ```
///
/// gevent: `gevent.queue.Queue`, and `gevent.queue.JoinableQueue` where that is kept apart.
public final class Queue<Element>: BasicQueue<FirstInFirstOut<Element>> {
    /// An empty queue of at most `maxSize` elements; nil and 0 mean any number. A negative number is a programming
    /// error and traps.
    @inlinable
    public init(maxSize: Int? = nil) {
        super.init(maxSize: maxSize, storage: FirstInFirstOut())
    }

    /// A queue that begins with `elements`, of which there may be more than `maxSize`; they count as unfinished.
    @inlinable
    public init(maxSize: Int? = nil, _ elements: some Sequence<Element>) {
        var storage = FirstInFirstOut<Element>()
        for element in elements { storage.insert(element) }
        super.init(maxSize: maxSize, storage: storage)
    }

    private init(copying other: Queue) {
        super.init(maxSize: other.maxSize, storage: other.storage.copy())
        unfinished = other.unfinished
    }

    /// Another queue with the same limit, the same elements and as many unfinished tasks. Nobody waits for it, and it
    /// is not shut down.
    ///
    /// gevent: `JoinableQueue.copy()`.
    public func copy() -> Queue<Element> { Queue(copying: self) }

    /// How many elements were put, or were there from the start, and have not been reported done.
    ///
    /// gevent: `JoinableQueue.unfinished_tasks`.
    public var unfinishedTasks: Int { unfinished }

    /// Reports that an element which was taken has been dealt with; after the last, everyone in ``join(timeout:)`` goes
    /// on.
    ///
    /// Never parks; works in a hub callback. One report more than elements were put is a programming error and traps,
    /// and so does a foreign thread.
    ///
    /// gevent: `JoinableQueue.task_done()`.
    public func taskDone() {
        _ = home.requireHub()
        if unfinished == 0 { fatalError("taskDone was called more often than elements were put: \(self)") }
        didFinish(1)
    }

    /// Parks until every element has been reported done, or for at most `timeout`. Returns whether that came before the
    /// time was up; at once if there is nothing to wait for.
    ///
    /// Throws what is thrown into the greenlet meanwhile; ``HubError`` with `.wouldBlockForever` in main,
    /// `.wrongThread`, `.blockedInHub`.
    ///
    /// gevent: `JoinableQueue.join(timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public func join(timeout: Duration? = nil) throws -> Bool { try waitUntilDone(timeout) }
}
