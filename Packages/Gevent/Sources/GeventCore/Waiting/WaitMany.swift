// Waiting for many objects at once.

internal import CGevent

/// Collects which of many objects become ready, in that order, for the one greenlet that waits for them.
final class ReadyCollector {
    private let objects: [any Waitable]
    /// One for each object that keeps its links as nodes.
    private let nodes: UnsafeMutablePointer<gevent_link>
    /// The registrations with all others.
    private var tokens: [(index: Int, link: WaitLink)] = []
    /// Places in `objects`, in the order in which these became ready.
    @exclusivity(unchecked) private(set) var ready: [Int] = []
    /// Set only while its greenlet is parked here, so that no other wait of that greenlet is ended.
    @exclusivity(unchecked) private var waiter: UnsafeMutablePointer<gevent_context>?
    @exclusivity(unchecked) private var wanted = 0

    /// Takes down what is ready, and links to the rest unless that is enough.
    init(_ objects: [any Waitable], enough: Int, _ hub: UnsafeMutablePointer<gevent_hub>) throws {
        self.objects = objects
        nodes = .allocate(capacity: objects.count)
        nodes.initialize(repeating: gevent_link(), count: objects.count)
        for object in objects { try ReadyCollector.checkThread(object) }
        ready = ReadyCollector.readyNow(objects)
        if ready.count >= enough { return }
        for (index, object) in objects.enumerated() where !object.isReady { link(to: object, index, hub) }
    }

    deinit {
        // Whichever way the wait ended, nobody keeps a link to memory that goes away.
        for index in objects.indices { gevent_node_unlink(&nodes[index].node) }
        nodes.deallocate()
        for token in tokens {
            token.link.cancel()
            objects[token.index].unlink(token.link)
        }
    }

    private static func checkThread(_ object: any Waitable) throws {
        if let object = object as? WaitableObject {
            _ = try object.home.hub()
        } else if let greenlet = object as? JoinableGreenlet {
            _ = try greenlet.ownHub()
        }
    }

    /// In the order in which they became ready, as far as that is known; others come behind, as they stand in the list.
    private static func readyNow(_ objects: [any Waitable]) -> [Int] {
        let found = objects.indices.filter { objects[$0].isReady }
        if found.count < 2 { return found }
        let orders = found.map { (order(objects[$0]), $0) }
        return orders.sorted { $0 < $1 }.map(\.1)
    }

    private static func order(_ object: any Waitable) -> UInt64 {
        if let object = object as? WaitableObject { return object.readyOrder }
        return (object as? JoinableGreenlet)?.endOrder ?? .max
    }

    private func link(to object: any Waitable, _ index: Int, _ hub: UnsafeMutablePointer<gevent_hub>) {
        let own = Unmanaged.passUnretained(self).toOpaque()
        if let object = object as? WaitableObject {
            object.line.append(nodes + index, kind: Int(GEVENT_LINK_COLLECT), payload: own, hub)
        } else if let greenlet = object as? JoinableGreenlet {
            greenlet.append(nodes + index, kind: Int(GEVENT_LINK_COLLECT), payload: own, hub)
        } else {
            tokens.append((index, object.rawLink { [weak self] in self?.isReady(index) }))
        }
    }

    /// One of the nodes was told, and stands in no list any more.
    func told(_ node: UnsafeMutablePointer<gevent_link>) { isReady(node - nodes) }

    private func isReady(_ index: Int) {
        ready.append(index)
        if let waiter, ready.count >= wanted { gevent_wait_end(waiter, UInt8(GEVENT_WAIT_WOKEN)) }
    }

    /// Parks until as many as `wanted` are ready. Returns whether they were before the deadline.
    func wait(
        for wanted: Int, until deadline: LoopInstant?, _ kind: WaitKind, _ hub: UnsafeMutablePointer<gevent_hub>
    ) throws -> Bool {
        if ready.count >= wanted { return true }
        if let deadline, deadline <= Hub.time(hub) { return false }
        try attend(hub)
        let current = hub.pointee.current!
        if let deadline { armDeadline(deadline, current, hub) }
        self.wanted = wanted
        waiter = current
        defer { waiter = nil }
        return try GeventCore.wait(hub, kind, nil)
    }
}

/// The places of those that are ready, in the order in which they became ready.
private func readyPlaces(
    in objects: [any Waitable], timeout: Duration?, count: Int?
) throws -> [Int] {
    let enough = min(objects.count, max(count ?? objects.count, 0))
    if enough == 0 { return [] }
    let hub = try currentHub()
    let collector = try ReadyCollector(objects, enough: enough, hub)
    let deadline = timeout.map { Hub.time(hub).advanced(by: $0) }
    _ = try withExtendedLifetime(collector) { try collector.wait(for: enough, until: deadline, .waitMany, hub) }
    return Array(collector.ready.prefix(enough))
}

/// Runs the hub until nothing is left to do, or for at most `timeout`. Returns whether it ran out of work.
///
/// Greenlets parked where nobody can wake them do not count as work. From main only, like ``Hub/join(timeout:)``, which
/// this is.
///
/// gevent: `gevent.wait(timeout=None)`.
@available(*, noasync)
@discardableResult
public func wait(timeout: Duration? = nil) throws -> Bool {
    try Hub.of(currentHub()).join(timeout: timeout)
}

