internal import CGevent
@_spi(GeventInternals) public import GeventCore
internal import Glibc

/// A thread that watches a hub, which it reports when a greenlet keeps it from all the others.
///
/// ```swift
/// let monitor = try Hub.current.startMonitor()
/// monitor.onBlocking { report in metrics.count("blocked", report.greenlet) }
/// ```
///
/// ``Hub/startMonitor()`` starts it, or `GEVENT_MONITOR_THREAD_ENABLE` for every hub; it ends with its hub. Whatever
/// runs on the hub's thread for longer than ``maxBlockingTime`` without a switch is reported: a greenlet, main, a
/// callback of the hub; once in each such period while it lasts. A hub that sleeps in a poll is not.
///
/// The hub pays nothing for it until there is something to report. A thread that sleeps in a system call is then looked
/// at from outside, and the call goes on undisturbed. A thread that runs is sent `SIGURG`, by which it tells where it
/// is. Two cases remain in which that signal ends a blocking call early, with `EINTR`: the thread enters the call in
/// the very moment between the look and the signal, or the system hides `/proc/self/task/*/syscall` (a kernel without
/// it, some sandboxes, and set-user-ID programs). A handler for the signal that the program installed before is called
/// for signals of its own. One that it installs later leaves reports about running threads without a backtrace.
///
/// Usable from any thread. Functions and hooks are called on the monitor's thread, one after the other, and must not
/// wait for the hub; they reach it through ``handle``. A fork waits until the function or hook that runs has returned,
/// so that the child does not inherit a lock that it holds.
///
/// gevent: `gevent._monitor.PeriodicMonitoringThread`.
public final class Monitor: Sendable {
    /// The way into the hub that is watched.
    public let handle: HubHandle
    let schedule: MonitorSchedule
    private let memoryPeriod: Duration

    init(of hub: Hub) throws {
        let configuration = hub.resolvedConfiguration
        handle = hub.handle
        memoryPeriod = configuration.monitorMemoryPeriod
        schedule = MonitorSchedule(
            maxBlockingTime: configuration.maxBlockingTime,
            printsBlockingReports: configuration.monitorPrintBlockingReports)
        try schedule.start(self, hub.pointer)
        if let limit = configuration.monitorMemoryMax { try watchMemory(limit: limit) }
    }

    // MARK: Blocking

    /// How long something may run without a switch before it is reported. Zero or less is a programming error and
    /// traps.
    ///
    /// From `GEVENT_MAX_BLOCKING_TIME` at first. A report comes between one and two such times after the last switch.
    ///
    /// gevent: `gevent.config.max_blocking_time`.
    public var maxBlockingTime: Duration {
        get { schedule.maxBlockingTime }
        set {
            if newValue <= .zero { fatalError("\(MonitorError.notPositive(newValue))") }
            schedule.maxBlockingTime = newValue
        }
    }

    /// Whether reports are printed to standard error. From `GEVENT_MONITOR_PRINT_BLOCKING_REPORTS` at first.
    ///
    /// gevent: `gevent.config.print_blocking_reports`.
    public var printsBlockingReports: Bool {
        get { schedule.printsBlockingReports }
        set { schedule.printsBlockingReports = newValue }
    }

    /// Calls `hook` with each report, on the monitor's thread, until it is cancelled.
    ///
    /// gevent: a subscriber of `gevent.events.EventLoopBlocked`.
    @discardableResult
    public func onBlocking(_ hook: @escaping @Sendable (BlockingReport) -> Void) -> any Registration & Sendable {
        schedule.add(hook)
    }

    // MARK: Memory

    /// Looks at the memory of the process every now and then, and tells the hooks of ``onMemory(_:)`` when it is above
    /// `limit`: once, again each time it has grown further, and once when it is back.
    ///
    /// Without a hook the events are printed. Calling it again changes the limit; nil ends it. From
    /// `GEVENT_MONITOR_MEMORY_MAX` at first. Throws ``MonitorError`` for a period of zero or less.
    ///
    /// - Parameters:
    ///   - limit: bytes.
    ///   - period: how often; nil for `GEVENT_MONITOR_MEMORY_PERIOD`.
    ///   - reading: how much is used, nil if that is not known. By default what the kernel says is resident; a program
    ///     may count what it knows better.
    ///
    /// gevent: `PeriodicMonitoringThread.install_monitor_memory_usage()`.
    public func watchMemory(
        limit: Int?, every period: Duration? = nil, reading: (@Sendable () -> Int?)? = nil
    ) throws {
        let period = period ?? memoryPeriod
        if period <= .zero { throw MonitorError.notPositive(period) }
        schedule.watchMemory(limit: limit, every: period, reading: reading ?? residentMemory)
    }

    /// Calls `hook` with each event of the memory, on the monitor's thread, until it is cancelled.
    ///
    /// gevent: a subscriber of `gevent.events.IMemoryUsageThresholdExceeded` and its counterpart.
    @discardableResult
    public func onMemory(_ hook: @escaping @Sendable (MemoryEvent) -> Void) -> any Registration & Sendable {
        schedule.add(hook)
    }

    // MARK: Functions

    /// Calls `function` on the monitor's thread once in each `period`, until it is cancelled.
    ///
    /// Throws ``MonitorError`` for a period of zero or less.
    ///
    /// gevent: `PeriodicMonitoringThread.add_monitoring_function(function, period)`.
    @discardableResult
    public func addFunction(
        period: Duration, _ function: @escaping @Sendable (Monitor) -> Void
    ) throws -> any Registration & Sendable {
        if period <= .zero { throw MonitorError.notPositive(period) }
        return schedule.add(every: period, function)
    }
}

/// A hook or a function of a ``Monitor``. It may be cancelled on any thread.
///
/// Unchecked, because a subclass has to say so; it has Sendable `let`s only.
final class MonitorRegistration: Registration, @unchecked Sendable {
    private let schedule: MonitorSchedule
    let identifier: MonitorSchedule.Identifier

    init(_ schedule: MonitorSchedule, _ identifier: MonitorSchedule.Identifier) {
        self.schedule = schedule
        self.identifier = identifier
        super.init()
    }

    override var isActive: Bool { schedule.contains(identifier) }

    override func cancel() { schedule.remove(identifier) }
}

/// A call that a monitor refuses.
public struct MonitorError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What went wrong. New codes may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// A period of zero or less: the monitor would do nothing else.
        case badPeriod
    }

    /// What went wrong, for programs.
    public let code: Code
    /// What went wrong, for people.
    public let message: String

    public var description: String { "\(code.rawValue): \(message)" }

    static func notPositive(_ period: Duration) -> MonitorError {
        MonitorError(
            code: .badPeriod,
            message: "\(decimalSeconds(period)) s is no period for a monitor; it takes more than zero")
    }
}
