public import CGevent

/// The part of a queue that does not depend on the type of its elements: the waiters of each side.
///
/// Invariant: if there is an element, no getter waits; if there is room, no putter waits. A call that breaks the
/// invariant restores it before it returns, by handing over elements. So a getter that was served has its element, and
/// the element of a putter that was served is in the queue, whatever happens to the greenlet before it runs.
public class _QueueBase {
    @usableFromInline @exclusivity(unchecked) final var hubBinding = HubBinding()
    /// Whether calls must take the slow path: a greenlet waits or has waited, or the queue was shut down.
    @usableFromInline @exclusivity(unchecked) final var isFastPathDisabled = false
    /// The maximum number of elements.
    @usableFromInline @exclusivity(unchecked) final var limit: Int
    /// The number of elements that were put and not reported done, for `Queue`.
    @usableFromInline @exclusivity(unchecked) final var unfinished = 0
    @usableFromInline @exclusivity(unchecked) final var getters = WaitQueue()
    @usableFromInline @exclusivity(unchecked) final var putters = WaitQueue()
    @exclusivity(unchecked) final var joiners = WaitQueue()

    /// Whether the queue was shut down.
    @usableFromInline @exclusivity(unchecked) final var isClosed = false

    @usableFromInline
    init(maxSize: Int?) {
        limit = _QueueBase.limit(for: maxSize)
    }

    deinit {
        getters.release(hubBinding)
        putters.release(hubBinding)
        joiners.release(hubBinding)
    }

    @usableFromInline
    static func limit(for maxSize: Int?) -> Int {
        guard let maxSize, maxSize != 0 else { return .max }
        if maxSize < 0 { fatalError("a queue's maxSize is nil, 0 or positive, not \(maxSize)") }
        return maxSize
    }

    /// Whether the current greenlet may park for the queue. A hub callback may not: its calls behave as with a timeout
    /// of zero.
    @usableFromInline
    final func mayPark(_ timeout: Duration?, _ hub: UnsafeMutablePointer<gevent_hub>) -> Bool {
        if let timeout, timeout <= .zero { return false }
        return gevent_pending_flags(hub) != UInt8(GEVENT_PENDING_REFUSED)
    }

    /// Parks as a getter or a putter. `slot` is memory for an element; a putter's is initialized. Returns false if
    /// `timeout` expired; throws ``QueueError/shutDown`` if the queue was shut down meanwhile.
    @usableFromInline
    final func park(
        for purpose: Int, _ slot: UnsafeMutableRawPointer, _ timeout: Duration?,
        _ hub: UnsafeMutablePointer<gevent_hub>
    ) throws -> Bool {
        try checkPending(hub)
        let current = hub.pointee.current!
        let isPut = purpose == Int(GEVENT_LINK_PUT)
        if isPut {
            putters.append(&current.pointee.wait_link, kind: purpose, payload: slot, hub)
        } else {
            getters.append(&current.pointee.wait_link, kind: purpose, payload: slot, hub)
        }
        isFastPathDisabled = true
        if let timeout { armTimeout(timeout, current, hub) }
        let isServed = try wait(hub, isPut ? .queuePut : .queueGet, self)
        if isServed && current.pointee.wait_link.kind == GEVENT_LINK_REFUSED { throw QueueError.shutDown }
        return isServed
    }

    /// Unlinks a waiter that has been served, and makes it ready.
    @inlinable
    @inline(__always)
    final func wake(_ link: UnsafeMutablePointer<gevent_link>) {
        if link.pointee.place != 0 { return chooseEnlisted(link) }
        gevent_wait_end(gevent_context_of_wait_link(link), UInt8(GEVENT_WAIT_WOKEN))
    }

    @usableFromInline
    final func chooseEnlisted(_ link: UnsafeMutablePointer<gevent_link>) { EnlistedWaiter.choose(link) }

    /// Enables the fast path again if there are no waiters.
    @inlinable
    final func updateFastPath() { isFastPathDisabled = isClosed || !getters.isEmpty || !putters.isEmpty }

    /// Closes the queue and ends all waits for it: getters and putters are thrown ``QueueError/shutDown``.
    @usableFromInline
    final func refuseAllWaiters() {
        isClosed = true
        isFastPathDisabled = true
        while let link = getters.first ?? putters.first {
            if link.pointee.place != 0 {
                // For a waiter that takes nothing, the queue is ready.
                EnlistedWaiter.choose(
                    link, throwing: link.pointee.kind == GEVENT_LINK_GET ? QueueError.shutDown : nil)
            } else {
                link.pointee.kind = UInt32(GEVENT_LINK_REFUSED)
                wake(link)
            }
        }
    }

    // MARK: Counting finished tasks

    /// Subtracts from the number of unfinished elements, and wakes the joiners if none is left.
    @usableFromInline
    final func didFinish(_ count: Int) {
        // Dropped elements may have been reported as done already.
        unfinished = max(0, unfinished - count)
        if unfinished > 0 { return }
        while let link = joiners.first { wake(link) }
    }

    /// Parks until no element is unfinished. Returns false if `timeout` expired before that.
    final func waitUntilDone(_ timeout: Duration?) throws -> Bool {
        let hub = try hubBinding.hub()
        if unfinished == 0 { return true }
        if let timeout, timeout <= .zero { return false }
        try checkPending(hub)
        let current = hub.pointee.current!
        joiners.append(&current.pointee.wait_link, kind: GEVENT_LINK_WAKE, payload: nil, hub)
        if let timeout { armTimeout(timeout, current, hub) }
        return try wait(hub, .queueJoin, self)
    }
}

@available(*, unavailable)
extension _QueueBase: Sendable {}
