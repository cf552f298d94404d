internal import CGevent

/// A counting semaphore: a number of permits, which waiters acquire in the order of their arrival.
///
/// ```swift
/// let slots = Semaphore(3)
/// try slots.withPermit { try download() }
/// ```
///
/// A permit that is released while greenlets wait is free until the first of them runs. Another greenlet may take it
/// before that; the waiter that was passed over is then handed the next permit. A semaphore may be created before any
/// hub exists, and belongs to the thread that first uses it.
///
/// In a file that imports Foundation or Glibc, which declare a type of the same name, write `Gevent.Semaphore`.
///
/// gevent: `gevent.lock.Semaphore`.
public class Semaphore: _WaitableObject, CustomStringConvertible {
    /// The number of free permits.
    ///
    /// gevent: `Semaphore.counter`.
    @exclusivity(unchecked) public internal(set) final var counter: Int
    /// The number of greenlets that were woken for a free permit and have not run yet.
    @exclusivity(unchecked) private final var chosenCount = 0
    /// The ticket of the greenlet that was woken last. Tickets order the greenlets that are passed over.
    @exclusivity(unchecked) private final var lastTicket: UInt = 0

    /// Creates a semaphore with `value` free permits. A negative number is a programming error and traps.
    public init(_ value: Int = 1) {
        if value < 0 { fatalError("a Semaphore begins with no less than 0 permits, not with \(value)") }
        counter = value
        super.init()
    }

    /// Whether no permit is free.
    ///
    /// gevent: `Semaphore.locked()`.
    public final var isLocked: Bool { counter == 0 }

    /// Whether a permit is free.
    public final override var isReady: Bool { counter > 0 }

    // MARK: Acquiring

