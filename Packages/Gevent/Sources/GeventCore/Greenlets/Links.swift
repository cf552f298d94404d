internal import CGevent

/// A registration with a greenlet: what `link` returns and `unlink` takes. Closures have no identity.
public final class GreenletLink {
    /// Which ends it is told of.
    public enum Condition: Sendable, Hashable {
        /// Every one.
        case exit
        /// A normal end or a silent death.
        case value
        /// A failure.
        case error

        func isMet(by greenlet: JoinableGreenlet) -> Bool {
            switch self {
            case .exit: true
            case .value: greenlet.error == nil
            case .error: greenlet.error != nil
            }
        }
    }

    fileprivate let node: UnsafeMutablePointer<gevent_link>
    fileprivate let source: ObjectIdentifier
    private let condition: Condition
    private let isRaw: Bool
    private var callback: ((JoinableGreenlet) throws -> Void)?

    init(
        to greenlet: JoinableGreenlet, _ condition: Condition, isRaw: Bool,
        _ callback: @escaping (JoinableGreenlet) throws -> Void
    ) {
        node = .allocate(capacity: 1)
        node.initialize(to: gevent_link())
        source = ObjectIdentifier(greenlet)
        self.condition = condition
        self.isRaw = isRaw
        self.callback = callback
    }

    deinit {
        // While it is linked the list retains it, so the node stands in no list now.
        node.deallocate()
    }

    /// Gives the closure its place in the ready queue, if the end meets the condition: on the hub if the link is raw,
    /// else in a greenlet of its own. `unlink` can still prevent the call.
    func notify(_ greenlet: JoinableGreenlet, _ hub: UnsafeMutablePointer<gevent_hub>) {
        if !condition.isMet(by: greenlet) {
            // Forgotten on the hub: what the closure captured may run code of its own, which must not park.
            let forget = { self.forgetCallback() }
            leaveList(of: greenlet)
            Hub.of(hub).enqueue(forget)
        } else if isRaw {
            Hub.of(hub).enqueue { try self.takeCallback(greenlet)?(greenlet) }
        } else {
            RawGreenlet(ofLinkOn: hub) { try self.takeCallback(greenlet)?(greenlet) }.start(hub)
        }
    }

    /// Returns the closure for its only call; nil if an earlier link removed this one.
    private func takeCallback(_ greenlet: JoinableGreenlet) -> ((JoinableGreenlet) throws -> Void)? {
        let taken = callback
        callback = nil
        leaveList(of: greenlet)
        return taken
    }

    /// The list retains its members, so the caller holds the link.
    private func leaveList(of greenlet: JoinableGreenlet) {
        guard gevent_node_is_linked(&node.pointee.node) else { return }
        gevent_node_unlink(&node.pointee.node)
        Unmanaged.passUnretained(self).release()
        greenlet.releaseEmptyLinks()
    }

    /// What the closure captured goes when the link has forgotten it: it may look at the link.
    private func forgetCallback() {
        let forgotten = callback
        callback = nil
        withExtendedLifetime(forgotten) {}
    }

    /// After this the closure is never called.
    fileprivate func cancel(at greenlet: JoinableGreenlet) {
        leaveList(of: greenlet)
        forgetCallback()
    }
}

@available(*, unavailable)
extension GreenletLink: Sendable {}

extension Greenlet {
    /// Calls `callback` once, with this greenlet, when it is over: in a greenlet of its own, so it may park without
    /// delaying other links, and an error it throws is reported and stops nothing else.
    ///
    /// Links run in registration order, whatever their kinds, and before those of greenlets that end later. Never
    /// called inside `link` itself: on a greenlet that is over, `callback` runs as soon as the caller parks or yields,
    /// whatever was linked before it. Registered twice, it runs twice. Traps on a foreign thread.
    ///
    /// gevent: `Greenlet.link(callback)`.
    @discardableResult
    public final func link(_ callback: @escaping (Greenlet<Output>) throws -> Void) -> GreenletLink {
        add(.exit, isRaw: false, callback)
    }

    /// As ``link(_:)``, only when it succeeds; a silent death counts as success.
    ///
    /// gevent: `Greenlet.link_value(callback)`.
    @discardableResult
    public final func linkValue(_ callback: @escaping (Greenlet<Output>) throws -> Void) -> GreenletLink {
        add(.value, isRaw: false, callback)
    }

    /// As ``link(_:)``, only when the body failed with an error.
    ///
    /// gevent: `Greenlet.link_exception(callback)`.
    @discardableResult
    public final func linkError(_ callback: @escaping (Greenlet<Output>) throws -> Void) -> GreenletLink {
        add(.error, isRaw: false, callback)
    }

    /// As ``link(_:)``, but runs in the hub, without a greenlet of its own, and must not park: that is reported as
    /// ``HubError`` with `.blockedInHub`.
    ///
    /// gevent: `Greenlet.rawlink(callback)`.
    @discardableResult
    public final func rawLink(_ callback: @escaping (Greenlet<Output>) throws -> Void) -> GreenletLink {
        add(.exit, isRaw: true, callback)
    }

    private func add(
        _ condition: GreenletLink.Condition, isRaw: Bool, _ callback: @escaping (Greenlet<Output>) throws -> Void
    ) -> GreenletLink {
        addLink(condition, isRaw: isRaw) { greenlet in
            // A link is told of the greenlet it was made for.
            try callback(unsafeDowncast(greenlet, to: Greenlet<Output>.self))
        }
    }
}

extension JoinableGreenlet {
    final func addLink(
        _ condition: GreenletLink.Condition, isRaw: Bool, _ callback: @escaping (JoinableGreenlet) throws -> Void
    ) -> GreenletLink {
        let hub = requireOwnHub()
        let link = GreenletLink(to: self, condition, isRaw: isRaw, callback)
        append(link.node, kind: GEVENT_LINK_OBJECT, payload: Unmanaged.passRetained(link).toOpaque(), hub)
        if isReady && !isNotifying { link.notify(self, hub) }
        return link
    }

    /// Removes a registration of any kind. One that was removed before, has run, or is another greenlet's is fine.
    /// Traps on a foreign thread.
    ///
    /// gevent: `Greenlet.unlink(callback)`.
    public final func unlink(_ link: GreenletLink) {
        _ = requireOwnHub()
        guard link.source == ObjectIdentifier(self) else { return }
        link.cancel(at: self)
    }

    /// Whether a registration waits for its call. Greenlets parked in `join` or `get` are none. Traps on a foreign
    /// thread.
    ///
    /// gevent: `Greenlet.has_links()`.
    public final var hasLinks: Bool {
        _ = requireOwnHub()
        return links.flatMap { gevent_links_first_registration($0) } != nil
    }

    /// Removes every registration whose closure has not been called; greenlets parked in `join` or `get` go on waiting.
    /// Traps on a foreign thread.
    ///
    /// gevent: `Greenlet.unlink_all()`.
    public final func unlinkAll() {
        _ = requireOwnHub()
        // What a closure captured may look at the links when it goes, so each round begins anew.
        while let link = links.flatMap({ gevent_links_first_registration($0) }) {
            if link.pointee.kind == GEVENT_LINK_OBJECT {
                Unmanaged<GreenletLink>.fromOpaque(link.pointee.payload).takeUnretainedValue().cancel(at: self)
            } else {
                Unmanaged<WaitLink>.fromOpaque(link.pointee.payload).takeUnretainedValue().cancel()
            }
        }
        releaseEmptyLinks()
    }
}
