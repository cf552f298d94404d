package import CGevent

/// What a trace records of a hub. All of it is called in the middle of the scheduler; see ``SwitchWatch``.
package protocol SwitchTrace: AnyObject {
    /// The running greenlet is left; `origin` is its context, unless it has ended and another begins in its place.
    func switches(from origin: UnsafeMutablePointer<gevent_context>?, to target: AnyGreenlet, isOver: Bool)
    func begins(_ greenlet: AnyGreenlet)
    func ended(_ greenlet: AnyGreenlet)
    func spawned(_ greenlet: AnyGreenlet)
    func delivered(_ error: any Error, to greenlet: AnyGreenlet)
    func pollBegins(maySleep: Bool)
    func pollEnded()
}

/// Who is told what a hub does: a trace, a hook, or both. Installed only while there is one, since then every switch
/// takes the long way.
///
/// Everything here runs in the middle of the scheduler, mostly on the stack of a greenlet that is about to leave it. So
/// it looks and does not touch: nothing is made ready, nothing parks.
package final class SwitchWatch: HubService {
    package var trace: (any SwitchTrace)? {
        didSet {
            let duty = UInt32(GEVENT_SPAWN_TRACES)
            if trace == nil { hub.pointee.spawn_duties &= ~duty } else { hub.pointee.spawn_duties |= duty }
        }
    }
    var hook: ((_ origin: AnyGreenlet?, _ target: AnyGreenlet) -> Void)?

    private let hub: UnsafeMutablePointer<gevent_hub>
    private let runGreenlet: (@convention(c) (UnsafeMutableRawPointer?, UnsafeMutablePointer<gevent_context>?) -> Void)?
    /// Where a greenlet is about to begin whose switch has been told.
    private var announced: UnsafeMutablePointer<gevent_context>?

    init(_ hub: UnsafeMutablePointer<gevent_hub>) {
        self.hub = hub
        runGreenlet = hub.pointee.functions.run_greenlet
    }

    var isNeeded: Bool { trace != nil || hook != nil }

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

    package func hubWillClose() { Hub.of(hub).switchHook = nil }

    package func hubDidFork() {}

    private func switches(
        from origin: UnsafeMutablePointer<gevent_context>, to target: UnsafeMutablePointer<gevent_context>,
        isStart: Bool, isOver: Bool
    ) {
        announced = isStart ? target : nil
        guard let owner = target.pointee.owner else { return }
        // Whoever is switched to is retained by its stack; whoever is left is, unless it has ended.
        let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(owner).takeUnretainedValue()
        trace?.switches(from: origin, to: greenlet, isOver: isOver)
        guard let hook else { return }
        let left = isOver ? nil : origin.pointee.owner.map { Unmanaged<AnyGreenlet>.fromOpaque($0) }
        hook(left?.takeUnretainedValue(), greenlet)
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
            hook?(nil, greenlet)
        }
        trace?.begins(greenlet)
    }

    // MARK: What else there is to tell a trace

    func spawned(_ greenlet: AnyGreenlet) { trace?.spawned(greenlet) }

    func delivered(_ error: any Error, to greenlet: AnyGreenlet) { trace?.delivered(error, to: greenlet) }

    func pollBegins(maySleep: Bool) {
        trace?.pollBegins(maySleep: maySleep)
    }

    func pollEnded() { trace?.pollEnded() }
}

extension Hub {
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
            watchSwitches { $0.hook = newValue }
        }
    }

    /// Changes what is watched, and watches only as long as there is something to do.
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

    /// Throws where observing cannot begin: on another thread, or in a destroyed hub.
    package func checkObservable() throws {
        if isDestroyed { throw HubError.destroyed }
        guard gevent_hub_current() == pointer else { throw HubError.wrongThread }
        // What begins now is this process's own, and not to be taken for the parent's when a child is repaired later.
        noticeFork()
    }
}
