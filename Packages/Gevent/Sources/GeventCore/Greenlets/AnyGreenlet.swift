public import CGevent
internal import Glibc

/// A flow of control that belongs to the hub of one thread: its identity, its state, and how errors are thrown into it.
///
/// The root of the class tree. ``Greenlet`` adds an outcome; ``RawGreenlet`` is a bare coroutine; the thread's own
/// stack is the *main greenlet*, and the hub itself appears as a greenlet inside hub callbacks. Like all its subclasses
/// it is confined to the thread that made it.
///
/// gevent: `greenlet.greenlet`.
open class AnyGreenlet: CustomStringConvertible {
    /// How far its life has come.
    @usableFromInline
    package enum Phase: UInt8 {
        /// Made, not started.
        case created
        /// In the ready queue, which retains it.
        case scheduled
        /// Waits for its start's delay; the delay's record retains it.
        case delayed
        /// Started to run; it has a context, which retains it.
        case running
        /// Over, or killed before it ran.
        case ended
    }

    // Plain stored properties that only the owning thread touches. Unchecked exclusivity, because each access is a
    // single load or store that no switch can fall into.

    /// Which hub it belongs to. A number and not a reference: it stays comparable when the hub is gone.
    @exclusivity(unchecked) final var hubSerial: UInt32
    @usableFromInline @exclusivity(unchecked) package final var phase: Phase = .created
    @exclusivity(unchecked) private final var marks: GreenletFlags = []
    /// The size of the stack it runs on; see `gevent_hub_stack_class`. 0 for the default.
    @exclusivity(unchecked) final var stackClass: UInt8 = 0
    /// Its body has returned, and what it returned is kept. Of a ``JoinableGreenlet``, but here is room for it.
    @usableFromInline @exclusivity(unchecked) final var hasValue = false
    /// Its place among the ends of its hub's greenlets. While it runs, `raisedNumber` or 0; while its start is delayed,
    /// the address of the delay's record.
    @exclusivity(unchecked) final var endOrder: UInt64 = 0
    /// What to tell when it ends. A record of the hub's, made for the first link.
    @exclusivity(unchecked) final var links: UnsafeMutablePointer<gevent_links>?
    @usableFromInline @exclusivity(unchecked) package final var context: UnsafeMutablePointer<gevent_context>?
    @exclusivity(unchecked) package final var pendingErrors: PendingErrors?
    @usableFromInline @exclusivity(unchecked) package final var spawnSite: UnsafePointer<gevent_spawn_site>?
    @exclusivity(unchecked) final var details: GreenletDetails?
    /// Who spawned it and whom it spawned; see gevent_spawn_tree.h. 0 without tracking.
    @exclusivity(unchecked) final var spawnNode: UInt

    /// For subclasses in this module, with the hub already at hand.
    init(hub: UnsafeMutablePointer<gevent_hub>) {
        hubSerial = hub.pointee.serial
        spawnNode = 0
    }

    /// For those that are spawned; see `recordSpawner`.
    init(hub: UnsafeMutablePointer<gevent_hub>, spawnNode: UInt, spawnSite: UnsafePointer<gevent_spawn_site>?) {
        hubSerial = hub.pointee.serial
        self.spawnNode = spawnNode
        self.spawnSite = spawnSite
    }

    deinit {
        details?.close(hubSerial: hubSerial)
        if links != nil { dropLinks() }
        if spawnNode != 0 && !gevent_spawn_node_leave(spawnNode) { leaveSpawnNodeSlowly() }
    }

    // MARK: State

    /// The greenlet that is running on this thread.
    ///
    /// In main it is the main greenlet, in a hub callback the hub. Makes the thread's hub if there is none. Never
    /// parks.
    ///
    /// gevent: `gevent.getcurrent()`.
    @available(*, noasync)
    public static var current: AnyGreenlet {
        current(of: requireHub())
    }

    package static func current(of hub: UnsafeMutablePointer<gevent_hub>) -> AnyGreenlet {
        // The owner of the running context is set before it first runs and cleared after its last instruction.
        Unmanaged<AnyGreenlet>.fromOpaque(hub.pointee.current.pointee.owner).takeUnretainedValue()
    }

    /// Whether it was started, at once or with a delay, and is not over: the same as ``isActive``.
    ///
    /// False again after the end, as in gevent; ``isDead`` says whether it is over.
    ///
    /// gevent: `Greenlet.started`.
    @inlinable
    public final var isStarted: Bool { isActive }

    /// Whether it was started and is not over, also while it is only scheduled.
    ///
    /// gevent: the greenlet's truth value.
    @inlinable
    public final var isActive: Bool { phase != .created && phase != .ended }

