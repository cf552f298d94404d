internal import GeventCore
internal import Glibc

/// The child processes that one hub watches.
package final class ChildService: HubService {
    private unowned let hub: Hub
    /// The watches by process ID. Usually one for each child.
    private var watches: [CInt: [ChildWatch]] = [:]
    /// Wakes greenlets that wait for changes that only SIGCHLD reports: of any child, of a group, or a stop.
    let changes = Event()
    private var signal: SignalRegistration?
    /// The number of greenlets that use ``changes``, from before they park until they have finished.
    package var signalUsers = 0
    /// Whether to use pidfds. Tests turn this off to run the code for older kernels.
    var usesDescriptors = true

    init(_ hub: Hub) { self.hub = hub }

    func add(_ watch: ChildWatch) { watches[watch.pid, default: []].append(watch) }

    func remove(_ watch: ChildWatch) {
        watches[watch.pid]?.removeAll { $0 === watch }
        if watches[watch.pid]?.isEmpty == true { watches[watch.pid] = nil }
        unwatchSignalIfUnused()
    }

    func watch(of pid: CInt) -> ChildWatch? { watches[pid]?.first }

    /// Delivers the status of a child to all of its watches.
    func ended(_ pid: CInt, _ status: ChildStatus) {
        for watch in watches[pid] ?? [] { watch.settle(status) }
    }

    /// Starts to watch SIGCHLD.
    func watchSignal() throws {
        if signal != nil { return }
        signal = try hub.watchSignal(SIGCHLD, referenced: false, .hub { [unowned self] in childrenChanged() })
    }

    func unwatchSignalIfUnused() {
        if signalUsers > 0 || !watches.isEmpty { return }
        signal?.cancel()
        signal = nil
    }

    private func childrenChanged() {
        for watch in Array(watches.values.joined()) { watch.check() }
        changes.notifyAll(hub.pointer)
    }

    package func hubWillClose() {
        let all = Array(watches.values.joined())
        for watch in all { watch.settle(ChildError(.cancelled, pid: watch.pid)) }
        watches = [:]
        // The signal service ends the registration.
        signal = nil
    }

    /// Ends all watches in a forked child, because the processes are children of the parent.
    package func hubDidFork() {
        for watch in Array(watches.values.joined()) { watch.settle(ChildError(.notAChild, pid: watch.pid)) }
        changes.notifyAll(hub.pointer)
    }
}

extension Hub {
    var children: ChildService { service { ChildService(self) } }
}
