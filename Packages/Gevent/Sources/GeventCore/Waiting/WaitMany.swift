// Waiting for many objects at once.

internal import CGevent

/// The objects that a greenlet waits for, and its place in the list of each.
private struct ManyObjects {
    let objects: [any Waitable]
    let waiter: MultiWait

    /// Counts what is ready, and enlists with the rest unless that is enough.
    init(_ objects: [any Waitable], enough: Int, _ hub: UnsafeMutablePointer<gevent_hub>) throws {
        self.objects = objects
        waiter = MultiWait(count: objects.count, enough: enough, hub)
        let orders = try objects.map { try $0.readyOrder() }
        // In the order in which they became ready, as far as that is known; others come behind, as they are listed.
        let ready = objects.indices.filter { orders[$0] != nil }.sorted { (orders[$0]!, $0) < (orders[$1]!, $1) }
        for place in ready { waiter.note(place) }
        if ready.count >= enough { return }
        do {
            for (place, object) in objects.enumerated() where orders[place] == nil {
                try waiter.enlist(with: object, at: place)
            }
        } catch {
            withdraw()
            throw error
        }
    }

    /// However the wait ended, no object keeps the waiter.
    func withdraw() {
        for (place, object) in objects.enumerated() { waiter.withdraw(from: object, at: place) }
    }
}

/// The places of those that are ready, in the order in which they became ready.
private func readyPlaces(
    in objects: [any Waitable], timeout: Duration?, count: Int?
) throws -> [Int] {
    let enough = min(objects.count, max(count ?? objects.count, 0))
    if enough == 0 { return [] }
    let hub = try currentHub()
    let deadline = timeout.map { Hub.time(hub).advanced(by: $0) }
    let many = try ManyObjects(objects, enough: enough, hub)
    defer { many.withdraw() }
    _ = try many.waiter.wait(for: enough, until: deadline, .waitMany, hub)
    return Array(many.waiter.chosen.prefix(enough))
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
/// or `count` of them, or the time is up, or `body` sets its second argument and returns. Returns how many it was
/// called with.
///
/// ```swift
/// try iwait(searches, timeout: .seconds(10)) { search, stop in
///     if let found = search.value { stop = true; show(found) }
/// }
/// ```
///
/// The waiter is enlisted with all objects before the first call, and a call may park without any being lost; the time
/// counts from the start and includes what `body` takes, but does not interrupt it. However this ends, also by an error
/// of `body`, the waiter is withdrawn from all objects. Otherwise like ``wait(_:timeout:count:)->[Object]``; and it
/// throws ``HubError`` with `.destroyed` if a call has destroyed the hub and there is more to wait for.
///
/// gevent: `gevent.iwait(objects, timeout=None, count=None)`; `stop` is its `break`.
@available(*, noasync)
@discardableResult
public func iwait<Object: Waitable>(
    _ objects: some Sequence<Object>, timeout: Duration? = nil, count: Int? = nil,
    _ body: (Object, inout Bool) throws -> Void
) throws -> Int {
    let objects = Array(objects)
    return try eachReady(in: objects, timeout: timeout, count: count) { try body(objects[$0], &$1) }
}

/// The same for objects of several kinds.
// A function of its own, since `any Waitable` is no Waitable.
@_disfavoredOverload  // a list literal of one kind is a list of that kind
@available(*, noasync)
@discardableResult
public func iwait(
    _ objects: [any Waitable], timeout: Duration? = nil, count: Int? = nil,
    _ body: (any Waitable, inout Bool) throws -> Void
) throws -> Int {
    try eachReady(in: objects, timeout: timeout, count: count) { try body(objects[$0], &$1) }
}

private func eachReady(
    in objects: [any Waitable], timeout: Duration?, count: Int?, _ body: (Int, inout Bool) throws -> Void
) throws -> Int {
    let enough = min(objects.count, max(count ?? objects.count, 0))
    if enough == 0 { return 0 }
    let hub = try currentHub()
    let deadline = timeout.map { Hub.time(hub).advanced(by: $0) }
    let serial = hub.pointee.serial
    let many = try ManyObjects(objects, enough: enough, hub)
    defer { many.withdraw() }
    var given = 0
    // A local that nothing captures, so the access that is open while `body` parks is not one the runtime tracks.
    var stop = false
    while given < enough, !stop {
        // In main the block may have destroyed the hub. What is ready is given all the same.
        if many.waiter.chosen.count == given, gevent_hub_current()?.pointee.serial != serial {
            throw HubError.destroyed
        }
        guard try many.waiter.wait(for: given + 1, until: deadline, .iwait, hub) else { break }
        given += 1
        try body(many.waiter.chosen[given - 1], &stop)
    }
    return given
}
