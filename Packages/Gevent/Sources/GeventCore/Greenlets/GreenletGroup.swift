internal import CGevent

/// The greenlets of one scope; see ``Gevent/withGroup(_:)``.
///
/// Confined to its thread, and usable only until its scope ends.
public final class GreenletGroup: CustomStringConvertible {
    private enum Phase {
        /// The body runs.
        case body
        /// The body has returned; the scope waits for the members.
        case joining
        /// The scope is ending with an error; members that have not ended have received an exit.
        case ending
        /// The scope has ended.
        case ended
    }

    /// The first failure and the greenlet that failed.
    private struct Failure {
        let error: any Error
        let greenlet: AnyGreenlet
    }

    private let hub: Hub
    /// The greenlet that called `withGroup`. It is alive for the whole scope.
    private unowned let owner: AnyGreenlet
    private var phase = Phase.body
    /// The list of members, in spawn order. Its nodes are part of the members' records.
    private let members = UnsafeMutablePointer<gevent_node>.allocate(capacity: 1)
    /// The number of members that have not ended.
    public private(set) var count = 0
    private var failure: Failure?
    private let interruption = GroupInterruption()

    fileprivate init(_ hub: Hub) {
        self.hub = hub
        owner = AnyGreenlet.current(of: hub.pointer)
        gevent_list_init(members)
    }

    deinit {
        // Each member's record retains the group, so no member is left.
        members.deallocate()
    }

    /// The type and the number of members that have not ended.
    public var description: String { "<GreenletGroup of \(count)>" }

    // MARK: Members

    /// Makes a greenlet that the scope waits for, and starts it. Returns before the body runs.
    ///
    /// Members may spawn into their group too. Once the scope is ending with an error, a new member ends at once with a
    /// ``GreenletExit`` and never runs. Spawning after the scope has ended, or on another thread, is a programming
    /// error and traps.
    @inlinable
    @discardableResult
    public func spawn<Output>(_ body: @escaping () throws -> Output) -> Greenlet<Output> {
        checkOpen()
        let greenlet = Greenlet(body)
        if admit(greenlet) { greenlet.start() }
        return greenlet
    }

    /// As ``spawn(_:)``, on a stack of at least `stackSize` bytes; see ``Gevent/spawn(stackSize:_:)``.
    @inlinable
    @discardableResult
    public func spawn<Output>(stackSize: Int, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
        checkOpen()
        let greenlet = Greenlet(stackSize: stackSize, body)
        if admit(greenlet) { greenlet.start() }
        return greenlet
    }

    /// As ``spawn(_:)``, but starts the greenlet `delay` from now. The scope waits for it from the moment of this call.
    @inlinable
    @discardableResult
    public func spawn<Output>(after delay: Duration, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
        checkOpen()
        let greenlet = Greenlet(body)
        if admit(greenlet) { greenlet.start(after: delay) }
        return greenlet
    }

    /// Delivers `error` to each member that has not ended. Unless `blocking` is false, parks until all of these have
    /// ended, like ``Gevent/killAll(_:throwing:blocking:timeout:sticky:)``. The group stays usable: members that are
    /// spawned later run.
    ///
    /// An `error` that is not an exit makes the members fail, and with them the scope. Throws a ``Timeout`` if a member
    /// has not ended within `timeout`. Throws what interrupts the caller, which may be a member. Traps on another
    /// thread.
    @available(*, noasync)
    public func killAll(
        throwing error: any Error = GreenletExit(), blocking: Bool = true, timeout: Duration? = nil,
        sticky: Bool = false
    ) throws {
        checkThread()
        try killMembers(livingMembers(), throwing: error, blocking, timeout, sticky, hub.pointer)
    }

    private func deliverToMembers(_ error: any Error, sticky: Bool) {
        for member in livingMembers() { member.deliver(error, sticky: sticky) }
    }

    /// Returns a copy, because a member that has not run leaves the group while the caller iterates.
    private func livingMembers() -> [AnyGreenlet] {
        var living: [AnyGreenlet] = []
        living.reserveCapacity(count)
        var node = members.pointee.next!
        while node != members {
            living.append(Self.greenlet(of: gevent_member_of_node(node)))
            node = node.pointee.next
        }
        return living
    }

    private static func greenlet(of member: UnsafeMutablePointer<gevent_member>) -> AnyGreenlet {
        Unmanaged<AnyGreenlet>.fromOpaque(member.pointee.greenlet).takeUnretainedValue()
    }

    // Not preconditions, because those print no message in an optimised build.