    /// Whether it will never run again: finished, or killed before it ran.
    ///
    /// gevent: `greenlet.dead`.
    @inlinable
    public final var isDead: Bool { phase == .ended }

    /// Whether this greenlet is the one that is running.
    package final var isCurrent: Bool {
        guard let hub = gevent_hub_current() else { return false }
        return context != nil && hub.pointee.current == context
    }

    /// Whether it is the thread's own stack, ``Hub/mainGreenlet``.
    public final var isMain: Bool { self is MainGreenlet }

    /// Whether it is the hub: what ``current`` is inside hub callbacks. It cannot be killed.
    public final var isHub: Bool { self is HubGreenlet }

    /// The hub it belongs to; nil if that hub is gone, and on any other thread.
    ///
    /// gevent: `Greenlet.parent`, which is always the hub.
    public final var hub: Hub? {
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial else { return nil }
        return Hub.of(hub)
    }

    /// It is over, and its links are still to be notified: a link that is made now is notified with them.
    final var isNotifying: Bool {
        get { marks.contains(.isNotifying) }
        set { if newValue { marks.insert(.isNotifying) } else { marks.remove(.isNotifying) } }
    }

    /// Whether a failure is reported when the greenlet ends: to ``Hub/errorHandler``, or on ``Hub/errorOutput``. True
    /// unless set.
    ///
    /// Set it to false where a failure is looked at in any case: by `get`, by a link, or by ``JoinableGreenlet/error``.
    /// Errors in ``Hub/systemErrors`` are raised in main all the same, and a group still fails with its member. On the
    /// greenlet's own thread.
    ///
    /// gevent has no counterpart.
    public final var reportsFailure: Bool {
        get { !marks.contains(.keepsFailure) }
        set { if newValue { marks.remove(.keepsFailure) } else { marks.insert(.keepsFailure) } }
    }

    /// Begun or queued before this process was forked off: the parent's to end.
    final var isInherited: Bool {
        get { marks.contains(.isInherited) }
        set { if newValue { marks.insert(.isInherited) } else { marks.remove(.isInherited) } }
    }

    /// The pending delay of a `start(after:)`; nil in every other phase, and only set in that one.
    final var delayRecord: UnsafeMutablePointer<gevent_deferred>? {
        get { phase == .delayed ? UnsafeMutablePointer(bitPattern: UInt(endOrder)) : nil }
        set { endOrder = UInt64(UInt(bitPattern: newValue)) }
    }

    /// Throws unless the calling thread is the greenlet's own. Returns its hub.
    @inline(__always)
    final func ownHub() throws -> UnsafeMutablePointer<gevent_hub> {
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial else { throw notHere() }
        return hub
    }

    /// The same for calls that cannot throw: misuse there is a programming error.
    @inline(__always)
    final func requireOwnHub() -> UnsafeMutablePointer<gevent_hub> {
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial else { wrongThread() }
        return hub
    }

    @inline(never)
    final func wrongThread() -> Never {
        fatalError("\(notHere())")
    }

    @inline(never)
    final func notHere() -> any Error { HubError.notHere(hubSerial) }

    // MARK: Names

    /// A small non-negative integer, unique among the living greenlet objects of one hub.
    ///
    /// The smallest free one, given on first request, and free again when the object goes. The first request traps on a
    /// foreign thread, and once the hub is gone.
    ///
    /// gevent: `Greenlet.minimal_ident`.
    public final var minimalID: Int {
        if let id = details?.minimalID { return id }
        let id = Hub.of(requireOwnHub()).identifiers.take()
        ensureDetails().minimalID = id
        if details?.name == nil { copyNameToContext() }
        return id
    }

    /// The name in reports; made from ``minimalID`` unless it was set. On the greenlet's own thread.
    ///
    /// gevent: `Greenlet.name`.
    public final var name: String {
        get { details?.name ?? automaticName ?? "Greenlet-\(minimalID)" }
        set {
            ensureDetails().name = newValue
            copyNameToContext()
        }
    }

    /// A name that is made only when it is read, for greenlets that are too many to give each one; nil for none. A
    /// name that was set comes first.
    @_spi(GeventInternals)
    open var automaticName: String? { nil }

    /// The name, as far as one was set or can be made without asking for an identifier.
    final var knownName: String? {
        details?.name ?? automaticName ?? details?.minimalID.map { "Greenlet-\($0)" }
    }

    final func ensureDetails() -> GreenletDetails {
        if let details { return details }
        let made = GreenletDetails()
        details = made
        return made
    }

