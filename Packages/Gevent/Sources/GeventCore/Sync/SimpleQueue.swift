public import CGevent

/// A queue, first in, first out.
///
/// ```swift
/// let lines = SimpleQueue<String>(maxSize: 100)
/// spawn { while let line = try lines.next() { print(line) } }
/// try lines.put("hello")
/// lines.shutdown()
/// ```
///
/// `put` and `get` park only when there is no room or no element. Both sides are served in the order in which they
/// came, and an element is handed straight to the getter that has waited longest. In a hub callback nothing parks:
/// `put` and `get` throw ``QueueError/full`` and ``QueueError/empty`` there. ``Queue`` can also wait until all its
/// elements have been dealt with.
///
/// May be made before any hub exists; belongs to the thread that first uses it. Other threads post to its hub.
///
/// gevent: `gevent.queue.SimpleQueue`, and `gevent.queue.Queue` of the versions that keep `JoinableQueue` apart.
public class SimpleQueue<Element>: _QueueLines, Waitable, CustomStringConvertible {
    @usableFromInline @exclusivity(unchecked) final var storage: Ring<Element>

    /// An empty queue of at most `maxSize` elements; nil and 0 mean any number. A negative number is a programming
    /// error and traps.
    @inlinable
    public override init(maxSize: Int? = nil) {
        storage = Ring()
        super.init(maxSize: maxSize)
    }

    /// A queue that begins with `elements`, of which there may be more than `maxSize`.
    @inlinable
    public init(maxSize: Int? = nil, _ elements: some Sequence<Element>) {
        var storage = Ring<Element>()
        for element in elements { storage.insert(element) }
        let count = storage.count
        self.storage = storage
        super.init(maxSize: maxSize)
        unfinished = count
    }

    init(copying other: SimpleQueue) {
        storage = other.storage.copy()
        super.init(maxSize: other.maxSize)
        unfinished = storage.count
    }

    /// Another queue with the same limit and the same elements. Nobody waits for it, and it is not shut down.
    ///
    /// gevent: `Queue.copy()`.
    public func copy() -> SimpleQueue<Element> { SimpleQueue(copying: self) }

    // MARK: State

    /// How many elements there are.
    ///
    /// gevent: `Queue.qsize()`.
    @inlinable
    public final var count: Int { storage.count }

    /// Whether there is no element.
    ///
    /// gevent: `Queue.empty()`.
    @inlinable
    public final var isEmpty: Bool { storage.count == 0 }

    /// Whether there is no room; never without a ``maxSize``.
    ///
    /// gevent: `Queue.full()`.
    @inlinable
    public final var isFull: Bool { storage.count >= limit }

    /// Whether an element can be taken at once, or none ever will because the queue was shut down: whether
    /// ``get(blocking:timeout:)`` would not park.
    @inlinable
    public final var isReady: Bool { storage.count > 0 || isClosed }

    /// Whether the queue was shut down.
    public final var isShutDown: Bool { isClosed }

    /// How many elements there may be; nil and 0 mean any number. A negative number is a programming error and traps.
    ///
    /// May be changed at any time: with more room, those who wait to put go on; with less, nothing is dropped.
    ///
    /// gevent: `Queue.maxsize`.
    public final var maxSize: Int? {
        get { limit == .max ? nil : limit }
        set {
            _ = home.requireHub()
            limit = _QueueLines.limit(for: newValue)
            serve()
        }
    }

    // MARK: Putting

    /// Adds an element; parks until there is room, or for at most `timeout`.
    ///
    /// Throws ``QueueError/full`` when the time is up, and at once for `blocking: false`, a timeout of zero or less and in a
    /// hub callback; ``QueueError/shutDown``; and what is thrown into the greenlet meanwhile, with which the element was not
    /// added.
    ///
    /// gevent: `Queue.put(item, block=True, timeout=None)`.
    @available(*, noasync)
    @inlinable
    public final func put(_ element: Element, blocking: Bool = true, timeout: Duration? = nil) throws {
        if !isFastPathDisabled && storage.count < limit && home.isHere { return insert(element) }
        try putSlowly(element, blocking ? timeout : .zero)
    }

