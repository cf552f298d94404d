internal import CGevent

/// The ends of a greenlet that a link is called for.
public enum LinkCondition: Sendable, Hashable {
    /// Every end.
    case exit
    /// A normal end or an exit.
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

/// A closure that is called when a greenlet has ended. Returned by `link`.
final class GreenletLink: Registration {
    fileprivate let node: UnsafeMutablePointer<gevent_link>
    /// Not retained. Alive while the node is in a list, because the greenlet's deinit removes the node.
    private let greenlet: Unmanaged<JoinableGreenlet>
    private let condition: LinkCondition
    private let isRaw: Bool
    private var callback: ((JoinableGreenlet) throws -> Void)?

    init(
        to greenlet: JoinableGreenlet, _ condition: LinkCondition, isRaw: Bool,
        _ callback: @escaping (JoinableGreenlet) throws -> Void
    ) {
        node = .allocate(capacity: 1)
        node.initialize(to: gevent_link())
        self.greenlet = Unmanaged.passUnretained(greenlet)
        self.condition = condition
        self.isRaw = isRaw
        self.callback = callback
    }

    deinit {
        // A list retains its links, so the node is in no list now.
        node.deallocate()
    }

    /// Adds the closure to the ready queue if the end meets the condition. A raw link runs on the hub, any other in its
    /// own greenlet. `cancel()` can still prevent the call.
    func notify(_ greenlet: JoinableGreenlet, _ hub: UnsafeMutablePointer<gevent_hub>) {
        if !condition.isMet(by: greenlet) {
            // Released on the hub: a `deinit` of a captured object may run user code, which must not park.
            let release = { self.releaseCallback() }
            leaveList(of: greenlet)
            Hub.of(hub).enqueue(release)
        } else if isRaw {
            Hub.of(hub).enqueue { try self.takeCallback(greenlet)?(greenlet) }
        } else {
            RawGreenlet(ofLinkOn: hub) { try self.takeCallback(greenlet)?(greenlet) }.start(hub)
        }
    }

    /// Removes and returns the closure for its only call; nil if an earlier link cancelled this one.
    private func takeCallback(_ greenlet: JoinableGreenlet) -> ((JoinableGreenlet) throws -> Void)? {
        let taken = callback
        callback = nil
        leaveList(of: greenlet)
        return taken
    }

    /// Removes the node from its list. The list retains its links, so the caller must retain this one.
    private func leaveList(of greenlet: JoinableGreenlet) {
        guard gevent_node_is_linked(&node.pointee.node) else { return }
        gevent_node_unlink(&node.pointee.node)
        Unmanaged.passUnretained(self).release()
        greenlet.releaseEmptyLinks()
    }

    /// Releases the closure after the property is nil: a `deinit` of a captured object may access the link.
    private func releaseCallback() {
        let released = callback
        callback = nil
        withExtendedLifetime(released) {}
    }

    override var isActive: Bool { gevent_node_is_linked(&node.pointee.node) }

    override func cancel() {
        if !isActive { return releaseCallback() }
        let greenlet = greenlet.takeUnretainedValue()
        _ = Registration.requireThread(ofHub: greenlet.hubSerial)
        leaveList(of: greenlet)
        releaseCallback()
    }
}

extension Greenlet {
    /// Calls `callback` once, with this greenlet, when it has ended. The call runs in its own greenlet, so it may park
    /// without delaying other links. An error that it throws is reported and does not affect other links.
    ///
    /// Links of all kinds run in registration order, and before the links of greenlets that end later. `link` itself
    /// never calls `callback`: on a greenlet that has ended, `callback` runs as soon as the caller parks or yields,
    /// regardless of earlier links. If it is registered twice, it runs twice. Cancelling the registration prevents the
    /// call, even after the greenlet has ended. Traps on another thread.
    ///
    /// gevent: `Greenlet.link(callback)`, `unlink(callback)`.
    @discardableResult
    public final func link(_ callback: @escaping (Greenlet<Output>) throws -> Void) -> Registration {
        add(.exit, isRaw: false, callback)
    }

    /// As ``link(_:)``, but only if the greenlet succeeds; a silent death counts as success.
    ///
    /// gevent: `Greenlet.link_value(callback)`.
    @discardableResult
    public final func linkValue(_ callback: @escaping (Greenlet<Output>) throws -> Void) -> Registration {
        add(.value, isRaw: false, callback)
    }

    /// As ``link(_:)``, but only if the body fails with an error.
    ///
    /// gevent: `Greenlet.link_exception(callback)`.
    @discardableResult
    public final func linkError(_ callback: @escaping (Greenlet<Output>) throws -> Void) -> Registration {
        add(.error, isRaw: false, callback)
    }

    /// As ``link(_:)``, but `callback` runs on the hub, without its own greenlet, and must not park. An attempt to park
    /// is reported as ``HubError`` with `.blockedInHub`.
    ///
    /// gevent: `Greenlet.rawlink(callback)`.
    @discardableResult
    public final func rawLink(_ callback: @escaping (Greenlet<Output>) throws -> Void) -> Registration {
        add(.exit, isRaw: true, callback)
    }

    private func add(
        _ condition: LinkCondition, isRaw: Bool, _ callback: @escaping (Greenlet<Output>) throws -> Void
    ) -> Registration {
        addLink(condition, isRaw: isRaw) { greenlet in
            // A link is notified with the greenlet that it was added to.
            try callback(unsafeDowncast(greenlet, to: Greenlet<Output>.self))
        }
    }
}

extension JoinableGreenlet {
    final func addLink(
        _ condition: LinkCondition, isRaw: Bool, _ callback: @escaping (JoinableGreenlet) throws -> Void
    ) -> Registration {
        let hub = requireOwnHub()
        let link = GreenletLink(to: self, condition, isRaw: isRaw, callback)
        append(link.node, kind: GEVENT_LINK_OBJECT, payload: Unmanaged.passRetained(link).toOpaque(), hub)
        if isReady && !isNotifying { link.notify(self, hub) }
        return link
    }

    /// Whether there is a registration that has not been called. Greenlets parked in `join` or `get` do not count.
    /// Traps on another thread.
    ///
    /// gevent: `Greenlet.has_links()`.
    public final var hasLinks: Bool {
        _ = requireOwnHub()
        return links.flatMap { gevent_links_first_registration($0) } != nil
    }

    /// Removes every registration that has not been called. Greenlets parked in `join` or `get` keep waiting. Traps on
    /// another thread.
    ///
    /// gevent: `Greenlet.unlink_all()`.
    public final func unlinkAll() {
        _ = requireOwnHub()
        // Starts from the first link in each round: releasing a closure may run code that changes the links.
        while let link = links.flatMap({ gevent_links_first_registration($0) }) {
            if link.pointee.kind == GEVENT_LINK_OBJECT {
                Unmanaged<GreenletLink>.fromOpaque(link.pointee.payload).takeUnretainedValue().cancel()
            } else {
                CallbackWaiter.of(link).cancel()
            }
        }
        releaseEmptyLinks()
    }
}
