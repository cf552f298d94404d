internal import CGevent

/// Calls a closure on the hub at an instant. One at a time; while it is pending its record retains it.
final class HubTimer {
    private let hub: UnsafeMutablePointer<gevent_hub>
    private let onFire: () -> Void
    private var record: UnsafeMutablePointer<gevent_deferred>?

    init(_ hub: UnsafeMutablePointer<gevent_hub>, onFire: @escaping () -> Void) {
        self.hub = hub
        self.onFire = onFire
    }

    /// Starts it, in place of a start that is pending.
    func start(at deadline: LoopInstant, now: LoopInstant, referenced: Bool) {
        cancel()
        let record = gevent_deferred_take(hub)!
        record.pointee.timer.kind = UInt8(GEVENT_TIMER_CALLBACK)
        record.pointee.timer.payload = Unmanaged.passRetained(self).toOpaque()
        record.pointee.timer.referenced = referenced
        gevent_timers_start(&hub.pointee.timers, &record.pointee.timer, deadline.nanoseconds, now.nanoseconds)
        self.record = record
    }

    /// Harmless if it is not pending.
    func cancel() {
        guard let record else { return }
        self.record = nil
        gevent_timers_cancel(&hub.pointee.timers, &record.pointee.timer)
        gevent_record_release(hub, record)
        Unmanaged.passUnretained(self).release()
    }

    /// It is due, and no longer pending.
    static func fire(_ record: UnsafeMutablePointer<gevent_deferred>) {
        let timer = Unmanaged<HubTimer>.fromOpaque(record.pointee.timer.payload).takeRetainedValue()
        timer.record = nil
        gevent_record_release(timer.hub, record)
        timer.onFire()
    }
}
