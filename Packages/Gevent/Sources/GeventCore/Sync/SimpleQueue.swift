public import CGevent

/// A first-in, first-out queue.
///
/// ```swift
/// let lines = SimpleQueue<String>(maxSize: 100)
/// spawn { while let line = try lines.next() { print(line) } }
/// try lines.put("hello")
/// lines.shutdown()
/// ```
///
/// `put` parks only when the queue is full, `get` only when it is empty. Waiters of each side are served in the order
/// of their arrival, and an element is handed directly to the getter that has waited longest. In a hub callback the
/// calls do not park: `put` throws ``QueueError/full`` and `get` throws ``QueueError/empty``. ``Queue`` can also wait
/// until all its elements have been processed.
///
/// A queue may be created before any hub exists, and belongs to the thread that first uses it. Other threads must post
/// to its hub.
///
/// gevent: `gevent.queue.SimpleQueue`, and `gevent.queue.Queue` in versions that also have `JoinableQueue`.
public class SimpleQueue<Element>: _QueueBase, Waitable, CustomStringConvertible {
    @usableFromInline @exclusivity(unchecked) final var storage: Ring<Element>

    /// Creates an empty queue of at most `maxSize` elements; nil and 0 mean no limit. A negative number is a
    /// programming error and traps.
    @inlinable
    public override init(maxSize: Int? = nil) {
        storage = Ring()
        super.init(maxSize: maxSize)
    }

    /// Creates a queue that contains `elements`, which may be more than `maxSize`.
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

    /// Returns a queue with the same limit and the same elements. It has no waiters and is not shut down.
    ///
    /// gevent: `Queue.copy()`.
    public func copy() -> SimpleQueue<Element> { SimpleQueue(copying: self) }

    // MARK: State

    /// The number of elements.
    ///
    /// gevent: `Queue.qsize()`.
    @inlinable
    public final var count: Int { storage.count }

    /// Whether the queue has no elements.
    ///
    /// gevent: `Queue.empty()`.
    @inlinable
    public final var isEmpty: Bool { storage.count == 0 }

    /// Whether the queue has no room; always false without a ``maxSize``.
    ///
    /// gevent: `Queue.full()`.
    @inlinable
    public final var isFull: Bool { storage.count >= limit }

    /// Whether ``get(blocking:timeout:)`` would not park: there is an element, or the queue was shut down.
    @inlinable
    public final var isReady: Bool { storage.count > 0 || isClosed }

    /// Whether the queue was shut down.
    public final var isShutDown: Bool { isClosed }

    /// The maximum number of elements; nil and 0 mean no limit. A negative number is a programming error and traps.
    ///
    /// The limit may be changed at any time. A higher limit wakes waiting putters; a lower one drops no element.
    ///
    /// gevent: `Queue.maxsize`.
    public final var maxSize: Int? {
        get { limit == .max ? nil : limit }
        set {
            _ = hubBinding.requireHub()
            limit = _QueueBase.limit(for: newValue)
            serve()
        }
    }

    // MARK: Putting

    /// Adds an element; parks until there is room, or for at most `timeout`.
    ///
    /// Throws ``QueueError/full`` when `timeout` expires; with `blocking: false`, with a timeout of zero or less and in
    /// a hub callback, a full queue throws it at once. Throws ``QueueError/shutDown``, and an error delivered to the
    /// greenlet meanwhile. If the call throws, the element was not added.
    ///
    /// gevent: `Queue.put(item, block=True, timeout=None)`.
    @available(*, noasync)
    @inlinable
    public final func put(_ element: Element, blocking: Bool = true, timeout: Duration? = nil) throws {
        if !isFastPathDisabled && storage.count < limit && hubBinding.isCurrent { return insert(element) }
        try putSlowly(element, blocking ? timeout : .zero)
    }

    /// Adds an element, or throws ``QueueError/full`` or ``QueueError/shutDown``. Never parks.
    ///
    /// gevent: `Queue.put_nowait(item)`.
    @inlinable
    @available(*, noasync)
    public final func putNowait(_ element: Element) throws {
        if !isFastPathDisabled && storage.count < limit && hubBinding.isCurrent { return insert(element) }
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
        let hub = try hubBinding.hub()
        if isClosed { throw QueueError.shutDown }
        if storage.count < limit {
            insert(element)
            serve()
            return
        }
        guard mayPark(timeout, hub) else { throw QueueError.full }
        try withUnsafeTemporaryAllocation(of: Element.self, capacity: 1) { buffer in
            let slot = buffer.baseAddress!
            slot.initialize(to: element)
            var isTaken = false
            // The greenlet that serves this one moves the element out of the slot.
            defer { if !isTaken { slot.deinitialize(count: 1) } }
            isTaken = try park(for: Int(GEVENT_LINK_PUT), slot, timeout, hub)
            if !isTaken { throw QueueError.full }
        }
    }

    // MARK: Getting

