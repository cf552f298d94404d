public import CGevent

/// Yields: everything already runnable goes first.
///
/// No poll is promised: timers and descriptors are looked at when nothing is ready, or when the ready ones have had
/// their turn. Throws what was thrown into the greenlet before: a kill, a ``Timeout``; ``HubError`` with
/// `.blockedInHub` in a hub callback; and ``ConfigurationError`` if it is the thread's first use of the hub and none
/// can be made.
///
/// gevent: `gevent.sleep(0)`.
@available(*, noasync)
@inlinable
public func sleep() throws {
    if !gevent_yield() { try yieldSlowly() }
}

/// There is no hub yet, or something to raise first.
@usableFromInline
@inline(never)
func yieldSlowly() throws {
    try checkPending(try currentHub())
    _ = gevent_yield()
}

/// Parks the current greenlet for at least `duration`, counted from the call.
///
/// Zero and negative durations are the yield, ``sleep()``. Throws what is thrown into the greenlet meanwhile, and what
/// ``sleep()`` throws.
///
/// Mind the label: `sleep(1)` without it is libc's, which blocks the thread and with it every greenlet.
///
/// gevent: `gevent.sleep(seconds)`.
@available(*, noasync)
public func sleep(for duration: Duration) throws {
    try sleep(for: duration, referenced: true)
}

/// Parks the current greenlet for at least `duration`; unless `referenced`, without keeping the hub waiting.
///
/// When nothing else can happen any more, a sleep that is not referenced blocks forever, which main is told by
/// ``HubError`` with `.wouldBlockForever`, and ``Hub/join(timeout:)`` does not wait for it. Zero and negative durations
/// are the yield. Throws what ``sleep(for:)`` throws.
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
