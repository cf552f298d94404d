internal import CGevent

/// The greenlets of one scope, see ``Gevent/withGroup(_:)``.
///
/// Confined to its thread, and of use only until its scope is over.
public final class GreenletGroup: CustomStringConvertible {
    private enum Phase {
        /// The body runs.
        case body
        /// The body has returned; the scope waits for the members.
        case joining
        /// The scope is ending by an error; what still lives has been thrown an exit.
        case ending
        case over
    }

    /// What came first, and whose it was.
    private struct Failure {
        let error: any Error
        let greenlet: AnyGreenlet
    }

    private let hub: Hub
    /// Who called `withGroup`. It runs as long as the group.
    private unowned let owner: AnyGreenlet
    private var phase = Phase.body
    /// Of nodes that lie in the records of its members, in the order in which they were spawned.
    private let members = UnsafeMutablePointer<gevent_node>.allocate(capacity: 1)
    /// How many of its greenlets are not over.
    public private(set) var count = 0
    private var failure: Failure?
    private let interruption = GroupInterruption()

    fileprivate init(_ hub: Hub) {
        self.hub = hub
        owner = AnyGreenlet.current(of: hub.pointer)
        gevent_list_init(members)
    }

    deinit {
        // Each member holds it, so there is none left.
        members.deallocate()
    }

    /// Tells how many greenlets are not over.
    public var description: String { "<GreenletGroup of \(count)>" }

    // MARK: Members

    /// Makes a greenlet that the scope waits for, and starts it. Returns before the body runs.
    ///
    /// Members may spawn into their group too. Once the scope is ending by an error, what is spawned is over at once,
    /// with a ``GreenletExit``, and never runs. Once it is over, or on another thread, spawning is a programming error
    /// and traps.
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

    /// As ``spawn(_:)``, and starts it `delay` from now. The scope waits for it from the beginning.
    @inlinable
    @discardableResult
    public func spawn<Output>(after delay: Duration, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
        checkOpen()
        let greenlet = Greenlet(body)
        if admit(greenlet) { greenlet.start(after: delay) }
        return greenlet
    }

    /// Throws `error` into each member that is not over and, unless `blocking` is false, parks until all of these are
    /// over: ``Gevent/killAll(_:throwing:blocking:timeout:sticky:)`` of the members. The group goes on, and later
    /// members run.
    ///
    /// An `error` that is no exit makes the members fail, and with them the scope. Throws a ``Timeout`` if a member
    /// survives `timeout`, and what interrupts the caller, who may be a member. Traps on another thread.
    @available(*, noasync)
    public func killAll(
        throwing error: any Error = GreenletExit(), blocking: Bool = true, timeout: Duration? = nil,
        sticky: Bool = false
    ) throws {
        checkThread()
        try killMembers(livingMembers(), throwing: error, blocking, timeout, sticky, hub.pointer)
    }

    private func throwIntoMembers(_ error: any Error, sticky: Bool) {
        for member in livingMembers() { member.deliver(error, sticky: sticky) }
    }

    /// A list of its own: those that have not run leave the group while it is gone through.
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

    // Not preconditions, which say nothing in an optimised build.

    private func checkThread() {
        if hub.isDestroyed || gevent_hub_current() != hub.pointer { fatalError("\(HubError.wrongThread)") }
    }

    @usableFromInline
    func checkOpen() {
        if phase == .over { fatalError("this group's scope is over: nothing can be spawned into it any more") }
        checkThread()
    }

