internal import CGevent

/// A number of permits, handed out in the order in which greenlets ask.
///
/// ```swift
/// let slots = Semaphore(3)
/// try slots.withPermit { try download() }
/// ```
///
/// A permit that is released while others wait is free until the first of them runs, and a running greenlet may take
/// it; whoever was passed over that way is handed the next one. May be made before any hub exists; belongs to the
/// thread that first uses it.
///
/// In a file that imports Foundation or Glibc, which bring a type of that name too, write `Gevent.Semaphore`.
///
/// gevent: `gevent.lock.Semaphore`.
public class Semaphore: _WaitableObject, CustomStringConvertible {
    /// How many permits are free.
    ///
    /// gevent: `Semaphore.counter`.
    @exclusivity(unchecked) public internal(set) final var counter: Int
    /// Greenlets that were woken for a free permit and have not run yet.
    @exclusivity(unchecked) private final var chosenCount = 0
    /// How many were ever chosen, which gives each its place.
    @exclusivity(unchecked) private final var lastPlace: UInt = 0

    /// A semaphore with `value` free permits. A negative number is a programming error and traps.
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

    /// Takes a permit; parks until there is one, or for at most `timeout`. Returns whether it has one: false when the
    /// time is up, and at once for `blocking: false` or a timeout of zero or less if none is free.
    ///
    /// Throws what is thrown into the greenlet meanwhile, with which it has no permit; ``HubError`` with
    /// `.wouldBlockForever` in main, `.wrongThread`, `.blockedInHub`.
    ///
    /// gevent: `Semaphore.acquire(blocking=True, timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public final func acquire(blocking: Bool = true, timeout: Duration? = nil) throws -> Bool {
        let hub = try home.hub()
        if counter > 0 {
            counter -= 1
            return true
        }
        return try waitForPermit(blocking ? timeout : .zero, hub)
    }

    /// Takes a permit if one is free; see ``Waitable/takeIfReady()``.
    public final override func takeIfReady() throws -> Void? { try acquire(blocking: false) ? () : nil }

    /// A waiter that takes something takes a permit; see ``Waitable/enlist(_:)``.
    public final override func enlist(_ waiter: Enlistment<Void>) throws {
        let hub = try home.hub()
        if counter > 0 {
            waiter.choose { counter -= 1 }
        } else {
            line.append(waiter, taking: Int(GEVENT_LINK_ACQUIRE), hub)
        }
    }

    private func waitForPermit(_ timeout: Duration?, _ hub: UnsafeMutablePointer<gevent_hub>) throws -> Bool {
        if let timeout, timeout <= .zero { return false }
        let deadline = timeout.map { Hub.time(hub).advanced(by: $0) }
        let current = hub.pointee.current!
        try checkPending(hub)
        line.append(&current.pointee.wait_link, kind: GEVENT_LINK_ACQUIRE, payload: nil, hub)
        guard try park(until: deadline, hub) else { return false }
        chosenCount -= 1
        if counter > 0 {
            counter -= 1
            return true
        }
        // Somebody else took it. There is none to pass on, so an error that came meanwhile may be raised now.
        if let deadline, deadline <= Hub.time(hub) { return false }
        try checkPending(hub)
        returnToLine(current, hub)
        // The next permit is handed over as such.
        return try park(until: deadline, hub)
    }

    private func park(until deadline: LoopInstant?, _ hub: UnsafeMutablePointer<gevent_hub>) throws -> Bool {
        if let deadline { armDeadline(deadline, hub.pointee.current, hub) }
        return try GeventCore.wait(hub, .semaphore, self)
    }

    /// Goes before everyone who was not chosen yet, and behind those who were chosen before.
    private func returnToLine(_ context: UnsafeMutablePointer<gevent_context>, _ hub: UnsafeMutablePointer<gevent_hub>)
    {
        let place = UInt(bitPattern: context.pointee.wait_link.payload)
        let list = gevent_links_list(line.ensureRecord(hub))!
        var before = list.pointee.next!
        while before != list, isPassedOver(before, before: place) { before = before.pointee.next }
        context.pointee.wait_link.kind = UInt32(GEVENT_LINK_PASSED_OVER)
        // Behind the last of a list that begins with `before` is just before `before`.
        gevent_list_append(before, &context.pointee.wait_link.node)
    }

    private func isPassedOver(_ node: UnsafeMutablePointer<gevent_node>, before place: UInt) -> Bool {
        let link = UnsafeMutableRawPointer(node).assumingMemoryBound(to: gevent_link.self)
        return link.pointee.kind == GEVENT_LINK_PASSED_OVER && UInt(bitPattern: link.pointee.payload) < place
    }

    /// Takes a permit, runs `body` and releases the permit, whichever way `body` ends. Throws what
    /// ``acquire(blocking:timeout:)`` and `body` throw.
    ///
    /// gevent: `with semaphore:`.
    @available(*, noasync)
    public final func withPermit<Value>(_ body: () throws -> Value) throws -> Value {
        try acquire()
        defer { release() }
        return try body()
    }

    // MARK: Releasing

    /// Gives a permit back, or one more, and returns how many are free then. Never parks; works in a hub callback.
    /// Traps on a foreign thread.
    ///
    /// gevent: `Semaphore.release()`.
    @discardableResult
    @available(*, noasync)
    public func release() -> Int {
        let hub = home.requireHub()
        if !line.isEmpty { return releaseToLine(hub) }
        counter += 1
        if counter == 1 { recordReadiness(hub) }
        return counter
    }

    private func releaseToLine(_ hub: UnsafeMutablePointer<gevent_hub>) -> Int {
        if let first = line.first, first.pointee.kind == GEVENT_LINK_PASSED_OVER {
            gevent_wait_end(gevent_context_of_wait_link(first), UInt8(GEVENT_WAIT_WOKEN))
            return counter
        }
        counter += 1
        if counter == 1 { recordReadiness(hub) }
        // As many are chosen as there are permits; those who only want to know are told as long as one is left for
        // them.
        while counter > chosenCount, let link = line.first {
            if link.pointee.kind != GEVENT_LINK_ACQUIRE {
                tell(link)
            } else if link.pointee.place != 0 {
                // A waiter for several objects is chosen once, so it is handed the permit as such.
                counter -= 1
                EnlistedWaiter.choose(link)
            } else {
                chosenCount += 1
                lastPlace += 1
                link.pointee.payload = UnsafeMutableRawPointer(bitPattern: lastPlace)
                gevent_wait_end(gevent_context_of_wait_link(link), UInt8(GEVENT_WAIT_WOKEN))
            }
        }
        recordWake(hub)
        return counter
    }

    // MARK: Waiting without taking

    /// Parks until a permit is free, or for at most `timeout`, and takes none. Returns how many are free by then:
    /// possibly none, when the time is up or somebody was quicker. Throws what ``acquire(blocking:timeout:)`` throws.
    ///
    /// gevent: `Semaphore.wait(timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public final func wait(timeout: Duration? = nil) throws -> Int {
        let hub = try home.hub()
        if counter > 0 {
            yieldToEarlierWaiters(hub, timeout)
        } else {
            _ = try park(hub, .semaphore, timeout)
        }
        return counter
    }

    /// "<Semaphore 2>", the free permits, and how many wait.
    public final var description: String {
        "<\(type(of: self)) \(counter)\(line.waitingText)>"
    }
}
