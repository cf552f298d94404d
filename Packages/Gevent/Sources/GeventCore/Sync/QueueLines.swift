public import CGevent

/// The part of a queue that does not depend on what is in it: who waits on which side, and how.
///
/// At any moment either there is no element, or nobody waits for one; and either there is room, or nobody waits for
/// some. What breaks that rule restores it before it returns, by handing elements over. So a greenlet that is woken has
/// what it waited for, whatever happens to it before it runs.
public class _QueueLines {
    @usableFromInline @exclusivity(unchecked) final var home = HubBinding()
    /// Somebody waits, or waited, or the queue was shut down: the short ways are closed.
    @usableFromInline @exclusivity(unchecked) final var isFastPathDisabled = false
    /// How many elements there may be.
    @usableFromInline @exclusivity(unchecked) final var limit: Int
    /// Elements that were put and not reported done, for the queues that count them.
    @usableFromInline @exclusivity(unchecked) final var unfinished = 0
    @usableFromInline @exclusivity(unchecked) final var getters = WaitQueue()
    @usableFromInline @exclusivity(unchecked) final var putters = WaitQueue()
    @exclusivity(unchecked) final var joiners = WaitQueue()

    /// Whether the queue was shut down.
    @usableFromInline @exclusivity(unchecked) final var isClosed = false

    @usableFromInline
    init(maxSize: Int?) {
        limit = _QueueLines.limit(for: maxSize)
    }

    deinit {
        getters.drop(home: home)
        putters.drop(home: home)
        joiners.drop(home: home)
    }

    @usableFromInline
    static func limit(for maxSize: Int?) -> Int {
        guard let maxSize, maxSize != 0 else { return .max }
        if maxSize < 0 { fatalError("a queue's maxSize is nil, 0 or positive, not \(maxSize)") }
        return maxSize
    }

    /// Whether the current greenlet may wait for a queue at all. A hub callback may not; there it is as if no time were
    /// left.
    @usableFromInline
    final func mayWait(_ timeout: Duration?, _ hub: UnsafeMutablePointer<gevent_hub>) -> Bool {
        if let timeout, timeout <= .zero { return false }
        return gevent_pending_flags(hub) != UInt8(GEVENT_PENDING_REFUSED)
    }

    /// Parks in one of the lines, with room for an element or with one in it. Returns whether it was served before the
    /// time was up; throws ``QueueError/shutDown`` if the queue was shut down meanwhile.
    @usableFromInline
    final func park(
        for purpose: Int, _ place: UnsafeMutableRawPointer, _ timeout: Duration?,
        _ hub: UnsafeMutablePointer<gevent_hub>
    ) throws -> Bool {
        try checkPending(hub)
        let current = hub.pointee.current!
        let isPut = purpose == Int(GEVENT_LINK_PUT)
        if isPut {
            putters.append(&current.pointee.wait_link, kind: purpose, payload: place, hub)
        } else {
            getters.append(&current.pointee.wait_link, kind: purpose, payload: place, hub)
        }
        isFastPathDisabled = true
        if let timeout { armTimeout(timeout, current, hub) }
        let isServed = try wait(hub, isPut ? .queuePut : .queueGet, self)
        if isServed && current.pointee.wait_link.kind == GEVENT_LINK_REFUSED { throw QueueError.shutDown }
        return isServed
    }

    /// The waiter with this link has been served: it leaves the line and becomes ready.
    @inlinable
    @inline(__always)
    final func wake(_ link: UnsafeMutablePointer<gevent_link>) {
        if link.pointee.place != 0 { return chooseEnlisted(link) }
        gevent_wait_end(gevent_context_of_wait_link(link), UInt8(GEVENT_WAIT_WOKEN))
    }

    @usableFromInline
    final func chooseEnlisted(_ link: UnsafeMutablePointer<gevent_link>) { EnlistedWaiter.choose(link) }

    /// Opens the short ways again if nobody waits.
    @inlinable
    final func updateFastPath() { isFastPathDisabled = isClosed || !getters.isEmpty || !putters.isEmpty }

    /// Everyone who waits on either side is thrown ``QueueError/shutDown``.
    @usableFromInline
    final func refuseEverybody() {
        isClosed = true
        isFastPathDisabled = true
        while let link = getters.first ?? putters.first {
            if link.pointee.place != 0 {
                // To one that takes nothing the queue is ready.
                EnlistedWaiter.choose(
                    link, throwing: link.pointee.kind == GEVENT_LINK_GET ? QueueError.shutDown : nil)
            } else {
                link.pointee.kind = UInt32(GEVENT_LINK_REFUSED)
                wake(link)
            }
        }
    }

    // MARK: Counting what is done

    /// Tells those who wait for everything to be done, if it is.
    @usableFromInline
    final func didFinish(_ count: Int) {
        // Dropped elements may have been reported as done already.
        unfinished = max(0, unfinished - count)
        if unfinished > 0 { return }
        while let link = joiners.first { wake(link) }
    }

    /// Parks until everything is done. Returns whether it was before the time was up.
    final func waitUntilDone(_ timeout: Duration?) throws -> Bool {
        let hub = try home.hub()
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
extension _QueueLines: Sendable {}