    /// Makes it a member. False if it is over at once.
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
        // The first of its links, so that the group hears of an end before anybody else.
        greenlet.append(
            &member.pointee.link, kind: GEVENT_LINK_GROUP, payload: Unmanaged.passRetained(self).toOpaque(),
            hub.pointer)
        return true
    }

    /// A member is failing. Whether its scope throws the error on, so that nobody else need be told.
    static func takesOver(_ error: any Error, of member: UnsafeMutablePointer<gevent_member>) -> Bool {
        let group = Unmanaged<GreenletGroup>.fromOpaque(member.pointee.link.payload).takeUnretainedValue()
        if group.failure != nil || group.phase == .ending { return false }
        group.failure = Failure(error: error, greenlet: greenlet(of: member))
        return true
    }

    /// Told by the link, or by whoever sees to it that a member never ends. The record goes.
    static func memberEnded(_ member: UnsafeMutablePointer<gevent_member>) {
        gevent_node_unlink(&member.pointee.link.node)
        gevent_node_unlink(&member.pointee.node)
        let group = Unmanaged<GreenletGroup>.fromOpaque(member.pointee.link.payload).takeRetainedValue()
        let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(member.pointee.greenlet).takeRetainedValue()
        member.deallocate()
        group.lost(greenlet)
    }

    private func lost(_ greenlet: AnyGreenlet) {
        count -= 1
        if let failure, failure.greenlet === greenlet {
            endMembers()
            if phase == .body { owner.deliver(interruption) }
        }
        if phase != .body && (count == 0 || failure != nil && phase == .joining) { wakeOwner() }
    }

    private func wakeOwner() {
        // Parked in this very wait and in no other, or ready already.
        guard let context = owner.context, context.pointee.wait_kind == WaitKind.group.rawValue,
            context.pointee.wait_object == UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
        else { return }
        gevent_wait_end(context, UInt8(GEVENT_WAIT_WOKEN))
    }

    /// If the caller is killed for good, so are the members.
    private func endMembers() {
        throwIntoMembers(GreenletExit(from: self), sticky: owner.hasStickyError)
    }

    // MARK: The scope

    fileprivate func run<Value>(_ body: (GreenletGroup) throws -> Value) throws -> Value {
        defer { phase = .over }
        do {
            let value = try body(self)
            phase = .joining
            try waitForMembers()
            if failure == nil { return value }
            endAll()
        } catch {  // control: whatever ended the body goes on after the members have ended
            // Only what comes before this is a failure that the scope throws on.
            endAll()
            try throwFirst(error)
        }
        throw failure!.error
    }

    /// Returns when all members are over, or one has failed.
    private func waitForMembers() throws {
        while count > 0 && failure == nil && !hub.isDestroyed {
            try checkPending(hub.pointer)
            _ = try wait(hub.pointer, .group, self)
        }
    }

    /// Ends the members and waits until they are over, whatever is thrown into the caller meanwhile.
    private func endAll() {
        phase = .ending
        // The end of the hub has ended all it could.
        if hub.isDestroyed { return }
        // Not raised if the body did not wait again.
        owner.retractErrors { $0.error as? GroupInterruption === interruption }
        // A failure has ended them already, and one exit is enough; but a sticky kill of the caller is another matter.
        if failure == nil || owner.hasStickyError { endMembers() }
        // No `checkPending`: what is pending stays so until after the scope.
        while count > 0 {
            let place = UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
            let outcome = gevent_wait(hub.pointer, WaitKind.group.rawValue, place)
            if outcome == UInt8(GEVENT_WAIT_FAILED) { interruptedWhileEnding() }
        }
    }

    /// The caller was thrown something while it waits for members that take their time: they are hurried.
    private func interruptedWhileEnding() {
        // That nothing can go on was true of the members' clean-up alone, which now goes on.
        owner.retractErrors { ($0.error as? HubError)?.code == .wouldBlockForever }
        endMembers()
    }

    /// Of the body's error and a member's failure, which came before it if there is one.
    private func throwFirst(_ error: any Error) throws {
        guard let failure else { throw error }
        if error as? GroupInterruption === interruption { return }
        if (error as? GreenletExit)?.isFrom(self) == true || isSameError(error, failure.error) { return }
        if isControl(error) {
            // A kill or a timeout of the caller, which nobody may swallow.
            if failure.greenlet.reportsFailure { hub.reportAtOnce(failure.error, in: failure.greenlet) }
            throw error
        }
        hub.reportAtOnce(error, in: owner)
    }
}

@available(*, unavailable)
extension GreenletGroup: Sendable {}

/// Whether they are one error, thrown twice: what `get` throws is the failure itself.
private func isSameError(_ first: any Error, _ second: any Error) -> Bool {
    // Invariant: on Linux an `any Error` is one reference to a box, which storing and throwing on keep. The casts say
    // that it is that reference which is looked at, and not what is in the box.
    unsafeBitCast(first as any Error, to: UInt.self) == unsafeBitCast(second as any Error, to: UInt.self)
}

extension AnyGreenlet {
    /// What makes it a member of a scoped group.
    var member: UnsafeMutablePointer<gevent_member>? { links.flatMap { gevent_links_member($0) } }
}

/// Thrown into the body of a scope when a greenlet of the group has failed. It has identity: scopes nest.
final class GroupInterruption: ControlError, Sendable, CustomStringConvertible {
    var description: String { "a greenlet of the group failed" }
}

/// Runs `body` with a group of greenlets, none of which outlives the call: it parks until all are over.
///
/// ```swift
/// let pages = try withGroup { group in
///     let first = group.spawn { try fetch("a") }
///     let second = group.spawn { try fetch("b") }
///     return [try first.get(), try second.get()]
/// }
/// ```
///
/// Returns what `body` returns. The first greenlet that fails, first in time, ends the scope: the others are thrown a
/// ``GreenletExit``, `body` is interrupted by a ``ControlError`` if it still runs, and once all are over the failure is
/// thrown on; it is not reported as well. A silent death is no failure. When `body` throws first, or the caller is
/// killed or timed out, the greenlets are thrown an exit just so, and that error is thrown on. A kill or a timeout of
/// the caller is thrown on even if a greenlet failed before it; then that failure is reported. So is every later
/// failure.
///
/// Nothing interrupts the wait for greenlets that are ending. What is thrown into the caller meanwhile is raised where
/// it next parks, after the scope, and hurries the greenlets: those that still live are thrown another exit, which
/// interrupts clean-up that waits. If the caller's kill is sticky, so are theirs.
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

/// Runs `body` and parks until `greenlet` is over. If `body` throws, or the wait is interrupted, the greenlet is killed
/// with that very error, and the error is thrown on once the greenlet is over.
///
/// What the greenlet fails with is thrown by ``Greenlet/get(blocking:timeout:)`` only. The greenlet is not started by
/// this. A second interruption ends the wait for a greenlet that is killed, and is thrown instead.
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
    } catch {  // control: thrown on
        try greenlet.kill(throwing: error)
        throw error
    }
}