    private func checkThread() {
        if hub.isDestroyed || gevent_hub_current() != hub.pointer { fatalError("\(HubError.wrongThread)") }
    }

    @usableFromInline
    func checkOpen() {
        if phase == .ended { fatalError("this group's scope is over: nothing can be spawned into it any more") }
        checkThread()
    }

    /// Adds `greenlet` to the members. Returns false if the scope is ending, in which case the greenlet has ended.
    @usableFromInline
    func admit(_ greenlet: JoinableGreenlet) -> Bool {
        if phase == .ending || failure != nil {
            greenlet.endUnstarted(GreenletExit(from: self))
            return false
        }
        let member = UnsafeMutablePointer<gevent_member>.allocate(capacity: 1)
        member.initialize(to: gevent_member())
        member.pointee.greenlet = Unmanaged.passRetained(greenlet as AnyGreenlet).toOpaque()
        gevent_list_append(members, &member.pointee.node)
        count += 1
        // The first of the greenlet's links, so that the group is notified of the end before any other waiter.
        greenlet.append(
            &member.pointee.link, kind: GEVENT_LINK_GROUP, payload: Unmanaged.passRetained(self).toOpaque(),
            hub.pointer)
        return true
    }

    /// Records the failure of a member. Returns whether the scope rethrows the error, so that it need not be reported.
    static func adoptFailure(_ error: any Error, of member: UnsafeMutablePointer<gevent_member>) -> Bool {
        let group = Unmanaged<GreenletGroup>.fromOpaque(member.pointee.link.payload).takeUnretainedValue()
        if group.failure != nil || group.phase == .ending { return false }
        group.failure = Failure(error: error, greenlet: greenlet(of: member))
        return true
    }

    /// Removes an ended member and deallocates its record. Called by the link, or for a member that will never end.
    static func memberEnded(_ member: UnsafeMutablePointer<gevent_member>) {
        gevent_node_unlink(&member.pointee.link.node)
        gevent_node_unlink(&member.pointee.node)
        let group = Unmanaged<GreenletGroup>.fromOpaque(member.pointee.link.payload).takeRetainedValue()
        let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(member.pointee.greenlet).takeRetainedValue()
        member.deallocate()
        group.memberLeft(greenlet)
    }

    private func memberLeft(_ greenlet: AnyGreenlet) {
        count -= 1
        if let failure, failure.greenlet === greenlet {
            endMembers()
            if phase == .body { owner.deliver(interruption) }
        }
        if phase != .body && (count == 0 || failure != nil && phase == .joining) { wakeOwner() }
    }

    private func wakeOwner() {
        // Wakes the owner only if it is parked in this wait and no other. Otherwise it is ready already.
        guard let context = owner.context, context.pointee.wait_kind == WaitKind.group.rawValue,
            context.pointee.wait_object == UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
        else { return }
        gevent_wait_end(context, UInt8(GEVENT_WAIT_WOKEN))
    }

    /// Delivers an exit to the members. It is sticky if the owner has a sticky error pending.
    private func endMembers() {
        deliverToMembers(GreenletExit(from: self), sticky: owner.hasStickyError)
    }

    // MARK: The scope

    fileprivate func run<Value>(_ body: (GreenletGroup) throws -> Value) throws -> Value {
        defer { phase = .ended }
        do {
            let value = try body(self)
            phase = .joining
            try waitForMembers()
            if failure == nil { return value }
            endAll()
        } catch {  // control: this error is rethrown once the members have ended
            // Only a failure before this point is rethrown by the scope.
            endAll()
            try throwFirst(error)
        }
        throw failure!.error
    }

    /// Parks until all members have ended or one has failed.
    private func waitForMembers() throws {
        while count > 0 && failure == nil && !hub.isDestroyed {
            try checkPending(hub.pointer)
            _ = try wait(hub.pointer, .group, self)
        }
    }

    /// Ends the members and parks until all have ended, even if errors are delivered to the caller meanwhile.
    private func endAll() {
        phase = .ending
        // Destroying the hub has ended every member that it could.
        if hub.isDestroyed { return }
        // The interruption is still pending if the body did not park again.
        owner.retractErrors { $0.error as? GroupInterruption === interruption }
        // After a failure the members have their exit already, and one is enough, unless the caller has a sticky kill.
        if failure == nil || owner.hasStickyError { endMembers() }
        // No `checkPending`: errors that are pending for the caller stay pending until after the scope.
        while count > 0 {
            let waitObject = UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
            let outcome = gevent_wait(hub.pointer, WaitKind.group.rawValue, waitObject)
            if outcome == UInt8(GEVENT_WAIT_FAILED) { interruptedWhileEnding() }
        }
    }