    /// Acquires a permit; parks until one is free, or for at most `timeout`. Returns false if `timeout` expired. With
    /// `blocking: false` or a timeout of zero or less, returns false at once if no permit is free.
    ///
    /// Throws an error delivered to the greenlet meanwhile, without having acquired a permit; and ``HubError`` with
    /// `.wouldBlockForever` in main, `.wrongThread`, `.blockedInHub`.
    ///
    /// gevent: `Semaphore.acquire(blocking=True, timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public final func acquire(blocking: Bool = true, timeout: Duration? = nil) throws -> Bool {
        let hub = try hubBinding.hub()
        if counter > 0 {
            counter -= 1
            return true
        }
        return try waitForPermit(blocking ? timeout : .zero, hub)
    }

    /// Acquires a permit if one is free; see ``Waitable/takeIfReady()``.
    public final override func takeIfReady() throws -> Void? { try acquire(blocking: false) ? () : nil }

    /// Enlists a waiter, which acquires a permit unless it takes nothing; see ``Waitable/enlist(_:)``.
    public final override func enlist(_ waiter: Enlistment<Void>) throws {
        let hub = try hubBinding.hub()
        if counter > 0 {
            waiter.choose { counter -= 1 }
        } else {
            waiters.append(waiter, taking: Int(GEVENT_LINK_ACQUIRE), hub)
        }
    }

    private func waitForPermit(_ timeout: Duration?, _ hub: UnsafeMutablePointer<gevent_hub>) throws -> Bool {
        if let timeout, timeout <= .zero { return false }
        let deadline = timeout.map { Hub.time(hub).advanced(by: $0) }
        let current = hub.pointee.current!
        try checkPending(hub)
        waiters.append(&current.pointee.wait_link, kind: GEVENT_LINK_ACQUIRE, payload: nil, hub)
        guard try park(until: deadline, hub) else { return false }
        chosenCount -= 1
        if counter > 0 {
            counter -= 1
            return true
        }
        // Another greenlet took the permit. This one holds none that could be lost, so a pending error may be thrown.
        if let deadline, deadline <= Hub.time(hub) { return false }
        try checkPending(hub)
        requeue(current, hub)
        // The next permit is handed over directly, without becoming free.
        return try park(until: deadline, hub)
    }

    private func park(until deadline: LoopInstant?, _ hub: UnsafeMutablePointer<gevent_hub>) throws -> Bool {
        if let deadline { armDeadline(deadline, hub.pointee.current, hub) }
        return try GeventCore.wait(hub, .semaphore, self)
    }

    /// Links a passed-over waiter again: before all waiters that were not woken yet, after those with lower tickets.
    private func requeue(_ context: UnsafeMutablePointer<gevent_context>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        let ticket = UInt(bitPattern: context.pointee.wait_link.payload)
        let list = gevent_links_list(waiters.ensureRecord(hub))!
        var before = list.pointee.next!
        while before != list, isPassedOver(before, before: ticket) { before = before.pointee.next }
        context.pointee.wait_link.kind = UInt32(GEVENT_LINK_PASSED_OVER)
        // Appending to a circular list that starts at `before` inserts just before `before`.
        gevent_list_append(before, &context.pointee.wait_link.node)
    }

    private func isPassedOver(_ node: UnsafeMutablePointer<gevent_node>, before ticket: UInt) -> Bool {
        let link = UnsafeMutableRawPointer(node).assumingMemoryBound(to: gevent_link.self)
        return link.pointee.kind == GEVENT_LINK_PASSED_OVER && UInt(bitPattern: link.pointee.payload) < ticket
    }

    /// Acquires a permit, runs `body` and releases the permit on every exit. Throws the errors of
    /// ``acquire(blocking:timeout:)`` and of `body`.
    ///
    /// gevent: `with semaphore:`.
    @available(*, noasync)
    public final func withPermit<Value>(_ body: () throws -> Value) throws -> Value {
        try acquire()
        defer { release() }
        return try body()
    }

    // MARK: Releasing

    /// Releases a permit, or adds one, and returns the number of free permits. Never parks; works in a hub callback.
    /// Traps on a foreign thread.
    ///
    /// gevent: `Semaphore.release()`.
    @discardableResult
    @available(*, noasync)
    public func release() -> Int {
        let hub = hubBinding.requireHub()
        if !waiters.isEmpty { return releaseToWaiters(hub) }
        counter += 1
        if counter == 1 { recordReadiness(hub) }
        return counter
    }

    private func releaseToWaiters(_ hub: UnsafeMutablePointer<gevent_hub>) -> Int {
        if let first = waiters.first, first.pointee.kind == GEVENT_LINK_PASSED_OVER {
            gevent_wait_end(gevent_context_of_wait_link(first), UInt8(GEVENT_WAIT_WOKEN))
            return counter
        }
        counter += 1
        if counter == 1 { recordReadiness(hub) }
        // Wake as many waiters as there are permits. A waiter that takes nothing is notified if one of them is left.
        while counter > chosenCount, let link = waiters.first {
            if link.pointee.kind != GEVENT_LINK_ACQUIRE {
                notify(link)
            } else if link.pointee.place != 0 {
                // A waiter for several objects is chosen only once, so it is handed the permit directly.
                counter -= 1
                EnlistedWaiter.choose(link)
            } else {
                chosenCount += 1
                lastTicket += 1
                link.pointee.payload = UnsafeMutableRawPointer(bitPattern: lastTicket)
                gevent_wait_end(gevent_context_of_wait_link(link), UInt8(GEVENT_WAIT_WOKEN))
            }
        }
        recordWake(hub)
        return counter
    }

    // MARK: Waiting without acquiring

    /// Parks until a permit is free, or for at most `timeout`, without acquiring it. Returns the number of free
    /// permits, which may be 0: `timeout` expired, or another greenlet took the permit. Throws the errors of
    /// ``acquire(blocking:timeout:)``.
    ///
    /// gevent: `Semaphore.wait(timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public final func wait(timeout: Duration? = nil) throws -> Int {
        let hub = try hubBinding.hub()
        if counter > 0 {
            yieldToEarlierWaiters(hub, timeout)
        } else {
            _ = try park(hub, .semaphore, timeout)
        }
        return counter
    }

    /// "<Semaphore 2>": the number of free permits, and the number of waiters.
    public final var description: String {
        "<\(type(of: self)) \(counter)\(waiters.waitingText)>"
    }
}
