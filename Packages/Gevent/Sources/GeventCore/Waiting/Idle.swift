internal import CGevent

/// Parks until nothing else is runnable. Ready greenlets run first, and so do the waiters of ready descriptors and of
/// expired timers.
///
/// If the hub has no other work, the call returns after one poll that does not wait, so it never blocks forever. If
/// several greenlets wait, the hub resumes one at a time, in the order of their calls, each when the hub is idle again.
/// While the ready queue is never empty, for example because a callback queues itself again, the call does not return.
/// Throws an error delivered to the greenlet meanwhile.
///
/// gevent: `gevent.idle(priority=0)`.
@available(*, noasync)
public func idle() throws {
    let hub = try currentHub()
    try checkPending(hub)
    gevent_wait_set_list(hub, gevent_hub_idle_waiters(hub))
    _ = try wait(hub, .idle, nil)
}

extension Hub {
    /// Called after the hub has polled without waiting. Wakes the first idle waiter if neither the poll nor the timers
    /// due by now have made anything runnable.
    func wakeIdle() {
        fireTimers()
        guard gevent_ready_count(pointer) == 0, !handle.hasMail, let waiter = gevent_first_idle_waiter(pointer) else {
            return
        }
        gevent_wait_end(waiter, UInt8(GEVENT_WAIT_WOKEN))
    }
}