    /// Adds an element, or throws ``QueueError/full`` or ``QueueError/shutDown``. Never parks.
    ///
    /// gevent: `Queue.put_nowait(item)`.
    @inlinable
    @available(*, noasync)
    public final func putNowait(_ element: Element) throws {
        if !isFastPathDisabled && storage.count < limit && home.isHere { return insert(element) }
        try putSlowly(element, .zero)
    }

    @inlinable
    @inline(__always)
    final func insert(_ element: Element) {
        storage.insert(element)
        unfinished &+= 1
    }

    @inlinable
    @inline(never)
    final func putSlowly(_ element: Element, _ timeout: Duration?) throws {
        let hub = try home.hub()
        if isClosed { throw QueueError.shutDown }
        if storage.count < limit {
            insert(element)
            serve()
            return
        }
        guard mayWait(timeout, hub) else { throw QueueError.full }
        try withUnsafeTemporaryAllocation(of: Element.self, capacity: 1) { place in
            let slot = place.baseAddress!
            slot.initialize(to: element)
            var isTaken = false
            // Whoever serves it takes the element out.
            defer { if !isTaken { slot.deinitialize(count: 1) } }
            isTaken = try park(for: Int(GEVENT_LINK_PUT), slot, timeout, hub)
            if !isTaken { throw QueueError.full }
        }
    }

    // MARK: Getting

    /// Takes the next element; parks until there is one, or for at most `timeout`.
    ///
    /// A loop of gets that find an element never yields. Throws ``QueueError/empty`` when the time is up, and at once for
    /// `blocking: false`, a timeout of zero or less and in a hub callback; ``QueueError/shutDown`` once a queue that was shut
    /// down is drained; and what is thrown into the greenlet meanwhile, with which no element was taken.
    ///
    /// gevent: `Queue.get(block=True, timeout=None)`.
    @available(*, noasync)
    @inlinable
    public final func get(blocking: Bool = true, timeout: Duration? = nil) throws -> Element {
        if !isFastPathDisabled && storage.count > 0 && home.isHere { return storage.removeNext() }
        return try getSlowly(Int(GEVENT_LINK_GET), blocking ? timeout : .zero)
    }

    /// Takes the next element, or throws ``QueueError/empty`` or ``QueueError/shutDown``. Never parks.
    ///
    /// gevent: `Queue.get_nowait()`.
    @inlinable
    @available(*, noasync)
    public final func getNowait() throws -> Element {
        if !isFastPathDisabled && storage.count > 0 && home.isHere { return storage.removeNext() }
        return try getSlowly(Int(GEVENT_LINK_GET), .zero)
    }

    /// The next element, which stays in the queue, so that nobody who waits to put goes on. Waits and throws as
    /// ``get(blocking:timeout:)`` does.
    ///
    /// gevent: `Queue.peek(block=True, timeout=None)`.
    @available(*, noasync)
    @inlinable
    public final func peek(blocking: Bool = true, timeout: Duration? = nil) throws -> Element {
        try getSlowly(Int(GEVENT_LINK_PEEK), blocking ? timeout : .zero)
    }

    /// The next element, which stays in the queue, or ``QueueError/empty`` or ``QueueError/shutDown``. Never parks.
    ///
    /// gevent: `Queue.peek_nowait()`.
    @inlinable
    @available(*, noasync)
    public final func peekNowait() throws -> Element {
        try getSlowly(Int(GEVENT_LINK_PEEK), .zero)
    }

    /// The next element, as ``get(blocking:timeout:)`` gives it, or nil once the queue is shut down and drained.
    ///
    /// ```swift
    /// while let job = try queue.next() { try run(job) }
    /// ```
    ///
    /// gevent: `Queue.__next__()`.
    @available(*, noasync)
    @inlinable
    public final func next() throws -> Element? {
        do {
            return try get()
        } catch QueueError.shutDown {
            return nil
        }
    }

