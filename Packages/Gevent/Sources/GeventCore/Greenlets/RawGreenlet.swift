package import CGevent

/// A bare coroutine: no outcome, no join, no links. An optimisation for work whose end nobody waits for.
///
/// ``spawnRaw(_:)`` starts one. One that is only made runs when ``AnyGreenlet/switchTo()`` hands control to it. An
/// error its body throws goes to the hub's error handler; an exit is silent. `kill` and `killAll` accept it.
///
/// gevent: what `gevent.spawn_raw` returns.
public final class RawGreenlet: AnyGreenlet {
    private var body: (() throws -> Void)?
    /// Runs a link, which is told of an end also if the hub is destroyed first.
    let isOfLink: Bool

    package init(hub: UnsafeMutablePointer<gevent_hub>, _ body: @escaping () throws -> Void) {
        self.body = body
        isOfLink = false
        let duties = hub.pointee.spawn_duties
        super.init(
            hub: hub, spawnNode: duties & UInt32(GEVENT_SPAWN_TRACKS) != 0 ? recordSpawner(hub).spawnNode : 0,
            spawnSite: nil)
        if duties & UInt32(GEVENT_SPAWN_INHERITS) != 0 { inheritLocals(hub) }
    }

    /// The hub's child, whoever happens to run when the link is told: neither the tree nor the locals of that one are
    /// its business.
    init(ofLinkOn hub: UnsafeMutablePointer<gevent_hub>, _ body: @escaping () throws -> Void) {
        self.body = body
        isOfLink = true
        let tracks = hub.pointee.spawn_duties & UInt32(GEVENT_SPAWN_TRACKS) != 0
        super.init(
            hub: hub, spawnNode: tracks ? recordSpawner(hub, hub.pointee.root.owner).spawnNode : 0, spawnSite: nil)
    }

    /// A coroutine that will run `body`, and is not started.
    ///
    /// Ends the program with a message if the thread has no hub yet and none can be made; see ``Hub/start()``.
    ///
    /// gevent: `greenlet.greenlet(function)`.
    @available(*, noasync)
    public convenience init(_ body: @escaping () throws -> Void) {
        self.init(hub: requireHub(), body)
    }

    /// The same on a stack of at least `stackSize` bytes; see ``Gevent/spawn(stackSize:_:)``.
    public convenience init(stackSize: Int, _ body: @escaping () throws -> Void) {
        self.init(hub: requireHub(), body)
        useStack(ofSize: stackSize)
    }

    package func start(_ hub: UnsafeMutablePointer<gevent_hub>) {
        countStart(hub)
        gevent_ready_push(hub, Unmanaged.passRetained(self).toOpaque(), startTag)
    }

    override func runOnStack(_ context: UnsafeMutablePointer<gevent_context>) {
        if phase == .ended { return disown(context) }
        enter(context)
        let error = runBody()
        let hub = context.pointee.hub!
        recordEnd(error, hub)
        leave(context)
        // Only killAll and those who have switched to it link to a raw greenlet.
        notifyLinks(hub)
    }

    @inline(never)
    private func runBody() -> (any Error)? {
        guard let body else { return nil }
        self.body = nil
        do {
            try body()
            return nil
        } catch {  // control: the greenlet's outermost frame; a kill ends here
            return error
        }
    }

    override func endUnstarted(_ error: any Error) {
        let hub = requireOwnHub()
        let body = self.body
        self.body = nil
        withExtendedLifetime(body) { recordUnstartedEnd(error, hub) }
    }

    /// Throws `error` into the greenlet without waiting; see ``Gevent/kill(_:throwing:sticky:)``.
    public func kill(throwing error: any Error = GreenletExit(), sticky: Bool = false) throws {
        _ = try ownHub()
        deliver(error, sticky: sticky)
    }
}

/// Starts a bare coroutine that runs `body`. Returns before the body runs; never parks.
///
/// An error it throws goes to ``Hub/errorHandler``; an exit is silent. Ends the program with a message if the thread
/// has no hub and none can be made; see ``Hub/start()``.
///
/// gevent: `gevent.spawn_raw(function, *args)`.
@discardableResult
@available(*, noasync)
public func spawnRaw(_ body: @escaping () throws -> Void) -> RawGreenlet {
    let hub = requireHub()
    let greenlet = RawGreenlet(hub: hub, body)
    greenlet.start(hub)
    return greenlet
}

/// The thread's own stack, seen as a greenlet.
package final class MainGreenlet: AnyGreenlet {
    package override var description: String { "<MainGreenlet\(knownName.map { " \"\($0)\"" } ?? "")>" }
}

/// The hub, seen as a greenlet: what is current inside its callbacks.
package final class HubGreenlet: AnyGreenlet {
    package override var description: String { "<HubGreenlet>" }
}
