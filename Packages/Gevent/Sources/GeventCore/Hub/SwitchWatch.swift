package import CGevent

/// The events of a hub that a trace records. All methods are called inside the scheduler; see ``SwitchWatch``.
package protocol SwitchTrace: AnyObject {
    /// Called before a switch. `origin` is the context of the running greenlet; nil if that greenlet has ended and
    /// `target` begins on its stack.
    func switches(from origin: UnsafeMutablePointer<gevent_context>?, to target: AnyGreenlet, isOver: Bool)
    func begins(_ greenlet: AnyGreenlet)
    func ended(_ greenlet: AnyGreenlet)
    func spawned(_ greenlet: AnyGreenlet)
    func delivered(_ error: any Error, to greenlet: AnyGreenlet)
    func pollBegins(maySleep: Bool)
    func pollEnded()
}

/// Notifies a trace and hooks of a hub's switches. It is installed only while there is a trace or a hook, because it
/// disables the fast path.
///
/// Its methods run inside the scheduler, mostly on the stack of a greenlet that is about to be suspended. Therefore
/// they only observe: they must not make greenlets ready, and must not park.
package final class SwitchWatch: HubService {
    package var trace: (any SwitchTrace)? {
        didSet {
            let duty = UInt32(GEVENT_SPAWN_TRACES)
            if trace == nil { hub.pointee.spawn_flags &= ~duty } else { hub.pointee.spawn_flags |= duty }
        }
    }
    var hooks: [SwitchHook] = []

    private let hub: UnsafeMutablePointer<gevent_hub>
    private let runGreenlet: (@convention(c) (UnsafeMutableRawPointer?, UnsafeMutablePointer<gevent_context>?) -> Void)?
    /// The context of a greenlet that is about to begin and whose switch has been reported.
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

    package func hubWillClose() {
        for hook in hooks { hook.cancel() }
    }

    package func hubDidFork() {}

    private func switches(
        from origin: UnsafeMutablePointer<gevent_context>, to target: UnsafeMutablePointer<gevent_context>,
        isStart: Bool, isOver: Bool
    ) {
        announced = isStart ? target : nil
        guard let owner = target.pointee.owner else { return }
        // The target is retained by its stack; so is the origin, unless it has ended.
        let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(owner).takeUnretainedValue()
        trace?.switches(from: origin, to: greenlet, isOver: isOver)
        if hooks.isEmpty { return }
        let suspended = isOver ? nil : origin.pointee.owner.map { Unmanaged<AnyGreenlet>.fromOpaque($0) }
        for hook in hooks { hook.call(suspended?.takeUnretainedValue(), greenlet) }
    }

    /// Replaces and wraps the function that runs a greenlet.
    private static func run(_ pointer: UnsafeMutableRawPointer, _ context: UnsafeMutablePointer<gevent_context>) {
        // The hub is looked up twice instead of retained: a greenlet may outlive the watch and be abandoned with its
        // stack.
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
            // It begins without a switch, on the stack of a greenlet that has ended.
            trace?.switches(from: nil, to: greenlet, isOver: true)
            for hook in hooks { hook.call(nil, greenlet) }
        }
        trace?.begins(greenlet)
    }

    // MARK: Other events of a trace

    func spawned(_ greenlet: AnyGreenlet) { trace?.spawned(greenlet) }

    func delivered(_ error: any Error, to greenlet: AnyGreenlet) { trace?.delivered(error, to: greenlet) }

    func pollBegins(maySleep: Bool) {
        trace?.pollBegins(maySleep: maySleep)
    }

    func pollEnded() { trace?.pollEnded() }
}

extension Hub {
    /// Calls `hook` at each switch of this hub, with the running greenlet and the one that runs next, until the
    /// registration is cancelled.
    ///
    /// `origin` is nil if that greenlet has ended. The hub and main appear like other greenlets. A greenlet that yields
    /// while no other is ready does not switch.
    ///
    /// The hook is called before the switch, on the running stack, which may be small. It must be quick, and must
    /// only observe: parking, spawning, waking or killing greenlets in it is a programming error, which ends the
    /// process if it makes a greenlet ready. With a hook, each switch takes the slow path. Call it on the hub's own
    /// thread; it traps on other threads and once the hub is destroyed.
    ///
    /// gevent: `greenlet.settrace(callback)`.
    @discardableResult
    public func onSwitch(_ hook: @escaping (_ origin: AnyGreenlet?, _ target: AnyGreenlet) -> Void) -> Registration {
        if isDestroyed { fatalError("\(HubError.destroyed)") }
        if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        let registration = SwitchHook(self, hook)
        watchSwitches { $0.hooks.append(registration) }
        return registration
    }

    /// Applies `change` to the watch, and installs or removes the watch depending on whether it is still needed.
    package func watchSwitches(_ change: (SwitchWatch) -> Void) {
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

    /// Throws if observing cannot begin: on another thread, or on a destroyed hub.
    package func checkObservable() throws {
        if isDestroyed { throw HubError.destroyed }
        guard gevent_hub_current() == pointer else { throw HubError.wrongThread }
        // Repaired first, so that a later repair does not treat the observer's work as inherited from the parent.
        noticeFork()
    }
}

/// A closure that is called at each switch, as registered by ``Hub/onSwitch(_:)``.
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
        hub.watchSwitches { $0.hooks.removeAll { $0 === self } }
    }
}
