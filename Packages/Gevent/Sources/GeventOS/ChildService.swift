internal import GeventCore
internal import Glibc

/// The children that one hub watches.
final class ChildService: HubService {
    private unowned let hub: Hub
    /// Usually one for each child.
    private var watches: [CInt: [ChildWatch]] = [:]
    /// Greenlets that wait for what only SIGCHLD tells: any child, a group, a stop.
    let changes = Event()
    private var signal: SignalRegistration?
    /// How many of them are about to wait, waiting, or woken and not yet through.
    var signalUsers = 0
    /// Off in tests, to run what older kernels run.
    var usesDescriptors = true

    init(_ hub: Hub) { self.hub = hub }

    func add(_ watch: ChildWatch) { watches[watch.pid, default: []].append(watch) }

    func remove(_ watch: ChildWatch) {
        watches[watch.pid]?.removeAll { $0 === watch }
        if watches[watch.pid]?.isEmpty == true { watches[watch.pid] = nil }
        unwatchSignalIfUnused()
    }

    func watch(of pid: CInt) -> ChildWatch? { watches[pid]?.first }

    /// A child's status was taken: this is it, for all who watch that child.
    func ended(_ pid: CInt, _ status: ChildStatus) {
        for watch in watches[pid] ?? [] { watch.settle(status) }
    }

    /// Has SIGCHLD from now on.
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

    func hubWillClose() {
        let all = Array(watches.values.joined())
        for watch in all { watch.settle(ChildError(.cancelled, pid: watch.pid)) }
        watches = [:]
        // Its registration ends with the service of signals.
        signal = nil
    }

    /// They are the parent's children, not ours.
    func hubDidFork() {
        for watch in Array(watches.values.joined()) { watch.settle(ChildError(.notAChild, pid: watch.pid)) }
        changes.notifyAll(hub.pointer)
    }
}

extension Hub {
    var children: ChildService { service { ChildService(self) } }
}
