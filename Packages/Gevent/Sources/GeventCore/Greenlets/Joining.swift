// Notification of the end of a greenlet. Its waiters are parked greenlets, `joinAll` calls and links.

internal import CGevent

extension AnyGreenlet {
    /// Parks until the greenlet has ended, or for at most `timeout`. Returns whether it ended in time.
    @usableFromInline
    final func waitForEnd(timeout: Duration?) throws -> Bool {
        let hub = try ownHub()
        if phase == .ended { return true }
        if let timeout, timeout <= .zero { return false }
        try checkPending(hub)
        let current = hub.pointee.current!
        if current == context {
            throw HubError(.wouldBlockForever, "a greenlet cannot wait for its own end: \(self)")
        }
        append(&current.pointee.wait_link, kind: GEVENT_LINK_WAKE, payload: current, hub)
        if let timeout { armTimeout(timeout, current, hub) }
        return try wait(hub, .join, self)
    }

    /// Adds a link. The owner of the node keeps the node alive while it is in the list.
    @inline(__always)
    final func append(
        _ link: UnsafeMutablePointer<gevent_link>, kind: Int, payload: UnsafeMutableRawPointer?,
        _ hub: UnsafeMutablePointer<gevent_hub>
    ) {
        link.pointee.kind = UInt32(kind)
        link.pointee.payload = payload
        let links = self.links ?? gevent_links_take(hub)!
        self.links = links
        gevent_list_append(&links.pointee.list, &link.pointee.node)
    }

    /// Marks the greenlet as ended. Records the order of ends, and handles the error that ended the greenlet, if any.
    @inline(__always)
    final func recordEnd(_ error: (any Error)?, _ hub: UnsafeMutablePointer<gevent_hub>) {
        phase = .ended
        hub.pointee.ended_count &+= 1
        endOrder = hub.pointee.ended_count
        if let error { Hub.of(hub).greenletEnded(self, with: error) }
    }

    /// As `recordEnd`, for a greenlet that never ran; also notifies its links. The caller keeps the body alive until
    /// this returns.
    final func recordUnstartedEnd(_ error: any Error, _ hub: UnsafeMutablePointer<gevent_hub>) {
        isNotifying = true
        recordEnd(error, hub)
        notifyLinks(hub)
        // Last, like the body: releasing the values may run user code, which may park.
        details?.dropInheritedLocals(hub)
    }

    /// Notifies all links, in registration order. Called once, after the end is recorded; `isNotifying` is set by then.
    ///
    /// Every link is added to the ready queue now: waiters are resumed, the greenlets of links start, and closures that
    /// run on the hub become its callbacks. So no consequence of a later end overtakes them. Registrations stay in the
    /// list until they are called, so that they can still be cancelled.
    final func notifyLinks(_ hub: UnsafeMutablePointer<gevent_hub>) {
        defer { isNotifying = false }
        guard let links else { return }
        while let link = gevent_links_first(links) {
            if gevent_link_is_registration(link) {
                notifyWithCursor(links, hub)
                break
            }
            notifyWaiter(link)
        }
        if gevent_list_is_empty(gevent_links_list(links)) { releaseLinks(hub) }
    }

    /// Notifies all links. A cursor marks the position, because registrations stay in the list and others may be added
    /// or removed meanwhile: the end of a member ends other members of its group, which releases their captures.
    @inline(never)
    private func notifyWithCursor(_ links: UnsafeMutablePointer<gevent_links>, _ hub: UnsafeMutablePointer<gevent_hub>)
    {
        var cursor = gevent_link()
        withUnsafeMutablePointer(to: &cursor) { cursor in
            gevent_links_begin(links, cursor)
            while let link = gevent_links_next(links, cursor) {
                switch Int(link.pointee.kind) {
                case GEVENT_LINK_OBJECT:
                    // Only joinable greenlets have registrations.
                    Unmanaged<GreenletLink>.fromOpaque(link.pointee.payload).takeUnretainedValue()
                        .notify(unsafeDowncast(self, to: JoinableGreenlet.self), hub)
                case GEVENT_LINK_CALLBACK: CallbackWaiter.of(link).callSoon(hub)
                default: notifyWaiter(link)
                }
            }
            gevent_node_unlink(&cursor.pointee.node)
        }
    }

