internal import CGevent

/// Parks the current greenlet for at least `duration`, counted from the call.
///
/// Zero, the default, and negative durations are the cooperative yield: everything already runnable goes first, and no
/// poll is promised. Throws what is thrown into the greenlet meanwhile: a kill, a ``Timeout``; ``HubError`` with
/// `.blockedInHub` in a hub callback; and ``ConfigurationError`` if it is the thread's first use of the hub and none
/// can be made.
///
/// Mind the label: `sleep(1)` without it is libc's, which blocks the thread and with it every greenlet.
///
/// gevent: `gevent.sleep(seconds=0)`.
@available(*, noasync)
public func sleep(for duration: Duration = .zero) throws {
    let hub = try currentHub()
    try attend(hub)
    if duration <= .zero {
        gevent_yield(hub)
        return
    }
    let now = Hub.time(hub)
    gevent_wait_set_timer(
        hub, hub.pointee.current, now.advanced(by: duration).nanoseconds, now.nanoseconds, UInt32(GEVENT_TIMER_WAKE),
        true)
    _ = try wait(hub, .sleep, nil)
}
