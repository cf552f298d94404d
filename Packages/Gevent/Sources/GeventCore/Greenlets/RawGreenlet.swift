package import CGevent

/// A bare coroutine: no outcome, no join, no links of its own. An optimisation for work whose end has no waiter.
///
/// ``spawnRaw(_:)`` starts one. A raw greenlet that was made and not started runs when ``AnyGreenlet/switchTo()``
/// switches to it. An error that its body throws is passed to the hub's error handler; an exit is silent. `kill` and
/// `killAll` accept it.
///
/// gevent: the greenlet that `gevent.spawn_raw` returns.
public final class RawGreenlet: AnyGreenlet {
    private var body: (() throws -> Void)?
    /// Whether it runs a link. A link is notified of an end even if the hub is destroyed first.
    let isOfLink: Bool

    package init(hub: UnsafeMutablePointer<gevent_hub>, _ body: @escaping () throws -> Void) {
        self.body = body
        isOfLink = false
        let duties = hub.pointee.spawn_flags
        super.init(
            hub: hub, spawnNode: duties & UInt32(GEVENT_SPAWN_TRACKS) != 0 ? recordSpawner(hub).spawnNode : 0,
            spawnSite: nil)
        if duties & UInt32(GEVENT_SPAWN_INHERITS) != 0 { inheritLocals(hub) }
    }

    /// Makes the greenlet of a link. It is a child of the hub, and not of the greenlet that is current when the link is
    /// notified: it is unrelated to that greenlet's spawn tree and locals.
    init(ofLinkOn hub: UnsafeMutablePointer<gevent_hub>, _ body: @escaping () throws -> Void) {
        self.body = body
        isOfLink = true
        let tracks = hub.pointee.spawn_flags & UInt32(GEVENT_SPAWN_TRACKS) != 0
        super.init(
            hub: hub, spawnNode: tracks ? recordSpawner(hub, hub.pointee.root.owner).spawnNode : 0, spawnSite: nil)
    }

    /// Makes a coroutine that will run `body`, and does not start it.
    ///
    /// Ends the program with a message if the thread has no hub yet and none can be made; see ``Hub/start()``.
    ///
    /// gevent: `greenlet.greenlet(function)`.
    @available(*, noasync)
    public convenience init(_ body: @escaping () throws -> Void) {
        self.init(hub: requireHub(), body)
    }

    /// As ``init(_:)``, on a stack of at least `stackSize` bytes; see ``Gevent/spawn(stackSize:_:)``.
    public convenience init(stackSize: Int, _ body: @escaping () throws -> Void) {
        self.init(hub: requireHub(), body)
        useStack(ofSize: stackSize)
    }

    package func start(_ hub: UnsafeMutablePointer<gevent_hub>) {
        countStart(hub)
        gevent_ready_push(hub, Unmanaged.passRetained(self).toOpaque(), startTag)
    }

    override func runOnStack(_ context: UnsafeMutablePointer<gevent_context>) {
        if phase == .ended { return detachOwner(context) }
        enter(context)
        let error = runBody()
        let hub = context.pointee.hub!
        recordEnd(error, hub)
        leave(context)
        // Only `killAll` and greenlets that have switched to a raw greenlet link to it.
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

    /// Delivers `error` to the greenlet without waiting; see ``Gevent/kill(_:throwing:sticky:)``.
    public func kill(throwing error: any Error = GreenletExit(), sticky: Bool = false) throws {
        _ = try ownHub()
        deliver(error, sticky: sticky)
    }
}

/// Makes a bare coroutine that runs `body`, and starts it. Returns before the body runs; never parks.
///
/// An error that the body throws is passed to ``Hub/errorHandler``; an exit is silent. Ends the program with a message
/// if the thread has no hub and none can be made; see ``Hub/start()``.
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

/// The greenlet that represents the thread's own stack.
package final class MainGreenlet: AnyGreenlet {
    package override var description: String { "<MainGreenlet\(knownName.map { " \"\($0)\"" } ?? "")>" }
}

/// The greenlet that represents the hub. It is current inside hub callbacks.
package final class HubGreenlet: AnyGreenlet {
    package override var description: String { "<HubGreenlet>" }
}
