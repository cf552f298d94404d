internal import CGevent

/// Parks until nothing else is runnable: what is ready goes first, and so do descriptors that have become ready and
/// timers that are due.
///
/// With nothing else to do it returns after one poll that does not wait: waiting for idleness never blocks forever. Of
/// several that wait, one at a time goes on, in the order of their calls; the next waits until the hub is idle again.
/// While something is always ready, such as a callback that queues itself again, it does not return. Throws what
/// interrupts the greenlet.
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
    /// The hub has polled without waiting. If that, and the timers that are due by now, have made nothing runnable, the
    /// first that waits for this goes on.
    func wakeIdle() {
        fireTimers()
        guard gevent_ready_count(pointer) == 0, !handle.hasMail, let waiter = gevent_first_idle_waiter(pointer) else {
            return
        }
        gevent_wait_end(waiter, UInt8(GEVENT_WAIT_WOKEN))
    }
}
