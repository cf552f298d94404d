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
        let greenlet: JoinableGreenlet
    }

    private let hub: Hub
    /// Who called `withGroup`. It runs as long as the group.
    private unowned let owner: AnyGreenlet
    private var phase = Phase.body
    /// By number, so that they are told apart cheaply and ended in the order in which they were spawned.
    private var members: [UInt64: JoinableGreenlet] = [:]
    private var lastNumber: UInt64 = 0
    private var failure: Failure?
    private let interruption = GroupInterruption()

    fileprivate init(_ hub: Hub) {
        self.hub = hub
        owner = AnyGreenlet.current(of: hub.pointer)
    }

    /// How many of its greenlets are not over.
    public var count: Int { members.count }

    /// Tells how many greenlets are not over.
    public var description: String { "<GreenletGroup of \(count)>" }

    // MARK: Members

    /// Makes a greenlet that the scope waits for, and starts it. Returns before the body runs.
    ///
    /// Members may spawn into their group too. Once the scope is ending by an error, what is spawned is over at once, with
    /// a ``GreenletExit``, and never runs. Once it is over, or on another thread, spawning is a programming error and
    /// traps.
    @discardableResult
    public func spawn<Output>(_ body: @escaping () throws -> Output) -> Greenlet<Output> {
        checkOpen()
        let greenlet = Greenlet(body)
        if admit(greenlet) { greenlet.start() }
        return greenlet
    }

    /// As ``spawn(_:)``, and starts it `delay` from now. The scope waits for it from the beginning.
    @discardableResult
    public func spawn<Output>(after delay: Duration, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
        checkOpen()
        let greenlet = Greenlet(body)
        if admit(greenlet) { greenlet.start(after: delay) }
        return greenlet
    }

    /// Throws `error` into each member that is not over, without waiting for them: the scope does. Those that have not run
    /// never run. The group goes on, and later members run.
    ///
    /// An `error` that is no exit makes the members fail, and with them the scope. Traps on another thread.
    public func killAll(throwing error: any Error = GreenletExit(), sticky: Bool = false) {
        checkThread()
        throwIntoMembers(error, sticky: sticky)
    }

    private func throwIntoMembers(_ error: any Error, sticky: Bool) {
        for member in livingMembers { member.deliver(error, sticky: sticky) }
    }

    /// In the order in which they were spawned.
    private var livingMembers: [JoinableGreenlet] {
        members.sorted { $0.key < $1.key }.map(\.value)
    }

    // Not preconditions, which say nothing in an optimised build.

    private func checkThread() {
        if hub.isDestroyed || gevent_hub_current() != hub.pointer { fatalError("\(HubError.wrongThread)") }
    }

    private func checkOpen() {
        if phase == .over { fatalError("this group's scope is over: nothing can be spawned into it any more") }
        checkThread()
    }

    /// Makes it a member. False if it is over at once.
    private func admit(_ greenlet: JoinableGreenlet) -> Bool {
        if phase == .ending || failure != nil {
            greenlet.endUnstarted(GreenletExit(from: self))
            return false
        }
        lastNumber += 1
        let membership = GroupMembership(of: greenlet, in: self, number: lastNumber)
        greenlet.ensureDetails().membership = membership
        // The first of its links, so that the group hears of an end before anybody else.
        greenlet.append(
            membership.link, kind: GEVENT_LINK_GROUP, payload: Unmanaged.passUnretained(membership).toOpaque(),
            hub.pointer)
        members[lastNumber] = greenlet
        return true
    }

    /// A member is failing. Whether the scope throws the error on, so that nobody else need be told.
    fileprivate func takesOver(_ error: any Error, of greenlet: JoinableGreenlet) -> Bool {
        if failure != nil || phase == .ending { return false }
        failure = Failure(error: error, greenlet: greenlet)
        return true
    }

    fileprivate func memberEnded(_ number: UInt64) {
        guard let greenlet = members.removeValue(forKey: number) else { return }
        if let failure, failure.greenlet === greenlet {
            endMembers()
            if phase == .body { owner.deliver(interruption) }
        }
        if phase != .body && (members.isEmpty || failure != nil && phase == .joining) { wakeOwner() }
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
        while !members.isEmpty && failure == nil && !hub.isDestroyed {
            try attend(hub.pointer)
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
        // No `attend`: what is pending stays so until after the scope.
        while !members.isEmpty {
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
        if error is any ControlError {
            // A kill or a timeout of the caller, which nobody may swallow.
            report(failure.error, in: failure.greenlet)
            throw error
        }
        report(error, in: owner)
    }

    private func report(_ error: any Error, in greenlet: AnyGreenlet) {
        if hub.isDestroyed { hub.report(error, in: greenlet) } else { hub.reportLater(error, in: greenlet) }
    }
}

@available(*, unavailable)
extension GreenletGroup: Sendable {}

/// Whether they are one error, thrown twice: what `get` throws is the failure itself.
private func isSameError(_ first: any Error, _ second: any Error) -> Bool {
    // Invariant: on Linux an `any Error` is one reference to a box, which storing and throwing on keep. The casts say that
    // it is that reference which is looked at, and not what is in the box.
    unsafeBitCast(first as any Error, to: UInt.self) == unsafeBitCast(second as any Error, to: UInt.self)
}

/// What a greenlet of a group knows of it.
final class GroupMembership {
    private let group: GreenletGroup
    private unowned let greenlet: JoinableGreenlet
    private let number: UInt64
    fileprivate let link: UnsafeMutablePointer<gevent_link>

    fileprivate init(of greenlet: JoinableGreenlet, in group: GreenletGroup, number: UInt64) {
        self.greenlet = greenlet
        self.group = group
        self.number = number
        link = .allocate(capacity: 1)
        link.initialize(to: gevent_link())
    }

    deinit {
        gevent_node_unlink(&link.pointee.node)
        link.deallocate()
    }

    func takesOver(_ error: any Error) -> Bool { group.takesOver(error, of: greenlet) }

    /// Told by the link.
    func memberEnded() {
        let group = group
        // Which may be the last hold on this membership.
        let number = number
        greenlet.details?.membership = nil
        group.memberEnded(number)
    }
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
/// thrown on; it is not reported as well. A silent death is no failure. When `body` throws first, or the caller is killed
/// or timed out, the greenlets are thrown an exit just so, and that error is thrown on. A kill or a timeout of the caller
/// is thrown on even if a greenlet failed before it; then that failure is reported. So is every later failure.
///
/// Nothing interrupts the wait for greenlets that are ending. What is thrown into the caller meanwhile is raised where it
/// next parks, after the scope, and hurries the greenlets: those that still live are thrown another exit, which interrupts
/// clean-up that waits. If the caller's kill is sticky, so are theirs.
///
/// Throws ``HubError`` with `.blockedInHub` in a hub callback.
///
/// gevent has no counterpart; the nearest is a `Group` that is joined, and killed on the first error.
@available(*, noasync)
@discardableResult
public func withGroup<Value>(_ body: (GreenletGroup) throws -> Value) throws -> Value {
    let hub = try currentHub()
    if gevent_attention(hub) == UInt8(GEVENT_ATTENTION_IS_HUB) { throw HubError.blockedInHub }
    return try GreenletGroup(Hub.of(hub)).run(body)
}

/// Runs `body` and parks until `greenlet` is over. If `body` throws, or the wait is interrupted, the greenlet is killed
/// with that very error, and the error is thrown on once the greenlet is over.
///
/// What the greenlet fails with is thrown by ``Greenlet/get(blocking:timeout:)`` only. The greenlet is not started by this.
/// A second interruption ends the wait for a greenlet that is killed, and is thrown instead.
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
