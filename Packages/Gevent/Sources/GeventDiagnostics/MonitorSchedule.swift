internal import CGevent
internal import CGeventSystem
internal import GeventCore
internal import Glibc

/// The thread of a ``Monitor``, and its periodic functions with their deadlines.
///
/// Unchecked, because only the hub's thread touches `watched`.
final class MonitorSchedule: @unchecked Sendable {
    typealias Identifier = UInt64

    private struct Entry {
        let identifier: Identifier
        var period: Int64
        var due: Int64
        let call: @Sendable (Monitor) -> Void

        init(_ identifier: Identifier, _ period: Int64, _ call: @escaping @Sendable (Monitor) -> Void) {
            self.identifier = identifier
            self.period = period
            due = gevent_monotonic_time() + period
            self.call = call
        }
    }

    private struct State {
        var entries: [Entry] = []
        var blockingHooks: [(identifier: Identifier, call: @Sendable (BlockingReport) -> Void)] = []
        var memoryHooks: [(identifier: Identifier, call: @Sendable (MemoryEvent) -> Void)] = []
        var lastIdentifier: Identifier = 0
        var memoryFunction: Identifier?
        var maxBlockingTime: Duration
        var printsBlockingReports: Bool
        var isStopping = false
    }

    /// The hub and its thread, while the monitor's thread runs.
    private struct Watched {
        let hub: UnsafeMutablePointer<gevent_hub>
        let hubThread: pthread_t
        let thread: pthread_t
    }

    private let state: ForkableMutex<State>
    /// Wakes the monitor's thread. Rung after each change of the entries or their deadlines.
    private let bell = gevent_bell_create()
    private var watched: Watched?
    private let blockingFunction: Identifier = 0

    init(maxBlockingTime: Duration, printsBlockingReports: Bool) {
        state = ForkableMutex(
            State(maxBlockingTime: maxBlockingTime, printsBlockingReports: printsBlockingReports))
    }

    deinit { gevent_bell_destroy(bell) }

    // MARK: From any thread

    var maxBlockingTime: Duration {
        get { state.withLock { $0.maxBlockingTime } }
        set {
            self.state.withLock { state in
                state.maxBlockingTime = newValue
                guard let index = state.entries.firstIndex(where: { $0.identifier == blockingFunction }) else { return }
                state.entries[index].period = newValue.nanoseconds
                state.entries[index].due = gevent_monotonic_time() + newValue.nanoseconds
            }
            gevent_bell_ring(bell)
        }
    }

    var printsBlockingReports: Bool {
        get { state.withLock { $0.printsBlockingReports } }
        set { state.withLock { $0.printsBlockingReports = newValue } }
    }

    func add(_ hook: @escaping @Sendable (BlockingReport) -> Void) -> MonitorRegistration {
        register { state, identifier in state.blockingHooks.append((identifier, hook)) }
    }

    func add(_ hook: @escaping @Sendable (MemoryEvent) -> Void) -> MonitorRegistration {
        register { state, identifier in state.memoryHooks.append((identifier, hook)) }
    }

    func add(every period: Duration, _ function: @escaping @Sendable (Monitor) -> Void) -> MonitorRegistration {
        defer { gevent_bell_ring(bell) }
        return register { state, identifier in state.entries.append(Entry(identifier, period.nanoseconds, function)) }
    }

    private func register(_ add: (inout State, Identifier) -> Void) -> MonitorRegistration {
        self.state.withLock { state in
            state.lastIdentifier += 1
            add(&state, state.lastIdentifier)
            return MonitorRegistration(self, state.lastIdentifier)
        }
    }

    func contains(_ identifier: Identifier) -> Bool {
        state.withLock { state in
            state.entries.contains { $0.identifier == identifier }
                || state.blockingHooks.contains { $0.identifier == identifier }
                || state.memoryHooks.contains { $0.identifier == identifier }
        }
    }