    @inlinable
    @inline(never)
    final func getSlowly(_ purpose: Int, _ timeout: Duration?) throws -> Element {
        let hub = try home.hub()
        if storage.count > 0 {
            if purpose == Int(GEVENT_LINK_PEEK) { return storage.next }
            let element = storage.removeNext()
            serve()
            return element
        }
        if isClosed { throw QueueError.shutDown }
        guard mayWait(timeout, hub) else { throw QueueError.empty }
        return try withUnsafeTemporaryAllocation(of: Element.self, capacity: 1) { place in
            let slot = place.baseAddress!
            guard try park(for: purpose, slot, timeout, hub) else { throw QueueError.empty }
            // Whoever served it put an element in.
            return slot.move()
        }
    }

    /// One who puts, one who gets, in turn, until neither can go on.
    @inlinable
    final func serve() {
        var goesOn = !isClosed
        while goesOn {
            goesOn = false
            if storage.count < limit, let putter = putters.first {
                insert(putter.pointee.payload.assumingMemoryBound(to: Element.self).move())
                wake(putter)
                goesOn = true
            }
            if storage.count > 0, let getter = getters.first {
                // Others take nothing.
                if getter.pointee.kind == GEVENT_LINK_GET {
                    getter.pointee.payload.assumingMemoryBound(to: Element.self).initialize(to: storage.removeNext())
                } else if getter.pointee.kind == GEVENT_LINK_PEEK {
                    getter.pointee.payload.assumingMemoryBound(to: Element.self).initialize(to: storage.next)
                }
                wake(getter)
                goesOn = true
            }
        }
        updateFastPath()
    }

    // MARK: Waitable

    /// The next element, or nil if there is none. Never parks.
    ///
    /// Throws ``QueueError/shutDown`` once a queue that was shut down is drained.
    public final func takeIfReady() throws -> Element? {
        _ = try home.hub()
        return isReady ? try getNowait() : nil
    }

    /// See ``Waitable/enlist(_:)``.
    public final func enlist(_ waiter: Enlistment<Element>) throws {
        let hub = try home.hub()
        if storage.count > 0 {
            waiter.choose { storage.removeNext() }
            serve()
        } else if isClosed && waiter.room != nil {
            waiter.refuse(throwing: QueueError.shutDown)
        } else if isClosed {
            EnlistedWaiter.choose(waiter.link)
        } else {
            getters.append(waiter, taking: Int(GEVENT_LINK_GET), hub)
            isFastPathDisabled = true
        }
    }

    /// See ``Waitable/withdraw(_:)``.
    public final func withdraw(_ waiter: Enlistment<Element>) {
        waiter.leaveList()
        updateFastPath()
    }

    // MARK: Shutting down

    /// Closes the queue: puts fail at once with ``QueueError/shutDown``, gets take what is left and then fail, and everyone
    /// who waits is thrown it. With `immediate`, what is left is dropped and counts as done. Repeatable; never parks.
    /// Traps on a foreign thread.
    ///
    /// gevent: `Queue.shutdown(immediate=False)`.
    public final func shutdown(immediate: Bool = false) {
        _ = home.requireHub()
        refuseEverybody()
        if !immediate { return }
        let dropped = storage.count
        // One by one: what an element does when it goes finds the queue in order.
        while storage.count > 0 { _ = storage.removeNext() }
        didFinish(dropped)
    }

    /// "<Queue 3 of 10>": the elements and the limit, if there is one.
    public final var description: String {
        let kind = "\(type(of: self))".prefix { $0 != "<" }
        let most = maxSize.map { " of \($0)" } ?? ""
        return "<\(kind) \(count)\(most)\(isShutDown ? ", shut down" : "")>"
    }
}