    /// Delivers another exit to the members. Called when an error was delivered to the caller while it waits for them.
    private func interruptedWhileEnding() {
        // The deadlock affected only the clean-up of the members, which now continues.
        owner.retractErrors { ($0.error as? HubError)?.code == .wouldBlockForever }
        endMembers()
    }

    /// Throws the earlier one of the body's error and a member's failure. The failure is earlier if there is one.
    private func throwFirst(_ error: any Error) throws {
        guard let failure else { throw error }
        if error as? GroupInterruption === interruption { return }
        if (error as? GreenletExit)?.isFrom(self) == true || isSameError(error, failure.error) { return }
        if isControl(error) {
            // A kill or a timeout of the caller, which must not be swallowed.
            if failure.greenlet.reportsFailure { hub.reportAtOnce(failure.error, in: failure.greenlet) }
            throw error
        }
        hub.reportAtOnce(error, in: owner)
    }
}

@available(*, unavailable)
extension GreenletGroup: Sendable {}

/// Returns whether both are the same error, thrown twice: `get` throws the failure itself.
private func isSameError(_ first: any Error, _ second: any Error) -> Bool {
    // Invariant: on Linux an `any Error` is one reference to a box, which storing and rethrowing preserve. The casts
    // make the comparison use that reference, not the contents of the box.
    unsafeBitCast(first as any Error, to: UInt.self) == unsafeBitCast(second as any Error, to: UInt.self)
}

extension AnyGreenlet {
    /// The record of the greenlet's membership in a scoped group; nil if it has none.
    var member: UnsafeMutablePointer<gevent_member>? { links.flatMap { gevent_links_member($0) } }
}

/// Delivered to the body of a scope when a member has failed. It is compared by identity, because scopes nest.
final class GroupInterruption: ControlError, Sendable, CustomStringConvertible {
    var description: String { "a greenlet of the group failed" }
}

/// Runs `body` with a group of greenlets. No member outlives the call: it parks until all members have ended.
///
/// ```swift
/// let pages = try withGroup { group in
///     let first = group.spawn { try fetch("a") }
///     let second = group.spawn { try fetch("b") }
///     return [try first.get(), try second.get()]
/// }
/// ```
///
/// Returns what `body` returns. The first greenlet that fails ends the scope. The other greenlets receive a
/// ``GreenletExit``, and `body` is interrupted by a ``ControlError`` if it still runs. Once all have ended, the failure
/// is rethrown, and not reported. A silent death is not a failure. If `body` throws first, or the caller is killed or
/// timed out, the greenlets receive an exit in the same way, and that error is rethrown. A kill or a timeout of the
/// caller is rethrown even if a greenlet failed before it; then that failure is reported. Every later failure is
/// reported too.
///
/// Nothing interrupts the wait for greenlets that are ending. An error that is delivered to the caller meanwhile is
/// raised where the caller next parks after the scope. It also hurries the greenlets: those that have not ended receive
/// another exit at once, which interrupts clean-up that parks. If the caller's kill is sticky, their exits are too.
///
/// Throws ``HubError`` with `.blockedInHub` in a hub callback.
///
/// gevent has no counterpart; the nearest is a `Group` that is joined, and killed on the first error.
@available(*, noasync)
@discardableResult
public func withGroup<Value>(_ body: (GreenletGroup) throws -> Value) throws -> Value {
    let hub = try currentHub()
    if gevent_pending_flags(hub) == UInt8(GEVENT_PENDING_REFUSED) { throw HubError.blockedInHub }
    return try GreenletGroup(Hub.of(hub)).run(body)
}

/// Runs `body` and parks until `greenlet` has ended. If `body` throws, or the wait is interrupted, the greenlet is
/// killed with that error, and the error is rethrown once the greenlet has ended.
///
/// Only ``Greenlet/get(blocking:timeout:)`` throws the greenlet's own failure. This call does not start the greenlet. A
/// second interruption ends the wait for the killed greenlet, and is thrown instead.
///
/// gevent: `with greenlet:`.
@available(*, noasync)
@discardableResult
public func withGreenlet<Output, Value>(
    _ greenlet: Greenlet<Output>, _ body: (Greenlet<Output>) throws -> Value
) throws -> Value {
    do {
        let value = try body(greenlet)
        try greenlet.join()
        return value
    } catch {  // control: rethrown
        try greenlet.kill(throwing: error)
        throw error
    }
}
