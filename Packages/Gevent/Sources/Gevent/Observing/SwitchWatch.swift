internal import CGevent

/// What follows a hub's switches: a trace, hooks, or both. Installed only while there is one, since then every switch
/// takes the long way.
///
/// Everything here runs in the middle of the scheduler, mostly on the stack of a greenlet that is about to leave it. So
/// it looks and does not touch: nothing is made ready, nothing parks.
final class SwitchWatch: HubService {
    var trace: Trace? {
        didSet {
            let duty = UInt32(GEVENT_SPAWN_TRACES)
            if trace == nil { hub.pointee.spawn_duties &= ~duty } else { hub.pointee.spawn_duties |= duty }
        }
    }
    var hooks: [SwitchHook] = []

    private let hub: UnsafeMutablePointer<gevent_hub>
    private let runGreenlet: (@convention(c) (UnsafeMutableRawPointer?, UnsafeMutablePointer<gevent_context>?) -> Void)?
    /// Where a greenlet is about to begin whose switch has been told.
    private var announced: UnsafeMutablePointer<gevent_context>?

    init(_ hub: UnsafeMutablePointer<gevent_hub>) {
        self.hub = hub
        runGreenlet = hub.pointee.functions.run_greenlet
    }

    var isNeeded: Bool { trace != nil || !hooks.isEmpty }

    func install() {
        gevent_hub_watch_switches(hub) { owner, origin, target, isStart, isOver in
            let hub = Unmanaged<Hub>.fromOpaque(owner!).takeUnretainedValue()
            hub.switchWatch?.switches(from: origin!, to: target!, isStart: isStart, isOver: isOver)
        }
        hub.pointee.functions.run_greenlet = { greenlet, context in
            SwitchWatch.run(greenlet!, context!)
        }
    }

    func uninstall() {
        gevent_hub_watch_switches(hub, nil)
        hub.pointee.functions.run_greenlet = runGreenlet
    }

    func hubWillClose() {
        let hub = Hub.of(hub)
        for hook in hooks { hook.cancel() }
        hub.stopTrace()
    }

    func hubDidFork() {
        guard let trace else { return }
        let path = trace.file.path
        self.trace = nil
        trace.abandon()
        let hub = Hub.of(hub)
        if path.contains("%p") {
            do {
                try hub.startTrace(to: path)
            } catch {  // control: opening a file does not park, so no kill can arrive here
                printToStandardError("gevent: there is no trace of this child: \(error)\n")
            }
        }
        // Removes the watch if nothing is left to watch for.
        if self.trace == nil { hub.watch { _ in } }
    }

    private func switches(
        from origin: UnsafeMutablePointer<gevent_context>, to target: UnsafeMutablePointer<gevent_context>,
        isStart: Bool, isOver: Bool
    ) {
        announced = isStart ? target : nil
        guard let owner = target.pointee.owner else { return }
        // Whoever is switched to is retained by its stack; whoever is left is, unless it has ended.
        let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(owner).takeUnretainedValue()
        trace?.switches(from: origin, to: greenlet, isOver: isOver)
        if hooks.isEmpty { return }
        let left = isOver ? nil : origin.pointee.owner.map { Unmanaged<AnyGreenlet>.fromOpaque($0) }
        for hook in hooks { hook.call(left?.takeUnretainedValue(), greenlet) }
    }

    /// In place of the function that runs a greenlet: around it.
    private static func run(_ pointer: UnsafeMutableRawPointer, _ context: UnsafeMutablePointer<gevent_context>) {
        // The hub is looked up twice, and not kept: a greenlet may outlast the watch, and be abandoned with its stack.
        let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(pointer).takeUnretainedValue()
        begin(greenlet, context)?(pointer, context)
        Hub.of(context.pointee.hub).switchWatch?.trace?.ended(greenlet)
    }

    @inline(never)
    private static func begin(
        _ greenlet: AnyGreenlet, _ context: UnsafeMutablePointer<gevent_context>
    ) -> (@convention(c) (UnsafeMutableRawPointer?, UnsafeMutablePointer<gevent_context>?) -> Void)? {
        let watch = Hub.of(context.pointee.hub).switchWatch
        watch?.begins(greenlet, context)
        return watch?.runGreenlet
    }

    private func begins(_ greenlet: AnyGreenlet, _ context: UnsafeMutablePointer<gevent_context>) {
        let isAnnounced = announced == context
        announced = nil
        if !isAnnounced {
            // On the stack of one that has ended, without a switch.
            trace?.switches(from: nil, to: greenlet, isOver: true)
            for hook in hooks { hook.call(nil, greenlet) }
        }
        trace?.begins(greenlet)
    }

    // MARK: What else there is to tell a trace

    func spawned(_ greenlet: AnyGreenlet) { trace?.spawned(greenlet) }

    func delivered(_ error: any Error, to greenlet: AnyGreenlet) { trace?.delivered(error, to: greenlet) }

    func pollBegins(maySleep: Bool) {
        trace?.pollBegins(maySleep: maySleep)
        if trace?.isBroken == true { Hub.of(hub).stopTrace() }
    }

    func pollEnded() { trace?.pollEnded() }
}

/// A closure that is called at each switch: what ``Hub/onSwitch(_:)`` returns.
final class SwitchHook: Registration {
    let call: (_ origin: AnyGreenlet?, _ target: AnyGreenlet) -> Void
    private let hub: Hub

    init(_ hub: Hub, _ call: @escaping (_ origin: AnyGreenlet?, _ target: AnyGreenlet) -> Void) {
        self.hub = hub
        self.call = call
    }

    override var isActive: Bool { hub.switchWatch?.hooks.contains { $0 === self } == true }

    override func cancel() {
        if hub.isDestroyed { return }
        if gevent_hub_current() != hub.pointer { fatalError("\(HubError.wrongThread)") }
        hub.watch { $0.hooks.removeAll { $0 === self } }
    }
}
