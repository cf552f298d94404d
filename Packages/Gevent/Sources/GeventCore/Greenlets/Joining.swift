// How the end of a greenlet reaches its waiters: parked greenlets, joinAll, and links.

internal import CGevent

extension AnyGreenlet {
    /// Whether it ended in time. Parks.
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

    /// Adds a link. The node's owner sees to it that it outlives its membership.
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

    /// The greenlet is over from here on. Remembers who ended before whom, and sees to the error that ended it, if any.
    @inline(__always)
    final func recordEnd(_ error: (any Error)?, _ hub: UnsafeMutablePointer<gevent_hub>) {
        phase = .ended
        hub.pointee.ended_count &+= 1
        endOrder = hub.pointee.ended_count
        if let error { Hub.of(hub).greenletEnded(self, with: error) }
    }

    /// The same for one that never ran; its links are notified. The caller keeps the body alive until this returns.
    final func recordUnstartedEnd(_ error: any Error, _ hub: UnsafeMutablePointer<gevent_hub>) {
        isNotifying = true
        recordEnd(error, hub)
        notifyLinks(hub)
        // Last, like the body, since they may run code of their own, and park, when they go.
        details?.dropInheritedLocals(hub)
    }

    /// Notifies all links, in registration order. Called once, after the end is recorded; `isNotifying` is set by then.
    ///
    /// Every link takes its place in the ready queue now: waiting greenlets are resumed, links' own greenlets start,
    /// and closures that run on the hub become callbacks of it. So nothing that a later end causes overtakes them.
    /// Registrations stay in the list until their turn, so that they can still be removed.
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
        if gevent_list_is_empty(gevent_links_list(links)) { giveBackLinks(hub) }
    }

    /// Notifies all links; those that stay in the list are passed by a cursor, since links may come and go meanwhile:
    /// the end of a member ends others of its group, which releases what they captured.
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
                case GEVENT_LINK_SOON: CallbackWaiter.of(link).callSoon(hub)
                default: notifyWaiter(link)
                }
            }
            gevent_node_unlink(&cursor.pointee.node)
        }
    }

    /// Notifies a link that is no registration.
    @inline(__always)
    private func notifyWaiter(_ link: UnsafeMutablePointer<gevent_link>) {
        // Removed before it is notified, so that this happens once whatever it does.
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

    /// Releases the record of the links of a greenlet that is over once the last registration has left it.
    final func releaseEmptyLinks() {
        guard phase == .ended, !isNotifying, let links, gevent_list_is_empty(gevent_links_list(links)),
            let hub = gevent_hub_current(), hub.pointee.serial == hubSerial
        else { return }
        giveBackLinks(hub)
    }

    private func giveBackLinks(_ hub: UnsafeMutablePointer<gevent_hub>) {
        gevent_links_release(hub, links)
        links = nil
    }

    /// What is still linked to a greenlet that is deallocated: registrations only, since waiters keep what they wait
    /// for. Its hub may be gone before it.
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

/// Counts the ends of many greenlets for one that waits for them.
final class EndCounter {
    /// Those that are over, in the order in which they ended. Not retained: whoever waits holds all members.
    @exclusivity(unchecked) private(set) var ended: [Unmanaged<AnyGreenlet>] = []
    /// The place of the last of them among all ends; nil if they were counted in another order than they ended.
    @exclusivity(unchecked) private var lastOrder: UInt64? = 0
    @exclusivity(unchecked) private(set) var firstFailure: (any Error)?
    private let wanted: Int
    /// Only for joinable members.
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

    /// After the wait. The end of a greenlet may end others, whose links are notified first, so of two members the one
    /// that ended first may have been counted last, or not yet. What counts is when they ended.
    func settle(_ members: UnsafeBufferPointer<AnyGreenlet>) {
        if lastOrder != nil && ended.count == members.count { return }
        let over = members.filter(\.isDead)
        if lastOrder != nil && ended.count == over.count { return }
        ended.removeAll(keepingCapacity: true)
        lastOrder = 0
        firstFailure = nil
        for member in over.sorted(by: { $0.endOrder < $1.endOrder }).prefix(wanted) { append(member) }
    }
}

/// Waits until `wanted` of `members` have ended, or the time is up, or, if asked for, one has failed.
///
/// Not generic, since an unspecialised loop over an array allocates for each element.
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
        // Those that are over count in the order in which they ended.
        let over = members.filter(\.isDead).sorted { $0.endOrder < $1.endOrder }
        for member in over { counter.memberEnded(member) }
    }
    if counter.isSatisfied { return counter }
    if let timeout, timeout <= .zero { return counter }
    try checkPending(hub)

    let nodes = UnsafeMutablePointer<gevent_link>.allocate(capacity: living)
    nodes.initialize(repeating: gevent_link(), count: living)
    defer {
        // Whichever way the wait ended, nobody keeps a link to memory that goes away.
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

/// Parks until all of `greenlets` are over, or `count` of them, or for at most `timeout`. Returns those that are over,
/// in the order in which they ended; a duplicate counts, and is returned, each time.
///
/// The timeout is silent and gives the partial list. With `throwingErrors` the failure that came first in time is
/// thrown as soon as it is known, and the others run on. Exits are no failures. Throws what interrupts the caller, and
/// ``HubError`` with `.wouldBlockForever` in main, `.wrongThread`, `.blockedInHub`.
///
/// gevent: `gevent.joinall(greenlets, timeout=None, raise_error=False, count=None)`.
@inlinable
@available(*, noasync)
@discardableResult
public func joinAll<Member: JoinableGreenlet>(
    _ greenlets: some Sequence<Member>, timeout: Duration? = nil, throwingErrors: Bool = false, count: Int? = nil
) throws -> [Member] {
    try Array(greenlets).withUnsafeBufferPointer { members in
        // A reference to an object looks the same whichever of its classes the pointer names.
        let ended = try members.withMemoryRebound(to: AnyGreenlet.self) {
            try joinMembers($0, timeout: timeout, throwingErrors: throwingErrors, count: count)
        }
        // Each is one of the members, which the array holds.
        return ended.map { unsafeDowncast($0.takeUnretainedValue(), to: Member.self) }
    }
}

/// `joinAll` for members of any class that can be joined.
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
