// Waiters that may be enlisted with several objects at once. A greenlet that waits for one object of the library's
// needs none of this: the link in its context is all it has.

internal import CGevent

/// The waiter behind an ``Enlistment``: an array of links, each of which is in the list of one object.
///
/// Element 0 is in no list and leads from a link back to the waiter; see `gevent_link_waiter`.
class EnlistedWaiter {
    final let links: UnsafeMutablePointer<gevent_link>
    private final let hubSerial: UInt32

    init(count: Int, _ hub: UnsafeMutablePointer<gevent_hub>) {
        hubSerial = hub.pointee.serial
        links = .allocate(capacity: count + 1)
        links.initialize(repeating: gevent_link(), count: count + 1)
        for place in 1...count { links[place].place = UInt32(place) }
        links.pointee.place = UInt32(count)
        links.pointee.payload = Unmanaged.passUnretained(self).toOpaque()
    }

    deinit {
        // However the wait ended, no list keeps a link to this memory.
        gevent_links_withdraw(links)
        links.deallocate()
    }

    /// An object has chosen the waiter, or refuses it with `error`. The link is in no list any more.
    func wasChosen(at place: Int, throwing error: (any Error)?) { preconditionFailure("overridden by every kind") }

    /// Whether it is a callback's: links of callbacks are retained by their list.
    var isCallback: Bool { false }

    final func isWaiting(at place: Int) -> Bool { gevent_link_is_waiting(links + place) }

    final var isHere: Bool { gevent_hub_current().map { $0.pointee.serial == hubSerial } ?? false }

    final func requireThread() {
        if !isHere { fatalError("\(HubError.notHere(hubSerial))") }
    }

    final func choose(at place: Int, throwing error: (any Error)?) {
        leaveList(at: place)
        links[place].kind = UInt32(GEVENT_LINK_CHOSEN)
        wasChosen(at: place, throwing: error)
    }

    /// No other object can choose the waiter from now on.
    final func withdraw(keeping place: Int) {
        leaveList(at: place)
        links[place].kind = UInt32(GEVENT_LINK_CHOSEN)
        gevent_links_withdraw(links)
    }

    /// The caller holds the waiter, since a list may hold it too.
    final func leaveList(at place: Int) {
        guard gevent_node_is_linked(&links[place].node) else { return }
        gevent_node_unlink(&links[place].node)
        if isCallback { Unmanaged.passUnretained(self).release() }
    }

    /// The object in whose list `link` is chooses its waiter, or refuses it.
    static func choose(_ link: UnsafeMutablePointer<gevent_link>, throwing error: (any Error)? = nil) {
        let waiter = Unmanaged<EnlistedWaiter>.fromOpaque(gevent_link_waiter(link)).takeUnretainedValue()
        waiter.choose(at: Int(link.pointee.place), throwing: error)
    }
}

extension Enlistment {
    var link: UnsafeMutablePointer<gevent_link> { waiter.links + place }

    var isCallback: Bool { waiter.isCallback }

    /// Gets the link ready for a list, and returns its kind: `purpose` if the waiter takes what is handed over.
    func prepareLink(taking purpose: Int = Int(GEVENT_LINK_OBSERVE)) -> Int {
        if isCallback {
            link.pointee.payload = Unmanaged.passRetained(waiter).toOpaque()
            return Int(GEVENT_LINK_SOON)
        }
        link.pointee.payload = UnsafeMutableRawPointer(room)
        return room == nil ? Int(GEVENT_LINK_OBSERVE) : purpose
    }

    func leaveList() { waiter.leaveList(at: place) }
}

extension WaitQueue {
    /// Adds a waiter, with `purpose` if it takes what is handed over.
    mutating func append<Handover>(
        _ waiter: Enlistment<Handover>, taking purpose: Int = Int(GEVENT_LINK_OBSERVE),
        _ hub: UnsafeMutablePointer<gevent_hub>
    ) {
        append(waiter.link, kind: waiter.prepareLink(taking: purpose), payload: waiter.link.pointee.payload, hub)
    }
}

/// The greenlet that waits for several objects: for `enough` of them, or for one that hands something over.
final class MultiWait: EnlistedWaiter {
    /// The places of the objects that have chosen it, from 0 on and in this order.
    @exclusivity(unchecked) private(set) var chosen: [Int] = []
    private let enough: Int
    @exclusivity(unchecked) private var failure: (any Error)?
    /// Set only while its greenlet is parked here, so that no other wait of that greenlet is ended.
    @exclusivity(unchecked) private var parked: UnsafeMutablePointer<gevent_context>?
    @exclusivity(unchecked) private var wanted = 0

