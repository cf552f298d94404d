// Waiting for many objects at once.

internal import CGevent

/// Calls `body` with a waiter that is enlisted with each of the objects, the number of objects to wait for, the
/// deadline and the hub. Returns `none` if there is nothing to wait for.
private func withWaiter<Result>(
    for objects: [any Waitable], timeout: Duration?, count: Int?, none: Result,
    _ body: (MultiWait, Int, LoopInstant?, UnsafeMutablePointer<gevent_hub>) throws -> Result
) throws -> Result {
    let requiredCount = min(objects.count, max(count ?? objects.count, 0))
    if requiredCount == 0 { return none }
    let hub = try currentHub()
    let deadline = timeout.map { Hub.time(hub).advanced(by: $0) }
    let waiter = MultiWait(count: objects.count, requiredCount: requiredCount, hub)
    // Withdraws the waiter from every object, however the wait ends.
    defer { for (index, object) in objects.enumerated() { waiter.withdraw(from: object, at: index) } }
    let orders = try objects.map { try $0.readyOrder() }
    // Sorted by the order in which they became ready. Objects whose order is unknown follow in list order.
    let ready = objects.indices.filter { orders[$0] != nil }.sorted { (orders[$0]!, $0) < (orders[$1]!, $1) }
    for index in ready { waiter.countReady(index) }
    if ready.count < requiredCount {
        for (index, object) in objects.enumerated() where orders[index] == nil {
            try waiter.enlist(with: object, at: index)
        }
    }
    return try body(waiter, requiredCount, deadline, hub)
}

/// Waits for the objects, and returns the indices of the ready ones in the order in which they became ready.
private func readyIndices(in objects: [any Waitable], timeout: Duration?, count: Int?) throws -> [Int] {
    try withWaiter(for: objects, timeout: timeout, count: count, none: []) { waiter, requiredCount, deadline, hub in
        _ = try waiter.wait(for: requiredCount, until: deadline, .waitMany, hub)
        return Array(waiter.chosen.prefix(requiredCount))
    }
}

/// Runs the hub until it has no work left, or for at most `timeout`. Returns whether it ran out of work.
///
/// Parked greenlets that nothing can wake do not count as work. Calls ``Hub/join(timeout:)``, so only main may call it.
///
/// gevent: `gevent.wait(timeout=None)`.
@available(*, noasync)
@discardableResult
public func wait(timeout: Duration? = nil) throws -> Bool {
    try Hub.of(currentHub()).join(timeout: timeout)
}

/// Parks until all of `objects` are ready, or `count` of them, or for at most `timeout`. Returns the objects that are
/// ready, in the order in which they became ready. A duplicate counts, and is returned, each time.
///
/// When the timeout expires, the function returns a partial list and throws nothing. With a timeout of zero or less it
/// returns the objects that are ready now, without parking. A count of zero or less, or an empty list, returns an empty
/// list at once. The objects keep what they have: a ``Semaphore`` keeps its permits. An ``Event`` that was set counts
/// even if it is cleared before this returns. Throws an error delivered to the greenlet meanwhile, such as a kill or
/// another ``Timeout``; and ``HubError`` with `.wouldBlockForever` in main, `.wrongThread`, `.blockedInHub`.
///
/// gevent: `gevent.wait(objects, timeout=None, count=None)`.
@available(*, noasync)
@discardableResult
public func wait<Object: Waitable>(
    _ objects: some Sequence<Object>, timeout: Duration? = nil, count: Int? = nil
) throws -> [Object] {
    let objects = Array(objects)
    return try readyIndices(in: objects, timeout: timeout, count: count).map { objects[$0] }
}

/// Waits like ``wait(_:timeout:count:)->[Object]``, for objects of different types.
@_disfavoredOverload  // a list literal of one kind is a list of that kind
@available(*, noasync)
@discardableResult
public func wait(
    _ objects: [any Waitable], timeout: Duration? = nil, count: Int? = nil
) throws -> [any Waitable] {
    try readyIndices(in: objects, timeout: timeout, count: count).map { objects[$0] }
}

/// Calls `body` with each of `objects` as soon as the object is ready, in the order in which they become ready. Stops
/// after all of them or `count` of them, when the timeout expires, or when `body` returns with its second argument set
/// to true. Returns the number of calls.
///
/// ```swift
/// try iwait(searches, timeout: .seconds(10)) { search, stop in
///     if let found = search.value { stop = true; show(found) }
/// }
/// ```
///
/// The waiter is enlisted with all objects before the first call, so `body` may park and no object is missed. The
/// timeout runs from the call of `iwait` and includes the time spent in `body`, but does not interrupt `body`. However
/// the call ends, also by an error of `body`, the waiter is withdrawn from all objects. Otherwise like
/// ``wait(_:timeout:count:)->[Object]``. Also throws ``HubError`` with `.destroyed` if `body` has destroyed the hub and
/// `iwait` would have to wait again.
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

/// Works like the other `iwait`, for objects of different types.
// A separate function, since `any Waitable` does not conform to Waitable.
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
    try withWaiter(for: objects, timeout: timeout, count: count, none: 0) { waiter, requiredCount, deadline, hub in
        let serial = hub.pointee.serial
        var callCount = 0
        // No closure captures this local, so the runtime does not track the access that is open while `body` parks.
        var stop = false
        while callCount < requiredCount, !stop {
            // In main `body` may have destroyed the hub. It is still called with the objects that are ready.
            if waiter.chosen.count == callCount, gevent_hub_current()?.pointee.serial != serial {
                throw HubError.destroyed
            }
            guard try waiter.wait(for: callCount + 1, until: deadline, .iwait, hub) else { break }
            callCount += 1
            try body(waiter.chosen[callCount - 1], &stop)
        }
        return callCount
    }
}
