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

    /// Whether to be told of this end calls nothing, and so can be done anywhere.
    func startsGreenlet(at greenlet: AnyGreenlet) -> Bool {
        guard !isRaw, let greenlet = greenlet as? JoinableGreenlet else { return false }
        return condition.isMet(by: greenlet)
    }

    /// Runs the closure if the end is one it is told of: in the hub if it is raw, else in a greenlet of its own.
    func tell(_ greenlet: AnyGreenlet, _ hub: UnsafeMutablePointer<gevent_hub>) {
        guard let greenlet = greenlet as? JoinableGreenlet else { return }
        if !condition.isMet(by: greenlet) { return forgetCallback() }
        if isRaw {
            call(greenlet, reportingTo: Hub.of(hub))
        } else {
            // Looked up when the greenlet runs: an earlier link may still remove this one.
            RawGreenlet(ofLinkOn: hub) { try self.takeCallback()?(greenlet) }.start(hub)
        }
    }

    private func call(_ greenlet: JoinableGreenlet, reportingTo hub: Hub) {
        do {
            try takeCallback()?(greenlet)
        } catch {  // control: raw links run on the hub, where nothing can be killed
            hub.callbackFailed(error)
        }
    }

    private func takeCallback() -> ((JoinableGreenlet) throws -> Void)? {
        defer { callback = nil }
        return callback
    }

    /// What the closure captured goes when the link has forgotten it: it may look at the link.
    private func forgetCallback() {
        let forgotten = callback
        callback = nil
        withExtendedLifetime(forgotten) {}
    }

    /// After this the closure is never called.
    fileprivate func cancel() {
        if gevent_node_is_linked(&node.pointee.node) {
            gevent_node_unlink(&node.pointee.node)
            Unmanaged.passUnretained(self).release()
        }
        forgetCallback()
    }
}

@available(*, unavailable)
extension GreenletLink: Sendable {}

extension Greenlet {
    /// Calls `callback` once, with this greenlet, when it is over: in a greenlet of its own, so it may park without
    /// delaying other links, and an error it throws is reported and stops nothing else.
    ///
    /// Links are told in registration order, whatever their kinds. Never called inside `link` itself: on a greenlet
    /// that is over, `callback` runs as soon as the caller parks or yields. Registered twice, it runs twice. Traps on a
    /// foreign thread.
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
        if isReady { notifyLinks(hub) }
        return link
    }

    /// Removes a registration of any kind. One that was removed before, has run, or is another greenlet's is fine.
    /// Traps on a foreign thread.
    ///
    /// gevent: `Greenlet.unlink(callback)`.
    public final func unlink(_ link: GreenletLink) {
        _ = requireOwnHub()
        guard link.source == ObjectIdentifier(self) else { return }
        link.cancel()
    }

    /// Whether a registration waits to be told. Greenlets parked in `join` or `get` are none. Traps on a foreign
    /// thread.
    ///
    /// gevent: `Greenlet.has_links()`.
    public final var hasLinks: Bool {
        _ = requireOwnHub()
        return links.flatMap { gevent_links_first_registration($0) } != nil
    }

    /// Removes every registration that was not told; greenlets parked in `join` or `get` go on waiting. Traps on a
    /// foreign thread.
    ///
    /// gevent: `Greenlet.unlink_all()`.
    public final func unlinkAll() {
        _ = requireOwnHub()
        // What a closure captured may look at the links when it goes, so each round begins anew.
        while let link = links.flatMap({ gevent_links_first_registration($0) }) {
            if link.pointee.kind == GEVENT_LINK_OBJECT {
                Unmanaged<GreenletLink>.fromOpaque(link.pointee.payload).takeUnretainedValue().cancel()
            } else {
                Unmanaged<WaitLink>.fromOpaque(link.pointee.payload).takeUnretainedValue().cancel()
            }
        }
    }
}
