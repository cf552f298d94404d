/// A queue, first in, first out.
///
/// ```swift
/// let lines = SimpleQueue<String>(maxSize: 100)
/// spawn { while let line = try lines.next() { print(line) } }
/// try lines.put("hello")
/// lines.shutdown()
/// ```
///
/// gevent: `gevent.queue.Queue` of the versions that keep `JoinableQueue` apart.
public final class SimpleQueue<Element>: BasicQueue<FirstInFirstOut<Element>> {
    /// An empty queue of at most `maxSize` elements; nil and 0 mean any number. A negative number is a programming
    /// error and traps.
    @inlinable
    public init(maxSize: Int? = nil) {
        super.init(maxSize: maxSize, storage: FirstInFirstOut())
    }

    /// A queue that begins with `elements`, of which there may be more than `maxSize`.
    @inlinable
    public init(maxSize: Int? = nil, _ elements: some Sequence<Element>) {
        var storage = FirstInFirstOut<Element>()
        for element in elements { storage.insert(element) }
        super.init(maxSize: maxSize, storage: storage)
    }

    /// Another queue with the same limit and the same elements. Nobody waits for it, and it is not shut down.
    ///
    /// gevent: `Queue.copy()`.
    public func copy() -> SimpleQueue<Element> { SimpleQueue(maxSize: maxSize, copying: storage.copy()) }

    private init(maxSize: Int?, copying storage: consuming FirstInFirstOut<Element>) {
        super.init(maxSize: maxSize, storage: storage)
    }
}
