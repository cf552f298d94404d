internal import CGevent
public import GeventCore
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
    public func onBlocking(_ hook: @escaping @Sendable (BlockingReport) -> Void) -> MonitorHook {
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
    public func onMemory(_ hook: @escaping @Sendable (MemoryEvent) -> Void) -> MonitorHook {
        schedule.add(hook)
    }

    // MARK: Functions

    /// Calls `function` on the monitor's thread once in each `period`.
    ///
    /// What is returned changes the period, or ends the calls. Throws ``MonitorError`` for a period of zero or less.
    ///
    /// gevent: `PeriodicMonitoringThread.add_monitoring_function(function, period)`.
    @discardableResult
    public func addFunction(
        period: Duration, _ function: @escaping @Sendable (Monitor) -> Void
    ) throws -> MonitorFunction {
        if period <= .zero { throw MonitorError.notPositive(period) }
        return MonitorFunction(schedule, schedule.add(every: period, function), function)
    }
}

/// A function that a ``Monitor`` calls: what ``Monitor/addFunction(period:_:)`` returns.
public final class MonitorFunction: Sendable {
    private let schedule: MonitorSchedule
    private let identifier: MonitorSchedule.Identifier
    private let function: @Sendable (Monitor) -> Void

    init(
        _ schedule: MonitorSchedule, _ identifier: MonitorSchedule.Identifier,
        _ function: @escaping @Sendable (Monitor) -> Void
    ) {
        self.schedule = schedule
        self.identifier = identifier
        self.function = function
    }

    /// Calls it once in each `period` from now on; nil for never again, until another period is set. Any thread. Throws
    /// ``MonitorError`` for zero or less.
    public func setPeriod(_ period: Duration?) throws {
        if let period, period <= .zero { throw MonitorError.notPositive(period) }
        schedule.set(identifier, every: period, function)
    }
}

/// A hook of a ``Monitor``: what ``Monitor/onBlocking(_:)`` and ``Monitor/onMemory(_:)`` return.
public final class MonitorHook: Sendable {
    private let schedule: MonitorSchedule
    private let identifier: MonitorSchedule.Identifier

    init(_ schedule: MonitorSchedule, _ identifier: MonitorSchedule.Identifier) {
        self.schedule = schedule
        self.identifier = identifier
    }

    /// From here on no call begins; one that has begun on the monitor's thread goes on. Repeatable. Any thread.
    public func cancel() { schedule.removeHook(identifier) }
}

/// What a monitor refuses, or could not be had for it.
public struct MonitorError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What went wrong.
    public enum Code: String, Sendable, Hashable {
        /// A period of zero or less: the monitor would do nothing else.
        case badPeriod
        /// The system has no thread or no memory for a monitor.
        case noThread
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

    static func noThread(_ error: CInt) -> MonitorError {
        MonitorError(code: .noThread, message: "a thread for the monitor: \(String(cString: strerror(error)))")
    }
}