    /// Takes the next element; parks until there is one, or for at most `timeout`.
    ///
    /// A loop of gets never yields while it finds elements. Throws ``QueueError/empty`` when `timeout` expires; with
    /// `blocking: false`, with a timeout of zero or less and in a hub callback, an empty queue throws it at once.
    /// Throws ``QueueError/shutDown`` once a queue that was shut down is drained, and an error delivered to the
    /// greenlet meanwhile. If the call throws, no element was taken.
    ///
    /// gevent: `Queue.get(block=True, timeout=None)`.
    @available(*, noasync)
    @inlinable
    public final func get(blocking: Bool = true, timeout: Duration? = nil) throws -> Element {
        if !isFastPathDisabled && storage.count > 0 && hubBinding.isCurrent { return storage.removeNext() }
        return try getSlowly(Int(GEVENT_LINK_GET), blocking ? timeout : .zero)
    }

    /// Takes the next element, or throws ``QueueError/empty`` or ``QueueError/shutDown``. Never parks.
    ///
    /// gevent: `Queue.get_nowait()`.
    @inlinable
    @available(*, noasync)
    public final func getNowait() throws -> Element {
        if !isFastPathDisabled && storage.count > 0 && hubBinding.isCurrent { return storage.removeNext() }
        return try getSlowly(Int(GEVENT_LINK_GET), .zero)
    }

    /// Returns the next element without removing it, so no putter is woken. Otherwise like ``get(blocking:timeout:)``.
    ///
    /// gevent: `Queue.peek(block=True, timeout=None)`.
    @available(*, noasync)
    @inlinable
    public final func peek(blocking: Bool = true, timeout: Duration? = nil) throws -> Element {
        try getSlowly(Int(GEVENT_LINK_PEEK), blocking ? timeout : .zero)
    }

    /// Returns the next element without removing it, or throws ``QueueError/empty`` or ``QueueError/shutDown``. Never
    /// parks.
    ///
    /// gevent: `Queue.peek_nowait()`.
    @inlinable
    @available(*, noasync)
    public final func peekNowait() throws -> Element {
        try getSlowly(Int(GEVENT_LINK_PEEK), .zero)
    }

    /// Takes the next element like ``get(blocking:timeout:)``; returns nil once the queue is shut down and drained.
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
        let hub = try hubBinding.hub()
        if storage.count > 0 {
            if purpose == Int(GEVENT_LINK_PEEK) { return storage.next }
            let element = storage.removeNext()
            serve()
            return element
        }
        if isClosed { throw QueueError.shutDown }
        guard mayPark(timeout, hub) else { throw QueueError.empty }
        return try withUnsafeTemporaryAllocation(of: Element.self, capacity: 1) { buffer in
            let slot = buffer.baseAddress!
            guard try park(for: purpose, slot, timeout, hub) else { throw QueueError.empty }
            // The greenlet that served this one has initialized the slot.
            return slot.move()
        }
    }

    /// Serves one putter and one getter alternately, until neither side can be served.
    @inlinable
    final func serve() {
        var didServe = !isClosed
        while didServe {
            didServe = false
            if storage.count < limit, let putter = putters.first {
                insert(putter.pointee.payload.assumingMemoryBound(to: Element.self).move())
                wake(putter)
                didServe = true
            }
            if storage.count > 0, let getter = getters.first {
                // Waiters of other kinds take nothing.
                if getter.pointee.kind == GEVENT_LINK_GET {
                    getter.pointee.payload.assumingMemoryBound(to: Element.self).initialize(to: storage.removeNext())
                } else if getter.pointee.kind == GEVENT_LINK_PEEK {
                    getter.pointee.payload.assumingMemoryBound(to: Element.self).initialize(to: storage.next)
                }
                wake(getter)
                didServe = true
            }
        }
        updateFastPath()
    }

    // MARK: Waitable

    /// Takes the next element; returns nil if there is none. Never parks.
    ///
    /// Throws ``QueueError/shutDown`` once a queue that was shut down is drained.
    public final func takeIfReady() throws -> Element? {
        _ = try hubBinding.hub()
        return isReady ? try getNowait() : nil
    }

    /// See ``Waitable/enlist(_:)``.
    public final func enlist(_ waiter: Enlistment<Element>) throws {
        let hub = try hubBinding.hub()
        if storage.count > 0 {
            waiter.choose { storage.removeNext() }
            serve()
        } else if isClosed && waiter.destination != nil {
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

    /// Closes the queue. Calls that are parked now and all later puts throw ``QueueError/shutDown``; later gets take
    /// the remaining elements and then throw it. With `immediate`, the remaining elements are dropped and count as
    /// done. Repeatable; never parks. Traps on a foreign thread.
    ///
    /// gevent: `Queue.shutdown(immediate=False)`.
    public final func shutdown(immediate: Bool = false) {
        _ = hubBinding.requireHub()
        refuseAllWaiters()
        if !immediate { return }
        let dropped = storage.count
        // One by one, so that the queue is consistent if the deinitializer of an element accesses it.
        while storage.count > 0 { _ = storage.removeNext() }
        didFinish(dropped)
    }

    /// "<Queue 3 of 10>": the number of elements and the limit, if there is one.
    public final var description: String {
        let kind = "\(type(of: self))".prefix { $0 != "<" }
        let limitText = maxSize.map { " of \($0)" } ?? ""
        return "<\(kind) \(count)\(limitText)\(isShutDown ? ", shut down" : "")>"
    }
}
