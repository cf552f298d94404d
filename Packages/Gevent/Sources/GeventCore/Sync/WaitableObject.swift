package import CGevent

/// The part that ``Event``, ``AsyncResult`` and ``Semaphore`` share: the list of those who wait.
///
/// They may be made before any hub exists, and belong to the thread that first uses them.
public class _WaitableObject: Waitable {
    @usableFromInline @exclusivity(unchecked) final var home = HubBinding()
    @usableFromInline @exclusivity(unchecked) package final var line = WaitQueue()
    /// When it became ready, on the same count as the ends of greenlets.
    @exclusivity(unchecked) private final var lastReadyOrder: UInt64 = 0
    /// Until the ready queue has come this far, greenlets that were woken have not run.
    @exclusivity(unchecked) private final var wakeMark: UInt64 = 0

    @usableFromInline
    init() {}

    deinit { line.drop(home: home) }

    /// Whether a wait for it would return at once.
    public var isReady: Bool { preconditionFailure("overridden by every kind of object") }

    /// How many greenlets wait for it and how many callbacks are linked to it. Linear; for tests and reports.
    ///
    /// gevent: `linkcount()`.
    public final var linkCount: Int { line.count }

    // MARK: Waitable

    public final func readyOrder() throws -> UInt64? {
        _ = try home.hub()
        return isReady ? lastReadyOrder : nil
    }

    public func takeIfReady() throws -> Void? { try readyOrder().map { _ in } }

    public func enlist(_ waiter: Enlistment<Void>) throws {
        let hub = try home.hub()
        if isReady {
            waiter.choose()
        } else {
            line.append(waiter, hub)
        }
    }

    public final func withdraw(_ waiter: Enlistment<Void>) { waiter.leaveList() }

    // MARK: Becoming ready

    /// Remembers who was ready before whom.
    @inline(__always)
    final func recordReadiness(_ hub: UnsafeMutablePointer<gevent_hub>) {
        hub.pointee.ended_count &+= 1
        lastReadyOrder = hub.pointee.ended_count
    }

    /// The part of ``AsyncResult`` that does not depend on its value: it has one now.
    @usableFromInline
    final func didBecomeReady(isFirst: Bool) {
        let hub = home.requireHub()
        if isFirst { recordReadiness(hub) }
        notifyAll(hub)
    }

    /// The same for whoever waits for it.
    @usableFromInline
    final func waitForResult(_ timeout: Duration?) throws -> Bool { try park(home.hub(), .result, timeout) }

    /// Tells everyone who stands in line, in order. All of this only queues, so nobody can join the line meanwhile.
    @inline(__always)
    package final func notifyAll(_ hub: UnsafeMutablePointer<gevent_hub>) {
        if line.isEmpty { return }
        while let link = line.first { tell(link) }
        recordWake(hub)
    }

    @inline(__always)
    final func recordWake(_ hub: UnsafeMutablePointer<gevent_hub>) { wakeMark = hub.pointee.ready_tail }

    /// Notifies the first in line, which takes nothing.
    @inline(__always)
    final func tell(_ link: UnsafeMutablePointer<gevent_link>) {
        if link.pointee.kind == GEVENT_LINK_WAKE {
            gevent_wait_end(gevent_context_of_wait_link(link), UInt8(GEVENT_WAIT_WOKEN))
        } else {
            EnlistedWaiter.choose(link)
        }
    }

    /// Parks until it is told. Returns whether that came before the time was up. Reports show `object`, or else this
    /// one.
    package final func park(
        _ hub: UnsafeMutablePointer<gevent_hub>, _ kind: WaitKind, _ timeout: Duration?,
        showing object: UnsafeRawPointer? = nil
    ) throws -> Bool {
        if let timeout, timeout <= .zero { return false }
        try checkPending(hub)
        let current = hub.pointee.current!
        line.append(&current.pointee.wait_link, kind: GEVENT_LINK_WAKE, payload: nil, hub)
        if let timeout { armTimeout(timeout, current, hub) }
        return try GeventCore.wait(hub, kind, object ?? UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque()))
    }

    /// It is ready; but whoever had to wait for that comes before those who find it so, if they have not run yet.
    /// Without a poll. On the hub, or if there is something to raise, nobody is let go first.
    @inline(__always)
    final func yieldToEarlierWaiters(_ hub: UnsafeMutablePointer<gevent_hub>, _ timeout: Duration?) {
        if gevent_ready_has_passed(hub, wakeMark) { return }
        if let timeout, timeout <= .zero { return }
        _ = gevent_yield()
    }
}

@available(*, unavailable)
extension _WaitableObject: Sendable {}
