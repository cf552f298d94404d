internal import CGevent

/// A timer that runs a closure repeatedly, at fixed intervals from its start. ``every(_:startingAfter:referenced:_:)``
/// returns it.
///
/// Each tick runs in a new greenlet, so it may park. Two ticks never run at a time: a tick that is due while the
/// previous one still runs is skipped and counted, and so are ticks that the hub was too busy to start in time. Between
/// ticks only a timer exists. The hub passes an error to its ``Hub/errorHandler``, and the timer continues.
///
/// The timer runs until it is cancelled or its hub is destroyed, even if no reference to it is kept. Confined to the
/// thread of its hub.
///
/// gevent: `loop.timer(after, repeat)`.
public final class PeriodicTimer: Registration {
    /// The time from one tick to the next.
    public let interval: Duration
    /// The number of ticks that have started the closure.
    public private(set) var tickCount = 0
    /// The number of ticks that were skipped because the previous one was still running or the hub was busy.
    public private(set) var skippedTicks = 0

    private let hub: Hub
    private let firstTick: LoopInstant
    /// The number of the next tick, counted from 0 at ``firstTick``.
    private var nextTick: Int128 = 0
    private var keepsHubWaiting: Bool
    /// The closure; nil once the timer is cancelled.
    private var body: (() throws -> Void)?
    private var timer: HubTimer?
    private var isRunning = false

    init(
        _ hub: Hub, _ interval: Duration, startingAfter delay: Duration, referenced: Bool,
        _ body: @escaping () throws -> Void
    ) {
        self.hub = hub
        self.interval = interval
        self.body = body
        keepsHubWaiting = referenced
        let now = hub.now
        firstTick = now.advanced(by: delay)
        super.init()
        timer = HubTimer(hub.pointer) { [unowned self] in tick() }
        startTimer(now)
        hub.periodicTimers.add(self)
    }

    /// Whether the timer keeps the hub waiting; false once it is cancelled.
    ///
    /// gevent: `timer.ref`.
    public var isReferenced: Bool {
        get { isActive && keepsHubWaiting }
        set {
            if !isActive || newValue == keepsHubWaiting { return }
            if gevent_hub_current() != hub.pointer { fatalError("\(HubError.wrongThread)") }
            keepsHubWaiting = newValue
            startTimer(hub.now)
        }
    }

    /// Whether the timer has not been cancelled.
    public override var isActive: Bool { body != nil }

    /// Prevents further ticks. A running tick is not interrupted; a tick whose greenlet has not run yet does not call
    /// the closure. Repeatable.
    ///
    /// gevent: `timer.stop()`.
    public override func cancel() {
        if !isActive { return }
        if gevent_hub_current() != hub.pointer { fatalError("\(HubError.wrongThread)") }
        stop()
        hub.periodicTimers.remove(self)
    }

    func stop() {
        timer?.cancel()
        timer = nil
        body = nil
    }

    private func startTimer(_ now: LoopInstant) {
        // Computed from the first tick each time, so that errors do not accumulate.
        let (offset, overflows) = interval.attoseconds.multipliedReportingOverflow(by: nextTick)
        let deadline = overflows ? .distantFuture : firstTick.advanced(by: Duration(attoseconds: offset))
        timer?.start(at: deadline, now: now, referenced: keepsHubWaiting)
    }

    private func tick() {
        let now = hub.now
        // The latest tick that is due. The ticks before it are skipped.
        let latest = max(firstTick.duration(to: now).attoseconds / interval.attoseconds, nextTick)
        let (skipped, overflows) = skippedTicks.addingReportingOverflow(Int(clamping: latest - nextTick))
        skippedTicks = overflows ? .max : skipped
        nextTick = latest + 1
        startTimer(now)
        if isRunning {
            skippedTicks += skippedTicks < .max ? 1 : 0
            return
        }
        isRunning = true
        tickCount += 1
        let completion = DeinitAction { [weak self] in self?.isRunning = false }
        RawGreenlet(hub: hub.pointer) { [self] in
            try withExtendedLifetime(completion) { try body?() }
        }.start(hub.pointer)
    }
}

/// Runs `body` in a new greenlet every `interval`, first after `startingAfter`, or after one interval.
///
/// Ticks are due at the first tick plus multiples of the interval and do not drift. A timer that is not `referenced`
/// does not keep the hub waiting; a referenced one keeps ``Hub/join(timeout:)`` from returning until it is cancelled.
/// Never parks. Traps if `interval` is not positive; a negative `startingAfter` counts as zero.
///
/// gevent: `loop.timer(after, repeat).start(callback)`.
@discardableResult
@available(*, noasync)
public func every(
    _ interval: Duration, startingAfter delay: Duration? = nil, referenced: Bool = true,
    _ body: @escaping () throws -> Void
) -> PeriodicTimer {
    // Not a precondition, whose message an optimised build does not print.
    if interval <= .zero { fatalError("every: an interval must be greater than zero, and \(interval) is not") }
    return PeriodicTimer(
        Hub.of(requireHub()), interval, startingAfter: max(delay ?? interval, .zero), referenced: referenced, body)
}

/// The periodic timers of one hub.
final class PeriodicTimers: HubService {
    private var active: [ObjectIdentifier: PeriodicTimer] = [:]

    func add(_ timer: PeriodicTimer) { active[ObjectIdentifier(timer)] = timer }

    func remove(_ timer: PeriodicTimer) { active[ObjectIdentifier(timer)] = nil }

    package func hubWillClose() {
        for timer in active.values { timer.stop() }
        active = [:]
    }

    /// Does nothing: timers are plain memory, which is copied to the child.
    package func hubDidFork() {}
}

extension Hub {
    fileprivate var periodicTimers: PeriodicTimers { service(orAdd: PeriodicTimers.init) }
}
