// The observers of a hub: its monitor and its trace.

internal import CGevent
public import GeventCore
internal import Glibc

extension Hub {
    // MARK: The monitor

    /// The monitor of this hub; nil if it has none.
    ///
    /// gevent: `Hub.periodic_monitoring_thread`.
    public var monitor: Monitor? { existingService(MonitorService.self)?.monitor }

    /// Starts a monitor for this hub and returns it. Returns the existing monitor if there is one.
    ///
    /// `GEVENT_MONITOR_THREAD_ENABLE` does this for every hub. Throws ``SystemError`` if the thread or its memory
    /// cannot be allocated, and ``HubError`` with `.wrongThread` or `.destroyed`. Never parks.
    ///
    /// gevent: `Hub.start_periodic_monitoring_thread()`.
    @discardableResult
    public func startMonitor() throws -> Monitor {
        try checkObservable()
        if let monitor { return monitor }
        let monitor = try Monitor(of: self)
        addService(MonitorService(monitor))
        return monitor
    }

    /// Stops the monitor and joins its thread, which blocks until a function or hook that is running returns.
    ///
    /// Does nothing if there is no monitor. Must be called on the hub's own thread; traps elsewhere.
    public func stopMonitor() {
        if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        guard let service = existingService(MonitorService.self) else { return }
        service.hubWillClose()
        removeService(service)
    }

    // MARK: Traces

    /// Whether this hub writes a trace.
    public var isTracing: Bool { existingService(Trace.self) != nil }

    /// Starts to write a trace of this hub's greenlets to a file that ui.perfetto.dev and chrome://tracing can open.
    ///
    /// The trace has a track for each greenlet, one for the hub and one for its polls. Timestamps come from the
    /// system's monotonic clock, even if the loop uses another clock. `%p` in `path` is replaced by the process ID.
    /// Hubs of one process can share a file. A file that no hub of this process is writing to is overwritten. The file
    /// must be a regular file with a single hard link that belongs to the process's user. A symbolic link as the last
    /// component of the path, another user's file, a FIFO and a device are refused. If the hub has a trace already,
    /// that trace ends.
    ///
    /// Buffered events are written before the hub sleeps, when they reach 64 KiB, and at the end of the hub or of the
    /// process. So the file of a killed process is nearly complete and can be opened. A forked child continues the
    /// trace only if the path contains `%p`. If a write fails, the error is printed once and the trace ends.
    ///
    /// `GEVENT_TRACE` does this for every hub. Throws ``SystemError`` if the file cannot be opened, and ``HubError``
    /// with `.wrongThread` or `.destroyed`. Never parks.
    ///
    /// gevent has no counterpart.
    public func startTrace(to path: String) throws {
        try checkObservable()
        stopTrace()
        try startTrace(to: path, continuing: false)
    }

    func startTrace(to path: String, continuing: Bool) throws(SystemError) {
        let trace = Trace(of: self, to: try TraceFile.open(path, continuing: continuing))
        watchSwitches { $0.trace = trace }
        addService(trace)
        trace.begin()
    }

    /// Ends the trace and completes its file. Does nothing if there is no trace. Must be called on the hub's own
    /// thread; traps elsewhere.
    public func stopTrace() {
        if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        existingService(Trace.self)?.stop()
    }

    // MARK: Settings

    /// Starts the monitor and the trace if the settings ask for them. A failure is reported and skipped, because a
    /// program should run even if it cannot be observed.
    func startObservingAsConfigured() {
        if resolvedConfiguration.monitorThreadEnable {
            do {
                try startMonitor()
            } catch {  // control: the hub is being created, so no error can be delivered to it yet
                printToStandardError("gevent: cannot start the monitor: \(error)\n")
            }
        }
        if !resolvedConfiguration.trace.isEmpty {
            do throws(SystemError) {
                try startTrace(to: resolvedConfiguration.trace, continuing: true)
            } catch {
                printToStandardError("gevent: cannot start the trace: \(error)\n")
            }
        }
    }
}
