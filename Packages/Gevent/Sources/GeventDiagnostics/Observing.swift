// What watches a hub from outside the program's own logic: a monitor, a trace, a switch hook.

internal import CGevent
public import GeventCore
internal import Glibc

extension Hub {
    // MARK: The monitor

    /// The thread that watches this hub; nil without one.
    ///
    /// gevent: `Hub.periodic_monitoring_thread`.
    public var monitor: Monitor? { existingService(MonitorService.self)?.monitor }

    /// Starts a thread that watches this hub, and returns it; the same one while there is one.
    ///
    /// `GEVENT_MONITOR_THREAD_ENABLE` does this for every hub. Throws ``MonitorError`` if the system has no thread or
    /// memory for it, and ``HubError`` with `.wrongThread` or `.destroyed`. Never parks.
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

    /// Ends the thread that watches this hub, and waits until it is over: for as long as a function or hook that is
    /// just being called takes. No effect without one. On the hub's own thread; traps elsewhere.
    public func stopMonitor() {
        if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        guard let service = existingService(MonitorService.self) else { return }
        service.hubWillClose()
        removeService(service)
    }

    // MARK: Traces

    /// Whether a trace is being written.
    public var isTracing: Bool { existingService(Trace.self) != nil }

    /// Writes what every greenlet of this hub does, and when, to a file that ui.perfetto.dev and chrome://tracing open.
    ///
    /// There is a track for each greenlet, one for the hub and one for its polls. Times are the system's monotonic
    /// clock, whatever the loop's is. `%p` in `path` stands for the process's number. A file that is there is replaced,
    /// unless another hub of this process is writing to it: several hubs share one. Only a regular file that belongs to
    /// the process's user and has no other name is replaced. A symbolic link as the last part of the path, another
    /// user's file, a FIFO and a device are refused. Ends a trace that is being written.
    ///
    /// What is known is written before the hub sleeps, when there are 64 KiB of it, and at the end of the hub or of the
    /// process; so the file of a process that was killed lacks little, and can be opened. In a forked child the trace
    /// goes on only if its name has a `%p`. If writing fails, that is printed once and the trace ends.
    ///
    /// `GEVENT_TRACE` does this for every hub. Throws ``LoopError`` if the file cannot be opened, and ``HubError`` with
    /// `.wrongThread` or `.destroyed`. Never parks.
    ///
    /// gevent has no counterpart.
    public func startTrace(to path: String) throws {
        try checkObservable()
        stopTrace()
        try startTrace(to: path, continuing: false)
    }

    func startTrace(to path: String, continuing: Bool) throws(LoopError) {
        let trace = Trace(of: self, to: try TraceFile.open(path, continuing: continuing))
        watchSwitches { $0.trace = trace }
        addService(trace)
        trace.begin()
    }

    /// Ends the trace and completes its file. No effect without one. On the hub's own thread; traps elsewhere.
    public func stopTrace() {
        if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        existingService(Trace.self)?.stop()
    }

    // MARK: By the settings

    /// Starts what the settings ask for. Diagnostics that fail to start are reported and skipped: a program does not
    /// fail because it cannot be observed.
    func startObservingAsConfigured() {
        if resolvedConfiguration.monitorThreadEnable {
            do {
                try startMonitor()
            } catch {  // control: the hub is being made; nothing can be thrown into it yet
                printToStandardError("gevent: there is no monitor: \(error)\n")
            }
        }
        if !resolvedConfiguration.trace.isEmpty {
            do throws(LoopError) {
                try startTrace(to: resolvedConfiguration.trace, continuing: true)
            } catch {
                printToStandardError("gevent: there is no trace: \(error)\n")
            }
        }
    }
}
