// What watches a hub from outside the program's own logic: a monitor, a trace, a switch hook.

internal import CGevent
internal import Glibc

extension Hub {
    // MARK: The monitor

    /// The thread that watches this hub; nil without one.
    ///
    /// gevent: `Hub.periodic_monitoring_thread`.
    public var monitor: Monitor? { ownMonitor }

    /// Starts a thread that watches this hub, and returns it; the same one while there is one.
    ///
    /// `GEVENT_MONITOR_THREAD_ENABLE` does this for every hub. Throws ``MonitorError`` if the system has no thread or
    /// memory for it, and ``HubError`` with `.wrongThread` or `.destroyed`. Never parks.
    ///
    /// gevent: `Hub.start_periodic_monitoring_thread()`.
    @discardableResult
    public func startMonitor() throws -> Monitor {
        try checkObservable()
        if let ownMonitor { return ownMonitor }
        let monitor = try Monitor(of: self)
        ownMonitor = monitor
        addService(MonitorService(monitor, of: self))
        return monitor
    }

    /// Ends the thread that watches this hub, and waits until it is over: for as long as a function or hook that is
    /// just being called takes. No effect without one. On the hub's own thread; traps elsewhere.
    public func stopMonitor() {
        if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        guard let service = services.first(where: { $0 is MonitorService }) else { return }
        service.hubWillClose()
        removeService(service)
    }

    // MARK: Switches

    /// Called at each switch of this hub, with who is left and who comes; nil, the default, for no calls.
    ///
    /// `origin` is nil if it is a greenlet that has ended. The hub and main appear like any greenlet. A greenlet that
    /// yields while nobody else is ready does not switch.
    ///
    /// It is called before the switch, on the stack that is left, which may be small, and must be quick. It may look at
    /// anything, and change nothing: parking, spawning, waking or killing greenlets there is a programming error, and
    /// ends the process if it makes anything ready. While there is none, switches cost what they always do; with one,
    /// each takes the long way.
    ///
    /// gevent: `greenlet.settrace(callback)`.
    public var switchHook: ((_ origin: AnyGreenlet?, _ target: AnyGreenlet) -> Void)? {
        get { switchWatch?.hook }
        set {
            if isDestroyed { return }
            if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
            watch { $0.hook = newValue }
        }
    }

    /// Changes what is watched, and watches only as long as there is something to do.
    func watch(_ change: (SwitchWatch) -> Void) {
        let watch = switchWatch ?? SwitchWatch(pointer)
        change(watch)
        if watch.isNeeded, switchWatch == nil {
            switchWatch = watch
            watch.install()
            addService(watch)
        } else if !watch.isNeeded, switchWatch != nil {
            switchWatch = nil
            watch.uninstall()
            removeService(watch)
        }
    }

    // MARK: Traces

    /// Whether a trace is being written.
    public var isTracing: Bool { switchWatch?.trace != nil }

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

    private func startTrace(to path: String, continuing: Bool) throws(LoopError) {
        let trace = Trace(of: self, to: try TraceFile.open(path, continuing: continuing))
        watch { $0.trace = trace }
        trace.begin()
    }

    /// Ends the trace and completes its file. No effect without one. On the hub's own thread; traps elsewhere.
    public func stopTrace() {
        if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        guard let trace = switchWatch?.trace else { return }
        watch { $0.trace = nil }
        trace.end()
    }

    // MARK: By the settings

    /// What cannot be had is said and done without: a program does not fail for want of being watched.
    func startObservingAsConfigured() {
        gevent_once_set_function_text { address, text, size in
            guard let address, let text, let place = places(of: address).last else { return }
            strncpy(text, place.text, size - 1)
            text[size - 1] = 0
        }
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
        if resolvedConfiguration.reportOnSIGUSR2 {
            do {
                _ = try watchSignal(SIGUSR2, referenced: false, .hub { [unowned self] in printGreenlets() })
            } catch {  // control: the hub is being made; nothing can be thrown into it yet
                printToStandardError("gevent: SIGUSR2 prints no report: \(error)\n")
            }
        }
    }

    /// Every hub of the process is told of the signal, and prints its own.
    private func printGreenlets() {
        errorOutput?("gevent: SIGUSR2, hub \(name) of process \(getpid())\n\(dumpGreenlets())\n")
    }

    private func checkObservable() throws {
        if isDestroyed { throw HubError.destroyed }
        guard gevent_hub_current() == pointer else { throw HubError.wrongThread }
        // What begins now is this process's own, and not to be taken for the parent's when a child is repaired later.
        noticeFork()
    }
}