    init(count: Int, enough: Int, _ hub: UnsafeMutablePointer<gevent_hub>) {
        self.enough = enough
        super.init(count: count, hub)
    }

    /// Counts an object that is ready already.
    func note(_ place: Int) { chosen.append(place) }

    /// Enlists with an object, of which it takes nothing.
    func enlist(with object: some Waitable, at place: Int) throws { try enlist(with: object, at: place, room: nil) }

    /// Enlists with an object. What that hands over is stored in `room`.
    func enlist<Object: Waitable>(
        with object: Object, at place: Int, room: UnsafeMutablePointer<Object.Handover>?
    ) throws {
        links[place + 1].kind = UInt32(GEVENT_LINK_OBSERVE)
        try object.enlist(Enlistment(self, place: place + 1, room: room))
    }

    /// Removes it from an object that has not chosen it.
    func withdraw(from object: some Waitable, at place: Int) {
        let kind = links[place + 1].kind
        if kind == GEVENT_LINK_CHOSEN || kind == GEVENT_LINK_WAKE { return }
        links[place + 1].kind = UInt32(GEVENT_LINK_WITHDRAWN)
        object.withdraw(Enlistment(self, place: place + 1, room: nil))
    }

    override func wasChosen(at place: Int, throwing error: (any Error)?) {
        if let error { failure = failure ?? error } else { chosen.append(place - 1) }
        let isOver = chosen.count >= enough || failure != nil
        if let parked, isOver || chosen.count >= wanted {
            // Otherwise the end of this wait would end the others of the same iwait.
            if !isOver { parked.pointee.wait_links = nil }
            gevent_wait_end(parked, UInt8(GEVENT_WAIT_WOKEN))
        }
        if isOver { gevent_links_withdraw(links) }
    }

    /// Parks until `wanted` objects have chosen it. Returns whether they did before the deadline.
    func wait(
        for wanted: Int, until deadline: LoopInstant?, _ kind: WaitKind, _ hub: UnsafeMutablePointer<gevent_hub>
    ) throws -> Bool {
        if chosen.count >= wanted { return true }
        if let failure { throw failure }
        if let deadline, deadline <= Hub.time(hub) { return false }
        try checkPending(hub)
        let current = hub.pointee.current!
        if let deadline { armDeadline(deadline, current, hub) }
        current.pointee.wait_links = links
        self.wanted = wanted
        parked = current
        defer { parked = nil }
        let isWoken = try GeventCore.wait(hub, kind, nil)
        if chosen.count < wanted, let failure { throw failure }
        return isWoken
    }
}

/// A callback that waits for one object: the waiter of ``Waitable/rawLink(_:)``. A list retains it.
final class CallbackWaiter: EnlistedWaiter {
    private var callback: (() throws -> Void)?

    init(_ callback: @escaping () throws -> Void) {
        self.callback = callback
        super.init(count: 1, requireHub())
    }

    static func of(_ link: UnsafeMutablePointer<gevent_link>) -> CallbackWaiter {
        Unmanaged<CallbackWaiter>.fromOpaque(gevent_link_waiter(link)).takeUnretainedValue()
    }

    override var isCallback: Bool { true }

    var isPending: Bool { callback != nil }

    // A callback that is refused is called too: what it waits for will not become any more ready.
    override func wasChosen(at place: Int, throwing error: (any Error)?) { callSoon(requireHub()) }

    /// Queues the call. The callback is looked up when its turn comes: an earlier one may still cancel this.
    func callSoon(_ hub: UnsafeMutablePointer<gevent_hub>) {
        if callback == nil { return }
        Hub.of(hub).enqueue {
            let taken = self.callback
            self.callback = nil
            self.leaveList(at: 1)
            try taken?()
        }
    }

    func cancel() {
        if gevent_node_is_linked(&links[1].node) { requireThread() }
        // Released at the end: what the callback captured may look at this registration.
        let forgotten = callback
        callback = nil
        leaveList(at: 1)
        links[1].kind = UInt32(GEVENT_LINK_WITHDRAWN)
        withExtendedLifetime(forgotten) {}
    }
}

/// The registration that ``Waitable/rawLink(_:)`` returns.
final class WaitLink: Registration {
    private let waiter: CallbackWaiter
    private let withdraw: () -> Void

    init<Handover>(_ waiter: CallbackWaiter, _ enlistment: Enlistment<Handover>, of object: some Waitable<Handover>) {
        self.waiter = waiter
        // Weak, since the object holds the callback, and that may hold the registration.
        withdraw = { [weak object] in object?.withdraw(enlistment) }
        super.init()
    }

    override var isActive: Bool { waiter.isPending }

    override func cancel() {
        waiter.cancel()
        if waiter.isHere { withdraw() }
    }
}