    /// Notifies a link that is not a registration.
    @inline(__always)
    private func notifyWaiter(_ link: UnsafeMutablePointer<gevent_link>) {
        // Removed first, so that the link is notified only once, whatever the notification does.
        gevent_node_unlink(&link.pointee.node)
        switch Int(link.pointee.kind) {
        case GEVENT_LINK_WAKE:
            let context = link.pointee.payload.assumingMemoryBound(to: gevent_context.self)
            gevent_wait_end(context, UInt8(GEVENT_WAIT_WOKEN))
        case GEVENT_LINK_MEMBER:
            Unmanaged<EndCounter>.fromOpaque(link.pointee.payload)._withUnsafeGuaranteedRef { $0.memberEnded(self) }
        case Int(GEVENT_LINK_OBSERVE): EnlistedWaiter.choose(link)
        default:
            GreenletGroup.memberEnded(UnsafeMutableRawPointer(link).assumingMemoryBound(to: gevent_member.self))
        }
    }

    /// Releases the record of the links once the greenlet has ended and its last registration has left the list.
    final func releaseEmptyLinks() {
        guard phase == .ended, !isNotifying, let links, gevent_list_is_empty(gevent_links_list(links)),
            let hub = gevent_hub_current(), hub.pointee.serial == hubSerial
        else { return }
        releaseLinks(hub)
    }

    private func releaseLinks(_ hub: UnsafeMutablePointer<gevent_hub>) {
        gevent_links_release(hub, links)
        links = nil
    }

    /// Removes the links of a greenlet that is being deallocated. Only registrations are left, because waiters retain
    /// the greenlet. The hub may have been destroyed first.
    final func dropLinks() {
        guard let links else { return }
        let hub = gevent_hub_current().flatMap { $0.pointee.serial == hubSerial ? $0 : nil }
        while let link = gevent_links_first(links) {
            gevent_node_unlink(&link.pointee.node)
            if gevent_link_is_registration(link) {
                Unmanaged<AnyObject>.fromOpaque(link.pointee.payload).release()
            }
        }
        gevent_links_release(hub, links)
    }
}

/// Counts the ends of many greenlets for one waiter.
final class EndCounter {
    /// The members that have ended, in the order in which they ended. Not retained: the waiter retains all members.
    @exclusivity(unchecked) private(set) var ended: [Unmanaged<AnyGreenlet>] = []
    /// The position of the last of these among all ends; nil if members were counted in another order than they ended.
    @exclusivity(unchecked) private var lastOrder: UInt64? = 0
    @exclusivity(unchecked) private(set) var firstFailure: (any Error)?
    private let wanted: Int
    /// True only for joinable members.
    private let stopsAtFailure: Bool
    private let waiter: UnsafeMutablePointer<gevent_context>

    init(wanted: Int, stopsAtFailure: Bool, waiter: UnsafeMutablePointer<gevent_context>) {
        self.wanted = wanted
        self.stopsAtFailure = stopsAtFailure
        self.waiter = waiter
        ended.reserveCapacity(wanted)
    }

    var isSatisfied: Bool { ended.count >= wanted || firstFailure != nil }

    func memberEnded(_ greenlet: AnyGreenlet) {
        if isSatisfied { return }
        append(greenlet)
        if isSatisfied { gevent_wait_end(waiter, UInt8(GEVENT_WAIT_WOKEN)) }
    }

    private func append(_ greenlet: AnyGreenlet) {
        ended.append(Unmanaged.passUnretained(greenlet))
        lastOrder = lastOrder.flatMap { $0 <= greenlet.endOrder ? greenlet.endOrder : nil }
        if stopsAtFailure && firstFailure == nil { firstFailure = (greenlet as? JoinableGreenlet)?.error }
    }

