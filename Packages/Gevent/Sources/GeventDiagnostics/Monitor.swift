internal import CGevent
@_spi(GeventInternals) public import GeventCore
internal import Glibc

/// A thread that watches a hub and reports when a greenlet blocks it.
///
/// ```swift
/// let monitor = try Hub.current.startMonitor()
/// monitor.onBlocking { report in metrics.count("blocked", report.greenlet) }
/// ```
///
/// Start it with ``Hub/startMonitor()``, or for every hub with `GEVENT_MONITOR_THREAD_ENABLE`. It ends with its hub.
/// The monitor reports a greenlet, main or a hub callback that runs for longer than ``maxBlockingTime`` without a
/// switch, and repeats the report once per such period while it lasts. It does not report a hub that sleeps in a poll.
///
/// The hub pays no cost until there is something to report. The monitor reads a thread that sleeps in a system call
/// from outside, without disturbing the call. To a running thread it sends `SIGURG`, whose handler copies the stack. In
/// two cases that signal can end a blocking call early with `EINTR`: if the thread enters the call between the check
/// and the signal, or if the system hides `/proc/self/task/*/syscall` (a kernel without it, some sandboxes, and
/// set-user-ID programs). A `SIGURG` handler that the program installed earlier still receives the program's own
/// signals. If the program installs one later, reports about running threads have no backtrace.
///
/// Usable from any thread. The monitor's thread calls functions and hooks one at a time. They must not wait for the
/// hub, and reach it through ``handle``. A fork waits until a running function or hook returns, so that the child does
/// not inherit a lock that it holds.
///
/// gevent: `gevent._monitor.PeriodicMonitoringThread`.
public final class Monitor: Sendable {
    /// The handle of the watched hub.
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

    /// The time that code may run without a switch before it is reported. Zero or less is a programming error and
    /// traps.
    ///
    /// The initial value is `GEVENT_MAX_BLOCKING_TIME`. A report is made one to two such times after the last switch.
    ///
    /// gevent: `gevent.config.max_blocking_time`.
    public var maxBlockingTime: Duration {
        get { schedule.maxBlockingTime }
        set {
            if newValue <= .zero { fatalError("\(MonitorError.notPositive(newValue))") }
            schedule.maxBlockingTime = newValue
        }
    }

    /// Whether reports are printed to standard error. The initial value is `GEVENT_MONITOR_PRINT_BLOCKING_REPORTS`.
    ///
    /// gevent: `gevent.config.print_blocking_reports`.
    public var printsBlockingReports: Bool {
        get { schedule.printsBlockingReports }
        set { schedule.printsBlockingReports = newValue }
    }

    /// Registers `hook`, which the monitor's thread calls with each report until the registration is cancelled.
    ///
    /// gevent: a subscriber of `gevent.events.EventLoopBlocked`.
    @discardableResult
    public func onBlocking(_ hook: @escaping @Sendable (BlockingReport) -> Void) -> any Registration & Sendable {
        schedule.add(hook)
    }

    // MARK: Memory

    /// Checks the memory usage of the process periodically, and notifies the hooks of ``onMemory(_:)`` when it exceeds
    /// `limit`: once, again each time it has grown further, and once when it is back at or below `limit`.
    ///
    /// Without a hook the events are printed. A second call changes the limit; nil stops the checks. The initial limit
    /// is `GEVENT_MONITOR_MEMORY_MAX`. Throws ``MonitorError`` for a period of zero or less.
    ///
    /// - Parameters:
    ///   - limit: the limit in bytes.
    ///   - period: the time between two checks; nil for `GEVENT_MONITOR_MEMORY_PERIOD`.
    ///   - reading: returns the usage in bytes, or nil if it is unknown. The default is the resident memory that the
    ///     kernel reports; a program may supply a more precise measure.
    ///
    /// gevent: `PeriodicMonitoringThread.install_monitor_memory_usage()`.
    public func watchMemory(
        limit: Int?, every period: Duration? = nil, reading: (@Sendable () -> Int?)? = nil
    ) throws {
        let period = period ?? memoryPeriod
        if period <= .zero { throw MonitorError.notPositive(period) }
        schedule.watchMemory(limit: limit, every: period, reading: reading ?? residentMemory)
    }

    /// Registers `hook`, which the monitor's thread calls with each memory event until the registration is cancelled.
    ///
    /// gevent: a subscriber of `gevent.events.IMemoryUsageThresholdExceeded` and its counterpart.
    @discardableResult
    public func onMemory(_ hook: @escaping @Sendable (MemoryEvent) -> Void) -> any Registration & Sendable {
        schedule.add(hook)
    }

    // MARK: Functions

    /// Registers `function`, which the monitor's thread calls once per `period` until the registration is cancelled.
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

/// The registration of a hook or function of a ``Monitor``. It may be cancelled on any thread.
///
/// Unchecked, because a subclass must declare it so; it has only `let`s of Sendable types.
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

/// The error of a call that a monitor refuses.
public struct MonitorError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What went wrong. New codes may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// The period is zero or less.
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
