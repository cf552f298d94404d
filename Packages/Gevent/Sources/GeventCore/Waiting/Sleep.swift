public import CGevent

/// Yields: every greenlet that is already in the ready queue runs first.
///
/// A yield does not guarantee a poll: the hub checks timers and descriptors when the ready queue is empty, or when its
/// bound on a run is reached; see ``Hub/switchInterval``. Throws the pending error of the greenlet, such as a kill or a
/// ``Timeout``; ``HubError`` with `.blockedInHub` in a hub callback; and the errors of ``Hub/start()`` if this is the
/// thread's first use of the hub and none can be created.
///
/// gevent: `gevent.sleep(0)`.
@available(*, noasync)
@inlinable
public func sleep() throws {
    if !gevent_yield() { try yieldSlowly() }
}

/// The slow path of ``sleep()``: there is no hub yet, or an error to throw.
@usableFromInline
@inline(never)
func yieldSlowly() throws {
    try checkPending(try currentHub())
    _ = gevent_yield()
}

/// Parks the current greenlet for at least `duration`, counted from the call.
///
/// A duration of zero or less yields, like ``sleep()``. Throws an error delivered to the greenlet meanwhile, and the
/// errors of ``sleep()``.
///
/// The label matters: `sleep(1)` without it is the C library's function, which blocks the thread and every greenlet.
///
/// gevent: `gevent.sleep(seconds)`.
@available(*, noasync)
public func sleep(for duration: Duration) throws {
    try sleep(for: duration, referenced: true)
}

/// Parks the current greenlet for at least `duration`; unless `referenced`, without keeping the hub waiting.
///
/// ``Hub/join(timeout:)`` does not wait for a sleep that is not referenced. If nothing else can happen, such a sleep
/// blocks forever; in main it throws ``HubError`` with `.wouldBlockForever` instead. A duration of zero or less yields.
/// Throws the errors of ``sleep(for:)``.
///
/// gevent: `gevent.sleep(seconds, ref=True)`.
@available(*, noasync)
public func sleep(for duration: Duration, referenced: Bool) throws {
    if duration <= .zero { return try sleep() }
    let hub = try currentHub()
    try checkPending(hub)
    let now = Hub.time(hub)
    gevent_wait_set_timer(
        hub, hub.pointee.current, now.advanced(by: duration).nanoseconds, now.nanoseconds, UInt32(GEVENT_TIMER_WAKE),
        referenced)
    _ = try wait(hub, .sleep, nil)
}
