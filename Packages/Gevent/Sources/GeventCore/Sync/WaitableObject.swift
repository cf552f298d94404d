package import CGevent

/// The base class of ``Event``, ``AsyncResult`` and ``Semaphore``: the list of waiters.
///
/// An object may be created before any hub exists, and belongs to the thread that first uses it.
public class _WaitableObject: Waitable {
    @usableFromInline @exclusivity(unchecked) final var hubBinding = HubBinding()
    @usableFromInline @exclusivity(unchecked) package final var waiters = WaitQueue()
    /// The position in the order in which the hub's objects became ready; the ends of greenlets use the same counter.
    @exclusivity(unchecked) private final var lastReadyOrder: UInt64 = 0
    /// The end of the ready queue at the latest wake. Until the queue has passed it, woken greenlets have not run.
    @exclusivity(unchecked) private final var wakeMark: UInt64 = 0

    @usableFromInline
    init() {}

    deinit { waiters.release(hubBinding) }

    /// Whether a wait for the object would return at once.
    public var isReady: Bool { preconditionFailure("overridden by every kind of object") }

    /// The number of waiting greenlets and linked callbacks. Linear; for tests and reports.
    ///
    /// gevent: `linkcount()`.
    public final var linkCount: Int { waiters.count }

    // MARK: Waitable

    public final func readyOrder() throws -> UInt64? {
        _ = try hubBinding.hub()
        return isReady ? lastReadyOrder : nil
    }

    public func takeIfReady() throws -> Void? { try readyOrder().map { _ in } }

    public func enlist(_ waiter: Enlistment<Void>) throws {
        let hub = try hubBinding.hub()
        if isReady {
            waiter.choose()
        } else {
            waiters.append(waiter, hub)
        }
    }

    public final func withdraw(_ waiter: Enlistment<Void>) { waiter.leaveList() }

    // MARK: Becoming ready

    /// Records the order in which objects become ready.
    @inline(__always)
    final func recordReadiness(_ hub: UnsafeMutablePointer<gevent_hub>) {
        hub.pointee.ended_count &+= 1
        lastReadyOrder = hub.pointee.ended_count
    }

    /// Called when an ``AsyncResult`` gets an outcome. Does not depend on the type of its value.
    @usableFromInline
    final func didBecomeReady(isFirst: Bool) {
        let hub = hubBinding.requireHub()
        if isFirst { recordReadiness(hub) }
        notifyAll(hub)
    }

    /// Parks until the ``AsyncResult`` has an outcome. Returns false if `timeout` expired.
    @usableFromInline
    final func waitForResult(_ timeout: Duration?) throws -> Bool { try park(hubBinding.hub(), .result, timeout) }

    /// Notifies all waiters in order. A notification only queues, so no waiter is added meanwhile.
    @inline(__always)
    package final func notifyAll(_ hub: UnsafeMutablePointer<gevent_hub>) {
        if waiters.isEmpty { return }
        while let link = waiters.first { notify(link) }
        recordWake(hub)
    }

    @inline(__always)
    final func recordWake(_ hub: UnsafeMutablePointer<gevent_hub>) { wakeMark = hub.pointee.ready_tail }

    /// Notifies the first waiter, which takes nothing.
    @inline(__always)
    final func notify(_ link: UnsafeMutablePointer<gevent_link>) {
        if link.pointee.kind == GEVENT_LINK_WAKE {
            gevent_wait_end(gevent_context_of_wait_link(link), UInt8(GEVENT_WAIT_WOKEN))
        } else {
            EnlistedWaiter.choose(link)
        }
    }

    /// Parks until the greenlet is notified. Returns false if `timeout` expired. Reports show `object`, or this object
    /// by default.
    package final func park(
        _ hub: UnsafeMutablePointer<gevent_hub>, _ kind: WaitKind, _ timeout: Duration?,
        showing object: UnsafeRawPointer? = nil
    ) throws -> Bool {
        if let timeout, timeout <= .zero { return false }
        try checkPending(hub)
        let current = hub.pointee.current!
        waiters.append(&current.pointee.wait_link, kind: GEVENT_LINK_WAKE, payload: nil, hub)
        if let timeout { armTimeout(timeout, current, hub) }
        return try GeventCore.wait(hub, kind, object ?? UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque()))
    }

    /// Yields, without a poll, if waiters were woken and have not run yet: they run before a caller that found the
    /// object ready. Does nothing on the hub, or if there is a pending error.
    @inline(__always)
    final func yieldToEarlierWaiters(_ hub: UnsafeMutablePointer<gevent_hub>, _ timeout: Duration?) {
        if gevent_ready_has_passed(hub, wakeMark) { return }
        if let timeout, timeout <= .zero { return }
        _ = gevent_yield()
    }
}

@available(*, unavailable)
extension _WaitableObject: Sendable {}