    func remove(_ identifier: Identifier) {
        // Releases the closures outside the lock: an object they captured may call back in its deinit.
        let dropped = self.state.withLock { state in
            let (entries, blocking, memory) = (state.entries, state.blockingHooks, state.memoryHooks)
            state.entries.removeAll { $0.identifier == identifier }
            state.blockingHooks.removeAll { $0.identifier == identifier }
            state.memoryHooks.removeAll { $0.identifier == identifier }
            return (entries, blocking, memory)
        }
        withExtendedLifetime(dropped) {}
    }

    func watchMemory(limit: Int?, every period: Duration, reading: @escaping @Sendable () -> Int?) {
        var new: Identifier?
        if let limit {
            let watch = Confined(MemoryWatch(limit: limit))
            let function = add(every: period) { monitor in
                guard let usage = reading(), let event = watch.value.judge(usage) else { return }
                monitor.schedule.notify(event)
            }
            new = function.identifier
        }
        let previous = self.state.withLock { state in
            defer { state.memoryFunction = new }
            return state.memoryFunction
        }
        if let previous { remove(previous) }
    }

    /// Unchecked, because only functions of one monitor touch it, and they run on its thread.
    private final class Confined<Value>: @unchecked Sendable {
        var value: Value
        init(_ value: Value) { self.value = value }
    }

    // MARK: On the hub's thread

    /// Starts to watch `hub`.
    func start(_ monitor: Monitor, _ hub: UnsafeMutablePointer<gevent_hub>) throws(SystemError) {
        let error = gevent_sampling_start(hub)
        if error != 0 { throw SystemError(errno: error, operation: "start the thread of a monitor") }
        let blocking = Confined(BlockingWatch(hub, pthread_self()))
        let period = maxBlockingTime.nanoseconds
        state.withLock { state in
            let entry = Entry(blockingFunction, period) { monitor in
                if let report = blocking.value.check(limit: monitor.maxBlockingTime) { monitor.schedule.notify(report) }
            }
            state.entries.append(entry)
        }
        do throws(SystemError) {
            try startThread(monitor, hub)
        } catch {
            gevent_sampling_stop(hub)
            throw error
        }
    }

    private func startThread(_ monitor: Monitor, _ hub: UnsafeMutablePointer<gevent_hub>) throws(SystemError) {
        var thread = pthread_t()
        let owner = Unmanaged.passRetained(monitor)
        let functions = gevent_monitor_functions(
            step: { owner in
                let monitor = Unmanaged<Monitor>.fromOpaque(owner!).takeUnretainedValue()
                return monitor.schedule.step(monitor)
            },
            end: { owner in Unmanaged<Monitor>.fromOpaque(owner!).release() })
        let error = gevent_monitor_thread_start(&thread, bell, owner.toOpaque(), functions)
        if error != 0 {
            owner.release()
            throw SystemError(errno: error, operation: "start the thread of a monitor")
        }
        watched = Watched(hub: hub, hubThread: pthread_self(), thread: thread)
    }

    /// Stops the thread and joins it. The hub may be destroyed afterwards.
    func stop() {
        guard let watched else { return }
        state.withLock { $0.isStopping = true }
        gevent_bell_ring(bell)
        pthread_join(watched.thread, nil)
        gevent_sampling_stop(watched.hub)
        self.watched = nil
        let dropped = self.state.withLock { state in
            let (entries, blocking, memory) = (state.entries, state.blockingHooks, state.memoryHooks)
            state.entries = []
            state.blockingHooks = []
            state.memoryHooks = []
            return (entries, blocking, memory)
        }
        withExtendedLifetime(dropped) {}
    }

