// Waiters that can be enlisted with several objects at once. A greenlet that waits for a single object of the library
// uses the link in its context instead.

internal import CGevent

/// The waiter behind an ``Enlistment``: an array of links, each of them in the list of one object.
///
/// Element 0 is in no list and stores the pointer to the waiter; see `gevent_link_waiter`.
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
        // No list may keep a link in this memory, however the wait ended.
        gevent_links_withdraw(links)
        links.deallocate()
    }

    /// Called when an object has chosen the waiter, or has refused it with `error`. The link has left its list.
    func wasChosen(at place: Int, throwing error: (any Error)?) { preconditionFailure("overridden by every kind") }

    /// Whether this is the waiter of a callback, which the list retains.
    var isCallback: Bool { false }

    final func isWaiting(at place: Int) -> Bool { gevent_link_is_waiting(links + place) }

    final var isOnHubThread: Bool { gevent_hub_current().map { $0.pointee.serial == hubSerial } ?? false }

    final func requireThread() {
        if !isOnHubThread { fatalError("\(HubError.wrongHubError(hubSerial))") }
    }

    final func choose(at place: Int, throwing error: (any Error)?) {
        leaveList(at: place)
        links[place].kind = UInt32(GEVENT_LINK_CHOSEN)
        wasChosen(at: place, throwing: error)
    }

    /// Withdraws the waiter from all other objects, so that only the object at `place` can choose it.
    final func withdraw(keeping place: Int) {
        leaveList(at: place)
        links[place].kind = UInt32(GEVENT_LINK_CHOSEN)
        gevent_links_withdraw(links)
    }

    /// Unlinks one link. The caller retains the waiter, since the list may own the only other reference.
    final func leaveList(at place: Int) {
        guard gevent_node_is_linked(&links[place].node) else { return }
        gevent_node_unlink(&links[place].node)
        if isCallback { Unmanaged.passUnretained(self).release() }
    }

    /// Makes the object whose list contains `link` choose the waiter of the link, or refuse it with `error`.
    static func choose(_ link: UnsafeMutablePointer<gevent_link>, throwing error: (any Error)? = nil) {
        let waiter = Unmanaged<EnlistedWaiter>.fromOpaque(gevent_link_waiter(link)).takeUnretainedValue()
        waiter.choose(at: Int(link.pointee.place), throwing: error)
    }
}

extension Enlistment {
    var link: UnsafeMutablePointer<gevent_link> { waiter.links + place }

    var isCallback: Bool { waiter.isCallback }

    /// Sets the link's payload for a list and returns the link's kind: `purpose` if the waiter takes an element.
    func prepareLink(taking purpose: Int = Int(GEVENT_LINK_OBSERVE)) -> Int {
        if isCallback {
            link.pointee.payload = Unmanaged.passRetained(waiter).toOpaque()
            return Int(GEVENT_LINK_CALLBACK)
        }
        link.pointee.payload = UnsafeMutableRawPointer(destination)
        return destination == nil ? Int(GEVENT_LINK_OBSERVE) : purpose
    }

    func leaveList() { waiter.leaveList(at: place) }
}

extension WaitQueue {
    /// Adds a waiter, with `purpose` as its kind if it takes an element.
    mutating func append<Handover>(
        _ waiter: Enlistment<Handover>, taking purpose: Int = Int(GEVENT_LINK_OBSERVE),
        _ hub: UnsafeMutablePointer<gevent_hub>
    ) {
        append(waiter.link, kind: waiter.prepareLink(taking: purpose), payload: waiter.link.pointee.payload, hub)
    }
}

/// The waiter of a greenlet that waits for several objects: for `requiredCount` of them, or for one element.
final class MultiWait: EnlistedWaiter {
    /// The indices of the objects that have chosen the waiter, in the order of the choices.
    @exclusivity(unchecked) private(set) var chosen: [Int] = []
    private let requiredCount: Int
    @exclusivity(unchecked) private var failure: (any Error)?
    /// The waiting context, set only while it is parked here, so that no other wait of the greenlet is ended.
    @exclusivity(unchecked) private var parked: UnsafeMutablePointer<gevent_context>?
    @exclusivity(unchecked) private var wanted = 0

    init(count: Int, requiredCount: Int, _ hub: UnsafeMutablePointer<gevent_hub>) {
        self.requiredCount = requiredCount
        super.init(count: count, hub)
    }

    /// Counts an object that is already ready.
    func countReady(_ index: Int) { chosen.append(index) }

    /// Enlists the waiter with an object and takes nothing from it.
    func enlist(with object: some Waitable, at index: Int) throws {
        try enlist(with: object, at: index, destination: nil)
    }

    /// Enlists the waiter with an object, which stores the element that it hands over in `destination`.
    func enlist<Object: Waitable>(
        with object: Object, at index: Int, destination: UnsafeMutablePointer<Object.Handover>?
    ) throws {
        links[index + 1].kind = UInt32(GEVENT_LINK_OBSERVE)
        try object.enlist(Enlistment(self, place: index + 1, destination: destination))
    }

    /// Withdraws the waiter from an object that has not chosen it.
    func withdraw(from object: some Waitable, at index: Int) {
        let kind = links[index + 1].kind
        if kind == GEVENT_LINK_CHOSEN || kind == GEVENT_LINK_WAKE { return }
        links[index + 1].kind = UInt32(GEVENT_LINK_WITHDRAWN)
        object.withdraw(Enlistment(self, place: index + 1, destination: nil))
    }

    override func wasChosen(at place: Int, throwing error: (any Error)?) {
        if let error { failure = failure ?? error } else { chosen.append(place - 1) }
        let isComplete = chosen.count >= requiredCount || failure != nil
        if let parked, isComplete || chosen.count >= wanted {
            // Keep the links of an iwait that continues: `gevent_wait_end` withdraws those in `wait_links`.
            if !isComplete { parked.pointee.wait_links = nil }
            gevent_wait_end(parked, UInt8(GEVENT_WAIT_WOKEN))
        }
        if isComplete { gevent_links_withdraw(links) }
    }

    /// Parks until `wanted` objects have chosen the waiter. Returns whether they did so before the deadline.
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

/// A callback that waits for one object: the waiter of ``Waitable/rawLink(_:)``. The object's list retains it.
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

    // A refused callback is called too: a wait for the object would return at once.
    override func wasChosen(at place: Int, throwing error: (any Error)?) { callSoon(requireHub()) }

    /// Queues the call. The job reads `callback` only when it runs, since an earlier job may cancel this one.
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
        // Released last: the captured objects may access this registration when they are deallocated.
        let released = callback
        callback = nil
        leaveList(at: 1)
        links[1].kind = UInt32(GEVENT_LINK_WITHDRAWN)
        withExtendedLifetime(released) {}
    }
}

/// The registration that ``Waitable/rawLink(_:)`` returns.
final class WaitLink: Registration {
    private let waiter: CallbackWaiter
    private let withdraw: () -> Void

    init<Handover>(_ waiter: CallbackWaiter, _ enlistment: Enlistment<Handover>, of object: some Waitable<Handover>) {
        self.waiter = waiter
        // Weak, to avoid a cycle: the object retains the callback, and the callback may retain the registration.
        withdraw = { [weak object] in object?.withdraw(enlistment) }
        super.init()
    }

    override var isActive: Bool { waiter.isPending }

    override func cancel() {
        waiter.cancel()
        if waiter.isOnHubThread { withdraw() }
    }
}