    /// The overflow report runs in a signal handler, which may not call Swift, so it finds the name in the context.
    final func copyNameToContext() {
        guard let context, let name = knownName else { return }
        withUnsafeMutableBytes(of: &context.pointee.name) { buffer in
            let bytes = name.utf8.prefix(buffer.count - 1)
            buffer.copyBytes(from: bytes)
            buffer[bytes.count] = 0
        }
    }

    /// Puts an automatic name where a signal handler finds it, in the running greenlet itself, unless a name was set.
    /// `text` ends with a zero byte, and is cut after 47 bytes.
    @_spi(GeventInternals)
    public final func showAutomaticName(_ text: UnsafePointer<CChar>) {
        guard let context, details?.name == nil else { return }
        withUnsafeMutableBytes(of: &context.pointee.name) { buffer in
            let room = buffer.assumingMemoryBound(to: CChar.self)
            strncpy(room.baseAddress!, text, room.count - 1)
            room[room.count - 1] = 0
        }
    }

    /// Tells kind and name; shows the name only if it was set or its identifier was asked for.
    ///
    /// Printed after the error when the body fails. An override must not park.
    open var description: String {
        "<\(type(of: self))\(knownName.map { " \"\($0)\"" } ?? "")\(shortAddress)>"
    }

    private var shortAddress: String {
        let bits = UInt(bitPattern: ObjectIdentifier(self))
        return knownName == nil ? " at 0x\(String(bits, radix: 16))" : ""
    }

    // MARK: Running and ending

    /// What the entry of a fresh stack calls: the whole life of the greenlet.
    func runOnStack(_ context: UnsafeMutablePointer<gevent_context>) {
        preconditionFailure("a greenlet of this kind is never started")
    }

    /// Ends a greenlet that never ran.
    func endUnstarted(_ error: any Error) {
        preconditionFailure("a greenlet of this kind is never unstarted")
    }

    /// A raw greenlet is on its way to its first run.
    @inline(__always)
    final func countStart(_ hub: UnsafeMutablePointer<gevent_hub>) {
        phase = .scheduled
        hub.pointee.spawn_count &+= 1
        if hub.pointee.spawn_duties & UInt32(GEVENT_SPAWN_TRACES) != 0 { Hub.of(hub).switchWatch?.spawned(self) }
    }

    /// Marks the greenlet as running on `context`.
    @inline(__always)
    final func enter(_ context: UnsafeMutablePointer<gevent_context>) {
        phase = .running
        self.context = context
        context.pointee.name.0 = 0
        if let details {
            copyNameToContext()
            context.pointee.locals = details.inheritedLocals
            details.inheritedLocals = nil
        }
    }

    /// From here on the stack runs on nobody's behalf: what is released last may have a `deinit` that looks at the
    /// current greenlet, or parks, when this one is gone. It finds the hub, and like the hub it cannot wait: there is
    /// no greenlet left that could be killed or timed out.
    @inline(__always)
    final func disown(_ context: UnsafeMutablePointer<gevent_context>) {
        context.pointee.owner = context.pointee.hub.pointee.root.owner
        gevent_pending_refuse(context)
    }

    /// Lets go of what the context of a greenlet that is over still holds.
    ///
    /// Whatever that is may run code of its own when it goes, so before this the end and the outcome are on record, and
    /// the stack is the hub's.
    @inline(__always)
    final func leave(_ context: UnsafeMutablePointer<gevent_context>) {
        self.context = nil
        disown(context)
        if pendingErrors != nil { dropPendingErrors() }
        if !gevent_list_is_empty(&context.pointee.timeouts) { Timeout.cancelAll(of: context) }
        if context.pointee.locals != nil { dropLocals(of: context) }
    }

    /// Where it was made, as far as that can still be read: the records are its hub's.
    package final var readableSpawnSite: UnsafePointer<gevent_spawn_site>? {
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial else { return nil }
        return spawnSite
    }

    // MARK: Throwing into a greenlet

    /// Throws `error` into the greenlet, to be raised where it waits or at its next switch point; a sticky one at every
    /// switch point from then on.
    ///
    /// One that has not run yet ends at once and never runs. No effect on the dead.
    package final func deliver(_ error: any Error, from timeout: Timeout? = nil, sticky: Bool = false) {
        switch phase {
        case .ended:
            return
        case .created, .scheduled, .delayed:
            endUnstarted(error)
        case .running:
            addPending(PendingError(error: error, timeout: timeout, isSticky: sticky))
            guard let context else { return }
            Hub.of(context.pointee.hub).switchWatch?.delivered(error, to: self)
            gevent_pending_raise(context)
            // A context that was woken, or that yielded, is on its way: it takes what it was woken for, and the error
            // waits for its next park. So nothing handed to it is ever lost.
            gevent_wait_end(context, UInt8(GEVENT_WAIT_FAILED))
        }
    }

    private func addPending(_ new: PendingError) {
        guard let pending = pendingErrors else {
            pendingErrors = PendingErrors(new)
            return
        }
        if pending.hasSticky {
            // That one is raised at every park, so nothing behind it would ever be.
            new.timeout?.wasDropped()
            return
        }
        _ = pending.add(new)
    }

    /// For a greenlet whose wait the caller then ends as failed by itself.
    final func prepareToRaise(_ error: any Error, _ context: UnsafeMutablePointer<gevent_context>) {
        addPending(PendingError(error: error, timeout: nil, isSticky: false))
        gevent_pending_raise(context)
    }

    final var hasStickyError: Bool { pendingErrors?.hasSticky == true }

    /// Takes back what a timeout threw into the running greenlet, if it has not been raised. Returns whether it did.
    @discardableResult
    final func retract(_ timeout: Timeout) -> Bool {
        retractErrors { $0.timeout === timeout }
    }

    /// Takes back what was thrown into the greenlet and not raised yet. Returns whether there was anything of the kind.
    @discardableResult
    final func retractErrors(where isMeant: (PendingError) -> Bool) -> Bool {
        guard let pending = pendingErrors else { return false }
        let (removed, isEmpty) = pending.remove(where: isMeant)
        if isEmpty { forgetPendingErrors() }
        return !removed.isEmpty
    }

    /// The earliest error that waits to be raised.
    final func takePendingError() -> any Error {
        guard let pending = pendingErrors else {
            return HubError(.invalidSwitch, "a wait was ended by an error that nobody threw")
        }
        if pending.first.isSticky { return pending.first.error }
        let (first, isLast) = pending.takeFirst()
        if isLast { forgetPendingErrors() }
        first.timeout?.wasRaised(in: self)
        return first.error
    }

    /// By this number timeouts that were raised in the running greenlet know it again. Unique in the process, also
    /// among greenlets that are gone.
    final var raisedNumber: UInt64 {
        if endOrder == 0 { endOrder = UniqueNumber.next() }
        return endOrder
    }

    /// What was thrown into it is never raised.
    final func dropPendingErrors() {
        guard let pending = pendingErrors else { return }
        forgetPendingErrors()
        for dropped in pending.all { dropped.timeout?.wasDropped() }
    }

    private func forgetPendingErrors() {
        // What they hold goes when nothing is pending any more: it may throw into this very greenlet.
        let forgotten = pendingErrors
        pendingErrors = nil
        if let context { gevent_pending_clear(context) }
        withExtendedLifetime(forgotten) {}
    }
}

