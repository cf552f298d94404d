internal import CGevent

/// Runs a closure again and again, at fixed distances from its start: what ``every(_:startingAfter:referenced:_:)``
/// returns.
///
/// Each tick runs in a greenlet of its own, so it may park; never two at a time: a tick that comes while the one before
/// still runs, or several that were due before the hub could look, are skipped and counted. Between ticks there is a
/// timer and nothing else. An error is reported to the hub's ``Hub/errorHandler``, and the timer stays.
///
/// It goes on until it is cancelled or its hub is destroyed, whoever holds it. Confined to the thread of its hub.
///
/// gevent: `loop.timer(after, repeat)`.
public final class PeriodicTimer: Registration {
    /// From one tick to the next.
    public let interval: Duration
    /// How many ticks have started the closure.
    public private(set) var tickCount = 0
    /// How many ticks have not, because the one before was still running or the hub was busy.
    public private(set) var skippedTicks = 0

    private let hub: Hub
    private let firstTick: LoopInstant
    /// The number of the tick that comes, on the grid that begins with ``firstTick``.
    private var nextTick: Int128 = 0
    private var keepsHubWaiting: Bool
    /// Nil once it is cancelled.
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

    /// Whether it keeps the hub waiting; false once it is cancelled.
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

    /// Whether it is going on.
    public override var isActive: Bool { body != nil }

    /// Prevents further ticks. One that runs is not interrupted; one that was started and has not run yet does not.
    /// Repeatable.
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
        // Computed from the start each time, so that nothing adds up.
        let (offset, overflows) = interval.attoseconds.multipliedReportingOverflow(by: nextTick)
        let deadline = overflows ? .distantFuture : firstTick.advanced(by: Duration(attoseconds: offset))
        timer?.start(at: deadline, now: now, referenced: keepsHubWaiting)
    }

    private func tick() {
        let now = hub.now
        // The latest one that is due; those before it were not noticed in time.
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
        let turn = DeinitAction { [weak self] in self?.isRunning = false }
        RawGreenlet(hub: hub.pointer) { [self] in
            try withExtendedLifetime(turn) { try body?() }
        }.start(hub.pointer)
    }
}

/// Runs `body` in a greenlet of its own every `interval`, first after `startingAfter`, or after one interval.
///
/// Ticks come at the start plus multiples of the interval and do not drift. Unless `referenced`, the timer does not
/// keep the hub waiting; one that is referenced keeps ``Hub/join(timeout:)`` from returning until it is cancelled.
/// Never parks. Traps if `interval` is not positive; a negative `startingAfter` is zero.
///
/// gevent: `loop.timer(after, repeat).start(callback)`.
@discardableResult
@available(*, noasync)
public func every(
    _ interval: Duration, startingAfter delay: Duration? = nil, referenced: Bool = true,
    _ body: @escaping () throws -> Void
) -> PeriodicTimer {
    // Not a precondition, which says nothing in an optimised build.
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

    /// Timers are memory, which a child has its own copy of.
    package func hubDidFork() {}
}

extension Hub {
    fileprivate var periodicTimers: PeriodicTimers { service(orAdd: PeriodicTimers.init) }
}