/// Parks until all of `objects` are ready, or `count` of them, or for at most `timeout`. Returns those that are, in the
/// order in which they became ready; a duplicate counts, and is returned, each time.
///
/// The timeout is silent and gives the partial list; one of zero or less only looks. A count of zero or less, and an
/// empty list, give an empty list at once. Nothing is taken from what is waited for: a ``Semaphore`` keeps its permits.
/// An ``Event`` that was set counts even if it is cleared by the time this returns. Throws what interrupts the caller:
/// a kill, a ``Timeout`` started elsewhere; and ``HubError`` with `.wouldBlockForever` in main, `.wrongThread`,
/// `.blockedInHub`.
///
/// gevent: `gevent.wait(objects, timeout=None, count=None)`.
@available(*, noasync)
@discardableResult
public func wait<Object: Waitable>(
    _ objects: some Sequence<Object>, timeout: Duration? = nil, count: Int? = nil
) throws -> [Object] {
    let objects = Array(objects)
    return try readyPlaces(in: objects, timeout: timeout, count: count).map { objects[$0] }
}

/// The same for objects of several kinds.
@_disfavoredOverload  // a list literal of one kind is a list of that kind
@available(*, noasync)
@discardableResult
public func wait(
    _ objects: [any Waitable], timeout: Duration? = nil, count: Int? = nil
) throws -> [any Waitable] {
    try readyPlaces(in: objects, timeout: timeout, count: count).map { objects[$0] }
}

/// Calls `body` with each of `objects` as soon as it is ready, in the order in which they become ready, until all were,
/// or `count` of them, or the time is up. Returns how many it was called with.
///
/// All objects are linked before the first call, and a call may park without any being lost; the time counts from the
/// start and includes what `body` takes, but does not interrupt it. Whichever way this ends, also by an error of
/// `body`, every link is removed. Otherwise like ``wait(_:timeout:count:)->[Object]``; and it throws ``HubError`` with
/// `.destroyed` if a call has destroyed the hub and there is more to wait for.
///
/// ```swift
/// try iwait(downloads, timeout: .seconds(10)) { download in
///     try show(download.get())
/// }
/// ```
///
/// gevent: `gevent.iwait(objects, timeout=None, count=None)`.
@available(*, noasync)
@discardableResult
public func iwait<Object: Waitable>(
    _ objects: some Sequence<Object>, timeout: Duration? = nil, count: Int? = nil, _ body: (Object) throws -> Void
) throws -> Int {
    let objects = Array(objects)
    return try eachReady(in: objects, timeout: timeout, count: count) { place, _ in try body(objects[place]) }
}

/// The same with a block that can end it, as `break` ends a loop: this returns once the block has set its second
/// argument and returned.
///
/// ```swift
/// try iwait(searches) { search, stop in
///     if let found = search.value { stop = true; show(found) }
/// }
/// ```
@available(*, noasync)
@discardableResult
public func iwait<Object: Waitable>(
    _ objects: some Sequence<Object>, timeout: Duration? = nil, count: Int? = nil,
    _ body: (_ object: Object, _ stop: inout Bool) throws -> Void
) throws -> Int {
    let objects = Array(objects)
    return try eachReady(in: objects, timeout: timeout, count: count) { try body(objects[$0], &$1) }
}

/// The same for objects of several kinds.
@_disfavoredOverload  // a list literal of one kind is a list of that kind
@available(*, noasync)
@discardableResult
public func iwait(
    _ objects: [any Waitable], timeout: Duration? = nil, count: Int? = nil, _ body: (any Waitable) throws -> Void
) throws -> Int {
    try eachReady(in: objects, timeout: timeout, count: count) { place, _ in try body(objects[place]) }
}

/// The same for objects of several kinds, with a block that can end it.
@_disfavoredOverload  // a list literal of one kind is a list of that kind
@available(*, noasync)
@discardableResult
public func iwait(
    _ objects: [any Waitable], timeout: Duration? = nil, count: Int? = nil,
    _ body: (_ object: any Waitable, _ stop: inout Bool) throws -> Void
) throws -> Int {
    try eachReady(in: objects, timeout: timeout, count: count) { try body(objects[$0], &$1) }
}

private func eachReady(
    in objects: [any Waitable], timeout: Duration?, count: Int?, _ body: (Int, inout Bool) throws -> Void
) throws -> Int {
    let enough = min(objects.count, max(count ?? objects.count, 0))
    if enough == 0 { return 0 }
    let hub = try currentHub()
    let collector = try ReadyCollector(objects, enough: enough, hub)
    let deadline = timeout.map { Hub.time(hub).advanced(by: $0) }
    let serial = hub.pointee.serial
    return try withExtendedLifetime(collector) {
        var given = 0
        // A local that nothing captures, so the access that is open while `body` parks is not one the runtime tracks.
        var stop = false
        while given < enough, !stop {
            // In main the block may have destroyed the hub. What is ready is given all the same.
            if collector.ready.count == given, gevent_hub_current()?.pointee.serial != serial {
                throw HubError.destroyed
            }
            guard try collector.wait(for: given + 1, until: deadline, .iwait, hub) else { break }
            given += 1
            try body(collector.ready[given - 1], &stop)
        }
        return given
    }
}