@available(*, unavailable)
extension AnyGreenlet: Sendable {}

/// What is true of a greenlet now and then, in one byte.
private struct GreenletFlags: OptionSet {
    let rawValue: UInt8
    static let isNotifying = GreenletFlags(rawValue: 1)
    static let isInherited = GreenletFlags(rawValue: 2)
    static let keepsFailure = GreenletFlags(rawValue: 4)
}

/// What few greenlets need: kept apart so that the others do not pay for it.
final class GreenletDetails {
    var name: String?
    var minimalID: Int?
    /// Values of inheriting locals, until it runs.
    var inheritedLocals: UnsafeMutablePointer<gevent_locals>?

    /// Frees the identifier, if the hub it came from is still this thread's.
    func close(hubSerial: UInt32) {
        let hub = gevent_hub_current().flatMap { $0.pointee.serial == hubSerial ? $0 : nil }
        dropInheritedLocals(hub)
        guard let minimalID, let hub else { return }
        Hub.of(hub).identifiers.release(minimalID)
    }
}

/// Hands out the smallest free non-negative integer.
struct IdentifierPool {
    /// A bit per identifier in use.
    private var words: [UInt64] = []
    /// No word before this one has a free bit.
    private var firstCandidate = 0

    mutating func take() -> Int {
        while firstCandidate < words.count, words[firstCandidate] == .max { firstCandidate += 1 }
        if firstCandidate == words.count { words.append(0) }
        let bit = (~words[firstCandidate]).trailingZeroBitCount
        words[firstCandidate] |= 1 << UInt64(bit)
        return firstCandidate * 64 + bit
    }

    mutating func release(_ identifier: Int) {
        words[identifier / 64] &= ~(1 << UInt64(identifier % 64))
        firstCandidate = min(firstCandidate, identifier / 64)
    }
}