    /// Starts a new thread in a forked child, where the parent's does not exist. The lock is reset, because another
    /// thread of the program may have held it. The monitor's thread did not: a fork waits until its step ends.
    func startAgain(_ monitor: Monitor) {
        guard let watched else { return }
        state.reset()
        gevent_sampling_reset(watched.hub)
        do throws(SystemError) {
            try startThread(monitor, watched.hub)
        } catch {
            self.watched = nil
            printToStandardError("gevent: cannot start the monitor of this child: \(error)\n")
        }
    }

    // MARK: On the monitor's thread

    private enum Step {
        case call(@Sendable (Monitor) -> Void)
        case wait(until: Int64)
        case end
    }

    /// Makes one call that is due, if any. Returns the time of the next step, or that there is none.
    private func step(_ monitor: Monitor) -> Int64 {
        switch next() {
        case .call(let call):
            call(monitor)
            // The next step is due at once. A waiting fork runs first.
            return 0
        case .wait(let moment): return moment
        case .end: return GEVENT_STEP_NEVER
        }
    }

    private func next() -> Step {
        state.withLock { state in
            if state.isStopping { return .end }
            guard let index = state.entries.indices.min(by: { state.entries[$0].due < state.entries[$1].due }) else {
                return .wait(until: GEVENT_STEP_WHEN_RUNG)
            }
            let now = gevent_monotonic_time()
            if state.entries[index].due > now { return .wait(until: state.entries[index].due) }
            state.entries[index].due = now + state.entries[index].period
            return .call(state.entries[index].call)
        }
    }

    private func notify(_ report: BlockingReport) {
        let (prints, hooks) = state.withLock { ($0.printsBlockingReports, $0.blockingHooks) }
        if prints { printToStandardError("gevent: \(report)\n") }
        // A hook may cancel another one.
        for hook in hooks where state.withLock({ $0.blockingHooks.contains { $0.identifier == hook.identifier } }) {
            hook.call(report)
        }
    }

    private func notify(_ event: MemoryEvent) {
        let hooks = state.withLock { $0.memoryHooks }
        if hooks.isEmpty { printToStandardError("gevent: \(event)\n") }
        for hook in hooks where state.withLock({ $0.memoryHooks.contains { $0.identifier == hook.identifier } }) {
            hook.call(event)
        }
    }
}

/// Checks whether a hub's thread is blocked. Confined to the monitor's thread.
struct BlockingWatch {
    private let hub: UnsafeMutablePointer<gevent_hub>
    private let hubThread: pthread_t
    private var lastActivity: UInt64 = 0
    private var since: Int64 = 0

    init(_ hub: UnsafeMutablePointer<gevent_hub>, _ hubThread: pthread_t) {
        self.hub = hub
        self.hubThread = hubThread
        lastActivity = gevent_hub_activity(hub)
        since = gevent_monotonic_time()
    }

    mutating func check(limit: Duration) -> BlockingReport? {
        let activity = gevent_hub_activity(hub)
        let now = gevent_monotonic_time()
        if activity != lastActivity || gevent_hub_is_polling(hub) {
            lastActivity = activity
            since = now
            return nil
        }
        let duration = Duration.nanoseconds(now - since)
        if duration < limit { return nil }
        // A thread that does not block the signal answers as soon as it is scheduled.
        let answerMilliseconds: UInt32 = 200
        guard let sample = gevent_sampling_take(hub, hubThread, activity, answerMilliseconds) else { return nil }
        return BlockingReport(sample, of: hub, duration: duration)
    }
}

/// The service that stops a monitor when its hub is destroyed.
final class MonitorService: HubService {
    let monitor: Monitor

    init(_ monitor: Monitor) { self.monitor = monitor }

    func hubWillClose() { monitor.schedule.stop() }

    func hubDidFork() { monitor.schedule.startAgain(monitor) }
}

extension Duration {
    /// The duration as a period in nanoseconds: at least 1, and at most about 73 years so that adding the current time
    /// cannot overflow.
    var nanoseconds: Int64 { Int64(min(max(attoseconds / 1_000_000_000, 1), Int128(Int64.max / 4))) }
}
