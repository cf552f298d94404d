package import CGevent

/// What can be waited for together with others, by ``wait(_:timeout:count:)->[Object]`` and
/// ``iwait(_:timeout:count:_:)-(_,_,_,(Object)->Void)``.
///
/// Greenlets, ``Event``, ``AsyncResult``, ``Semaphore`` and ``ChildWatch`` are. A type of one's own conforms most
/// easily by passing the calls on to an ``Event`` it has:
///
/// ```swift
/// final class Download: Waitable {
///     private let finished = Event()
///     var isReady: Bool { finished.isReady }
///     func rawLink(_ callback: @escaping () throws -> Void) -> WaitLink { finished.rawLink(callback) }
/// }
/// ```
///
/// gevent: whatever has `rawlink`, `unlink` and `ready`.
public protocol Waitable: AnyObject {
    /// Whether a wait for it would return at once.
    var isReady: Bool { get }

    /// Sees to it that `callback` is called once, on the hub, soon after the object has become ready, or soon if it is.
    ///
    /// Never called inside `rawLink` itself. `callback` must not park, and an error it throws is reported. On the
    /// thread of the object's hub. Each registration has its own token, which is removed before it is called. A type
    /// that calls its callbacks itself makes a ``WaitLink`` and calls ``WaitLink/tell()``.
    @discardableResult
    func rawLink(_ callback: @escaping () throws -> Void) -> WaitLink

    /// Removes a registration. One that was removed before, or has been called, is fine.
    ///
    /// By default it cancels `link`, after which its callback is not called any more, and leaves it to its owner to
    /// forget it.
    func unlink(_ link: WaitLink)
}

extension Waitable {
    public func unlink(_ link: WaitLink) { link.cancel() }
}

/// The registration of a callback with something that becomes ready: what ``Waitable/rawLink(_:)`` returns.
public final class WaitLink {
    private let node: UnsafeMutablePointer<gevent_link>
    private var callback: (() throws -> Void)?
    /// The object it was made for, if that is one of the library's.
    fileprivate private(set) var source: ObjectIdentifier?

    /// A registration of `callback`, for a ``Waitable`` that keeps its own.
    public init(_ callback: @escaping () throws -> Void) {
        node = .allocate(capacity: 1)
        node.initialize(to: gevent_link())
        self.callback = callback
    }

    deinit {
        // While it is linked the list retains it, so the node stands in no list now.
        node.deallocate()
    }

    /// Whether the callback is still to be called.
    public var isPending: Bool { callback != nil }

    /// Queues the call of the callback on this thread's hub; at most one call comes of it, however often it is told.
    /// Never parks, and works in a hub callback too.
    public func tell() { tell(requireHub()) }

    /// After this the callback is never called. Repeatable. On the thread of its hub.
    public func cancel() {
        // What the callback captured goes at the end: it may look at this link.
        let forgotten = callback
        callback = nil
        leaveList()
        withExtendedLifetime(forgotten) {}
    }

    /// Looked up when the callback's turn comes: an earlier one may still cancel this.
    func tell(_ hub: UnsafeMutablePointer<gevent_hub>) {
        if callback == nil { return }
        Hub.of(hub).enqueue { try self.takeCallback()?() }
    }

    private func takeCallback() -> (() throws -> Void)? {
        let taken = callback
        callback = nil
        leaveList()
        return taken
    }

    /// The list retains its members, so the caller holds the link.
    private func leaveList() {
        guard gevent_node_is_linked(&node.pointee.node) else { return }
        gevent_node_unlink(&node.pointee.node)
        Unmanaged.passUnretained(self).release()
    }

    /// Stands in `list` from now on, which retains it.
    fileprivate func stand(in list: inout LinkList, of source: AnyObject, _ hub: UnsafeMutablePointer<gevent_hub>) {
        self.source = ObjectIdentifier(source)
        list.append(node, kind: GEVENT_LINK_SOON, payload: Unmanaged.passRetained(self).toOpaque(), hub)
    }

    fileprivate func stand(inLinksOf greenlet: JoinableGreenlet, _ hub: UnsafeMutablePointer<gevent_hub>) {
        source = ObjectIdentifier(greenlet)
        greenlet.append(node, kind: GEVENT_LINK_SOON, payload: Unmanaged.passRetained(self).toOpaque(), hub)
    }
}

@available(*, unavailable)
extension WaitLink: Sendable {}

/// What ``Event``, ``AsyncResult``, ``Semaphore`` and ``ChildWatch`` have in common: whoever waits stands in one line.
///
/// They may be made before any hub exists, and belong to the thread that first uses them.
open class WaitableObject: Waitable {
    @usableFromInline @exclusivity(unchecked) package final var home = Home()
    @usableFromInline @exclusivity(unchecked) package final var line = LinkList()
    /// When it became ready, on the same count as the ends of greenlets.
    @exclusivity(unchecked) final var readyOrder: UInt64 = 0
    /// Until the ready queue has come this far, greenlets that were woken have not run.
    @exclusivity(unchecked) private final var wakeMark: UInt64 = 0

    @usableFromInline
    package init() {}

    deinit { line.drop(home: home) }

    /// Whether a wait for it would return at once.
    ///
    /// gevent: `ready()`.
    open var isReady: Bool { preconditionFailure("overridden by every kind of object") }

