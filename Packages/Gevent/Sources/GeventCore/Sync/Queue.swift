/// A first-in, first-out queue that also counts unfinished tasks: elements that were put and not yet reported done.
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
/// gevent: `gevent.queue.Queue`, and `gevent.queue.JoinableQueue` in versions that have both.
public final class Queue<Element>: SimpleQueue<Element> {
    /// Creates an empty queue of at most `maxSize` elements; nil and 0 mean no limit. A negative number is a
    /// programming error and traps.
    @inlinable
    public override init(maxSize: Int? = nil) {
        super.init(maxSize: maxSize)
    }

    /// Creates a queue that contains `elements`, which may be more than `maxSize`. They count as unfinished.
    @inlinable
    public override init(maxSize: Int? = nil, _ elements: some Sequence<Element>) {
        super.init(maxSize: maxSize, elements)
    }

    private init(copying other: Queue) {
        super.init(copying: other)
        unfinished = other.unfinished
    }

    /// Returns a queue with the same limit, the same elements and as many unfinished tasks. It has no waiters and is
    /// not shut down.
    ///
    /// gevent: `JoinableQueue.copy()`.
    public override func copy() -> Queue<Element> { Queue(copying: self) }

    /// The number of elements, including the initial ones, that have not been reported done.
    ///
    /// gevent: `JoinableQueue.unfinished_tasks`.
    public var unfinishedTasks: Int { unfinished }

    /// Reports that an element which was taken has been processed. The last report wakes the waiters in
    /// ``join(timeout:)``.
    ///
    /// Never parks; works in a hub callback. More reports than elements is a programming error and traps. Traps on a
    /// foreign thread.
    ///
    /// gevent: `JoinableQueue.task_done()`.
    public func taskDone() {
        _ = hubBinding.requireHub()
        if unfinished == 0 { fatalError("taskDone was called more often than elements were put: \(self)") }
        didFinish(1)
    }

    /// Parks until every element has been reported done, or for at most `timeout`. Returns false if `timeout` expired.
    /// Does not park if no task is unfinished.
    ///
    /// Throws an error delivered to the greenlet meanwhile; and ``HubError`` with `.wouldBlockForever` in main,
    /// `.wrongThread`, `.blockedInHub`.
    ///
    /// gevent: `JoinableQueue.join(timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public func join(timeout: Duration? = nil) throws -> Bool { try waitUntilDone(timeout) }
}
