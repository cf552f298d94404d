internal import CGevent

/// A timer that calls a closure on the hub at an instant. It has one deadline at a time; while it is pending its record
/// retains it.
final class HubTimer {
    private let hub: UnsafeMutablePointer<gevent_hub>
    private let onFire: () -> Void
    private var record: UnsafeMutablePointer<gevent_deferred>?

    init(_ hub: UnsafeMutablePointer<gevent_hub>, onFire: @escaping () -> Void) {
        self.hub = hub
        self.onFire = onFire
    }

    /// Starts the timer, replacing a pending deadline.
    func start(at deadline: LoopInstant, now: LoopInstant, referenced: Bool) {
        cancel()
        let record = gevent_deferred_take(hub)!
        record.pointee.timer.kind = UInt8(GEVENT_TIMER_CALLBACK)
        record.pointee.timer.payload = Unmanaged.passRetained(self).toOpaque()
        record.pointee.timer.referenced = referenced
        gevent_timers_start(&hub.pointee.timers, &record.pointee.timer, deadline.nanoseconds, now.nanoseconds)
        self.record = record
    }

    /// Cancels the timer if it is pending.
    func cancel() {
        guard let record else { return }
        self.record = nil
        gevent_timers_cancel(&hub.pointee.timers, &record.pointee.timer)
        gevent_record_release(hub, record)
        Unmanaged.passUnretained(self).release()
    }

    /// Calls the closure of a timer that is due and no longer pending.
    static func fire(_ record: UnsafeMutablePointer<gevent_deferred>) {
        let timer = Unmanaged<HubTimer>.fromOpaque(record.pointee.timer.payload).takeRetainedValue()
        timer.record = nil
        gevent_record_release(timer.hub, record)
        timer.onFire()
    }
}