    /// How many greenlets wait for it and how many callbacks are linked to it. Linear; for tests and reports.
    ///
    /// gevent: `linkcount()`.
    public final var linkCount: Int { line.count }

    /// Calls `callback` once, on the hub, soon after the object has become ready, or soon if it is; never inside
    /// `rawLink` itself. It must not park: that is reported as ``HubError`` with `.blockedInHub`, like an error it
    /// throws. The order of registration is kept. Traps on a foreign thread.
    ///
    /// gevent: `rawlink(callback)`.
    @discardableResult
    public final func rawLink(_ callback: @escaping () throws -> Void) -> WaitLink {
        let hub = home.requireHub()
        let link = WaitLink(callback)
        if isReady {
            link.tell(hub)
        } else {
            link.stand(in: &line, of: self, hub)
        }
        return link
    }

    /// Removes a registration. One that was removed before, or has been called, is fine. Traps on a foreign thread.
    ///
    /// gevent: `unlink(callback)`.
    public final func unlink(_ link: WaitLink) {
        _ = home.requireHub()
        // One that was queued at once, because the object was ready, stands nowhere.
        guard link.source == nil || link.source == ObjectIdentifier(self) else { return }
        link.cancel()
    }

    /// Remembers who was ready before whom.
    @inline(__always)
    package final func recordReadiness(_ hub: UnsafeMutablePointer<gevent_hub>) {
        hub.pointee.ended_count &+= 1
        readyOrder = hub.pointee.ended_count
    }

    /// The part of ``AsyncResult`` that does not depend on its value: it has one now.
    @usableFromInline
    final func didBecomeReady(isFirst: Bool) {
        let hub = home.requireHub()
        if isFirst { recordReadiness(hub) }
        tellAll(hub)
    }

    /// The same for whoever waits for it.
    @usableFromInline
    final func waitForResult(_ timeout: Duration?) throws -> Bool { try park(home.hub(), .result, timeout) }

    /// Tells everyone who stands in line, in order. All of this only queues, so nobody can join the line meanwhile.
    @inline(__always)
    package final func tellAll(_ hub: UnsafeMutablePointer<gevent_hub>) {
        if line.isEmpty { return }
        while let link = line.first { tell(link, hub) }
        rememberWaking(hub)
    }

    @inline(__always)
    final func rememberWaking(_ hub: UnsafeMutablePointer<gevent_hub>) { wakeMark = hub.pointee.ready_tail }

    /// Tells the first in line, one who only wants to be told.
    final func tell(_ link: UnsafeMutablePointer<gevent_link>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        switch Int(link.pointee.kind) {
        case GEVENT_LINK_WAKE:
            gevent_wait_end(gevent_context_of_wait_link(link), UInt8(GEVENT_WAIT_WOKEN))
        case GEVENT_LINK_COLLECT:
            gevent_node_unlink(&link.pointee.node)
            Unmanaged<ReadyCollector>.fromOpaque(link.pointee.payload)._withUnsafeGuaranteedRef { $0.told(link) }
        default:
            gevent_node_unlink(&link.pointee.node)
            Unmanaged<WaitLink>.fromOpaque(link.pointee.payload).takeRetainedValue().tell(hub)
        }
    }

    /// Parks until it is told. Returns whether that came before the time was up. Reports show `object`, or else this
    /// one.
    package final func park(
        _ hub: UnsafeMutablePointer<gevent_hub>, _ kind: WaitKind, _ timeout: Duration?,
        showing object: UnsafeRawPointer? = nil
    ) throws -> Bool {
        if let timeout, timeout <= .zero { return false }
        try attend(hub)
        let current = hub.pointee.current!
        line.append(&current.pointee.wait_link, kind: GEVENT_LINK_WAKE, payload: nil, hub)
        if let timeout { armTimeout(timeout, current, hub) }
        return try GeventCore.wait(hub, kind, object ?? UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque()))
    }

    /// It is ready; but whoever had to wait for that comes before those who find it so, if they have not run yet.
    /// Without a poll. On the hub, or if there is something to raise, nobody is let go first.
    @inline(__always)
    final func letEarlierGoFirst(_ hub: UnsafeMutablePointer<gevent_hub>, _ timeout: Duration?) {
        if gevent_ready_has_passed(hub, wakeMark) { return }
        if let timeout, timeout <= .zero { return }
        _ = gevent_yield()
    }
}

@available(*, unavailable)
extension WaitableObject: Sendable {}

extension JoinableGreenlet: Waitable {
    /// Calls `callback` once, on the hub, soon after the greenlet is over, or soon if it is; never inside `rawLink`
    /// itself. It must not park. Traps on a foreign thread.
    ///
    /// gevent: `Greenlet.rawlink(callback)`.
    @discardableResult
    public final func rawLink(_ callback: @escaping () throws -> Void) -> WaitLink {
        let hub = requireOwnHub()
        let link = WaitLink(callback)
        // Also if it is over: until its turn comes it is one of the greenlet's links.
        link.stand(inLinksOf: self, hub)
        if isReady && !isNotifying { link.tell(hub) }
        return link
    }

    /// Removes a registration. One that was removed before, or has been called, is fine. Traps on a foreign thread.
    public final func unlink(_ link: WaitLink) {
        _ = requireOwnHub()
        guard link.source == nil || link.source == ObjectIdentifier(self) else { return }
        link.cancel()
        releaseEmptyLinks()
    }
}