    /// Corrects the result after the wait. The end of one greenlet may end others, whose links are notified first. So
    /// of two members, the one that ended first may have been counted last, or not yet. The result depends on when they
    /// ended.
    func settle(_ members: UnsafeBufferPointer<AnyGreenlet>) {
        if lastOrder != nil && ended.count == members.count { return }
        let dead = members.filter(\.isDead)
        if lastOrder != nil && ended.count == dead.count { return }
        ended.removeAll(keepingCapacity: true)
        lastOrder = 0
        firstFailure = nil
        for member in dead.sorted(by: { $0.endOrder < $1.endOrder }).prefix(wanted) { append(member) }
    }
}

/// Parks until `wanted` of `members` have ended, the timeout expires or, with `stopsAtFailure`, one has failed.
///
/// Not generic, because an unspecialised loop over an array allocates for each element.
func waitForEnds(
    of members: UnsafeBufferPointer<AnyGreenlet>, wanted: Int, timeout: Duration?, stopsAtFailure: Bool,
    _ hub: UnsafeMutablePointer<gevent_hub>
) throws -> EndCounter {
    let current = hub.pointee.current!
    let counter = EndCounter(wanted: wanted, stopsAtFailure: stopsAtFailure, waiter: current)
    var living = 0
    for member in members {
        _ = try member.ownHub()
        if !member.isDead { living += 1 }
    }
    if living < members.count {
        // Members that have ended already count in the order in which they ended.
        let dead = members.filter(\.isDead).sorted { $0.endOrder < $1.endOrder }
        for member in dead { counter.memberEnded(member) }
    }
    if counter.isSatisfied { return counter }
    if let timeout, timeout <= .zero { return counter }
    try checkPending(hub)

    let nodes = UnsafeMutablePointer<gevent_link>.allocate(capacity: living)
    nodes.initialize(repeating: gevent_link(), count: living)
    defer {
        // Removes all links to this memory, however the wait ended.
        for index in 0..<living { gevent_node_unlink(&nodes[index].node) }
        nodes.deallocate()
    }
    let payload = Unmanaged.passUnretained(counter).toOpaque()
    var node = nodes
    for member in members where !member.isDead {
        member.append(node, kind: GEVENT_LINK_MEMBER, payload: payload, hub)
        node += 1
    }
    if let timeout { armTimeout(timeout, current, hub) }
    _ = try withExtendedLifetime(counter) { try wait(hub, .joinAll, nil) }
    counter.settle(members)
    return counter
}

/// Parks until all of `greenlets` have ended, or `count` of them, or for at most `timeout`. Returns those that have
/// ended, in the order in which they ended. A duplicate counts, and is returned, each time.
///
/// The timeout is silent: the call returns the partial list. With `throwingErrors` it throws the earliest failure as
/// soon as it is known, and the other greenlets keep running. Exits are not failures. Throws what interrupts the
/// caller, and ``HubError`` with `.wouldBlockForever` in main, `.wrongThread` or `.blockedInHub`.
///
/// gevent: `gevent.joinall(greenlets, timeout=None, raise_error=False, count=None)`.
@inlinable
@available(*, noasync)
@discardableResult
public func joinAll<Member: JoinableGreenlet>(
    _ greenlets: some Sequence<Member>, timeout: Duration? = nil, throwingErrors: Bool = false, count: Int? = nil
) throws -> [Member] {
    try Array(greenlets).withUnsafeBufferPointer { members in
        // A reference to an object has the same representation for each class of the object.
        let ended = try members.withMemoryRebound(to: AnyGreenlet.self) {
            try joinMembers($0, timeout: timeout, throwingErrors: throwingErrors, count: count)
        }
        // Each is one of the members, which the array retains.
        return ended.map { unsafeDowncast($0.takeUnretainedValue(), to: Member.self) }
    }
}

/// Implements `joinAll` for members of any joinable class.
@usableFromInline
func joinMembers(
    _ members: UnsafeBufferPointer<AnyGreenlet>, timeout: Duration?, throwingErrors: Bool, count: Int?
) throws -> [Unmanaged<AnyGreenlet>] {
    let hub = try currentHub()
    let wanted = min(members.count, max(count ?? members.count, 0))
    let counter = try waitForEnds(
        of: members, wanted: wanted, timeout: timeout, stopsAtFailure: throwingErrors, hub)
    if throwingErrors, let failure = counter.firstFailure { throw failure }
    return counter.ended
}
