public import CGevent
internal import Glibc

/// A flow of control that belongs to the hub of one thread: its identity, its state, and the delivery of errors to it.
///
/// The root of the class tree. ``Greenlet`` adds an outcome; ``RawGreenlet`` is a bare coroutine; the thread's own
/// stack is the *main greenlet*, and the hub itself appears as a greenlet inside hub callbacks. Like all its subclasses
/// it is confined to the thread that made it.
///
/// gevent: `greenlet.greenlet`.
open class AnyGreenlet: CustomStringConvertible {
    /// The stage of a greenlet's life.
    @usableFromInline
    package enum Phase: UInt8 {
        /// Made and not started.
        case created
        /// In the ready queue, which retains it.
        case scheduled
        /// Waiting for its delay to expire; the record of the delay retains it.
        case delayed
        /// Has begun to run. Its context retains it.
        case running
        /// Ended, or killed before it ran.
        case ended
    }

    // Plain stored properties that only the owning thread accesses. Exclusivity is unchecked because each access is a
    // single load or store, with no stack switch inside it.

    /// The serial number of the hub that the greenlet belongs to. Unlike a reference, it stays comparable after the hub
    /// is destroyed.
    @exclusivity(unchecked) final var hubSerial: UInt32
    @usableFromInline @exclusivity(unchecked) package final var phase: Phase = .created
    @exclusivity(unchecked) private final var flags: GreenletFlags = []
    /// The size class of its stack; see `gevent_hub_stack_class`. 0 is the default size.
    @exclusivity(unchecked) final var stackClass: UInt8 = 0
    /// Whether the body has returned and its value is stored. Used by ``JoinableGreenlet`` only; it is declared here
    /// because this class has a spare byte for it.
    @usableFromInline @exclusivity(unchecked) final var hasValue = false
    /// Its meaning depends on the phase. Ended: the position of the end among all ends and events of its hub; running:
    /// `raisedNumber`, or 0; delayed: the address of the record of the delay.
    @exclusivity(unchecked) final var endOrder: UInt64 = 0
    /// The links to notify when it ends: a record of the hub, made with the first link.
    @exclusivity(unchecked) final var links: UnsafeMutablePointer<gevent_links>?
    @usableFromInline @exclusivity(unchecked) package final var context: UnsafeMutablePointer<gevent_context>?
    @exclusivity(unchecked) package final var pendingErrors: PendingErrors?
    @usableFromInline @exclusivity(unchecked) package final var spawnSite: UnsafePointer<gevent_spawn_site>?
    @exclusivity(unchecked) final var details: GreenletDetails?
    /// Its node in the spawn tree; see gevent_spawn_tree.h. 0 without tracking.
    @exclusivity(unchecked) final var spawnNode: UInt

    /// Initialises a greenlet of a subclass in this module that already has the hub.
    init(hub: UnsafeMutablePointer<gevent_hub>) {
        hubSerial = hub.pointee.serial
        spawnNode = 0
    }

    /// Initialises a greenlet with the record of its spawner; see `recordSpawner`.
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
    /// It is the main greenlet on the thread's own stack, and the hub in a hub callback. Makes the thread's hub if
    /// there is none. Never parks.
    ///
    /// gevent: `gevent.getcurrent()`.
    @available(*, noasync)
    public static var current: AnyGreenlet {
        current(of: requireHub())
    }

    package static func current(of hub: UnsafeMutablePointer<gevent_hub>) -> AnyGreenlet {
        // The owner of a running context is set before the context first runs, and is never null while it runs.
        Unmanaged<AnyGreenlet>.fromOpaque(hub.pointee.current.pointee.owner).takeUnretainedValue()
    }

    /// Whether the greenlet was started, with or without a delay, and has not ended: the same as ``isActive``.
    ///
    /// False again after the end, as in gevent; ``isDead`` is true then.
    ///
    /// gevent: `Greenlet.started`.
    @inlinable
    public final var isStarted: Bool { isActive }

    /// Whether the greenlet was started and has not ended. Also true while its start is only scheduled.
    ///
    /// gevent: the greenlet's truth value.
    @inlinable
    public final var isActive: Bool { phase != .created && phase != .ended }

    /// Whether the greenlet will never run again: it has ended, or it was killed before it ran.
    ///
    /// gevent: `greenlet.dead`.
    @inlinable
    public final var isDead: Bool { phase == .ended }

    /// Whether this greenlet is the one that is running.
    package final var isCurrent: Bool {
        guard let hub = gevent_hub_current() else { return false }
        return context != nil && hub.pointee.current == context
    }

    /// Whether the greenlet is the thread's own stack, ``Hub/mainGreenlet``.
    public final var isMain: Bool { self is MainGreenlet }

    /// Whether the greenlet is the hub, which is ``current`` inside hub callbacks. The hub cannot be killed.
    public final var isHub: Bool { self is HubGreenlet }

    /// The hub that the greenlet belongs to; nil if that hub is destroyed, and on any other thread.
    ///
    /// gevent: `Greenlet.parent`, which is always the hub.
    public final var hub: Hub? {
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial else { return nil }
        return Hub.of(hub)
    }

    /// Whether it has ended and its links are being notified. A link that is added now is notified with them.
    final var isNotifying: Bool {
        get { flags.contains(.isNotifying) }
        set { if newValue { flags.insert(.isNotifying) } else { flags.remove(.isNotifying) } }
    }

    /// Whether a failure is reported when the greenlet ends: to ``Hub/errorHandler``, or on ``Hub/errorOutput``. True
    /// by default.
    ///
    /// Set it to false if the failure is handled elsewhere: by `get`, by a link, or through ``JoinableGreenlet/error``.
    /// Errors in ``Hub/systemErrors`` are raised in main in any case, and a failing member still ends its group. Use it
    /// only on the greenlet's own thread.
    ///
    /// gevent has no counterpart.
    public final var reportsFailure: Bool {
        get { !flags.contains(.keepsFailure) }
        set { if newValue { flags.remove(.keepsFailure) } else { flags.insert(.keepsFailure) } }
    }

    /// Whether it was running or queued in the parent before this process was forked. The parent ends it, not this
    /// process.
    final var isInherited: Bool {
        get { flags.contains(.isInherited) }
        set { if newValue { flags.insert(.isInherited) } else { flags.remove(.isInherited) } }
    }

    /// The record of a pending `start(after:)`. Nil in every phase except `delayed`, and may be set only in that phase.
    final var delayRecord: UnsafeMutablePointer<gevent_deferred>? {
        get { phase == .delayed ? UnsafeMutablePointer(bitPattern: UInt(endOrder)) : nil }
        set { endOrder = UInt64(UInt(bitPattern: newValue)) }
    }

    /// Throws unless the greenlet belongs to the calling thread. Returns the thread's hub.
    @inline(__always)
    final func ownHub() throws -> UnsafeMutablePointer<gevent_hub> {
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial else { throw wrongHubError() }
        return hub
    }

    /// Returns the hub like `ownHub()`, but traps on another thread: for calls that cannot throw.
    @inline(__always)
    final func requireOwnHub() -> UnsafeMutablePointer<gevent_hub> {
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial else { wrongThread() }
        return hub
    }

    @inline(never)
    final func wrongThread() -> Never {
        fatalError("\(wrongHubError())")
    }

    @inline(never)
    final func wrongHubError() -> any Error { HubError.wrongHubError(hubSerial) }

    // MARK: Names

    /// A small non-negative integer, unique among the living greenlets of one hub.
    ///
    /// The smallest free number. It is assigned on first request and free again when the object is deallocated. The
    /// first request traps on another thread, and after the hub is destroyed.
    ///
    /// gevent: `Greenlet.minimal_ident`.
    public final var minimalID: Int {
        if let id = details?.minimalID { return id }
        let id = Hub.of(requireOwnHub()).identifiers.take()
        ensureDetails().minimalID = id
        if details?.name == nil { copyNameToContext() }
        return id
    }

    /// The name in reports, derived from ``minimalID`` unless one was set. Use it only on the greenlet's own thread.
    ///
    /// gevent: `Greenlet.name`.
    public final var name: String {
        get { details?.name ?? automaticName ?? "Greenlet-\(minimalID)" }
        set {
            ensureDetails().name = newValue
            copyNameToContext()
        }
    }

    /// A name that is computed on each read, for classes with too many greenlets to store one in each; nil if there is
    /// none. A name that was set takes precedence.
    @_spi(GeventInternals)
    open var automaticName: String? { nil }

    /// The name if one was set or can be derived without assigning an identifier.
    final var knownName: String? {
        details?.name ?? automaticName ?? details?.minimalID.map { "Greenlet-\($0)" }
    }

    final func ensureDetails() -> GreenletDetails {
        if let details { return details }
        let made = GreenletDetails()
        details = made
        return made
    }

    /// Copies the name to the context. The overflow report runs in a signal handler, which may not call Swift, so it
    /// reads the name there.
    final func copyNameToContext() {
        guard let context, let name = knownName else { return }
        withUnsafeMutableBytes(of: &context.pointee.name) { buffer in
            let bytes = name.utf8.prefix(buffer.count - 1)
            buffer.copyBytes(from: bytes)
            buffer[bytes.count] = 0
        }
    }

    /// Writes an automatic name to the context, where a signal handler can read it, unless a name was set. Call it in
    /// the running greenlet itself. `text` ends with a zero byte, and is truncated to 47 bytes.
    @_spi(GeventInternals)
    public final func publishAutomaticName(_ text: UnsafePointer<CChar>) {
        guard let context, details?.name == nil else { return }
        withUnsafeMutableBytes(of: &context.pointee.name) { buffer in
            let room = buffer.assumingMemoryBound(to: CChar.self)
            strncpy(room.baseAddress!, text, room.count - 1)
            room[room.count - 1] = 0
        }
    }

    /// The class and the name. The name is included only if it was set, is automatic, or ``minimalID`` was requested;
    /// otherwise the address is.
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

    /// Runs the greenlet from its first instruction to its end. Called by the entry function of a fresh stack.
    func runOnStack(_ context: UnsafeMutablePointer<gevent_context>) {
        preconditionFailure("a greenlet of this kind is never started")
    }

    /// Ends a greenlet that never ran.
    func endUnstarted(_ error: any Error) {
        preconditionFailure("a greenlet of this kind is never unstarted")
    }

    /// Records that a raw greenlet is scheduled for its first run.
    @inline(__always)
    final func countStart(_ hub: UnsafeMutablePointer<gevent_hub>) {
        phase = .scheduled
        hub.pointee.spawn_count &+= 1
        if hub.pointee.spawn_flags & UInt32(GEVENT_SPAWN_TRACES) != 0 { Hub.of(hub).switchWatch?.spawned(self) }
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

    /// Makes the hub the owner of the stack. A `deinit` that runs after this sees the hub as the current greenlet. It
    /// cannot park, because the greenlet has ended and could no longer be killed or timed out.
    @inline(__always)
    final func detachOwner(_ context: UnsafeMutablePointer<gevent_context>) {
        context.pointee.owner = context.pointee.hub.pointee.root.owner
        gevent_pending_refuse(context)
    }

    /// Releases what the context of an ended greenlet still holds.
    ///
    /// A `deinit` may run user code here. So the outcome is already recorded, and the hub owns the stack by then.
    @inline(__always)
    final func leave(_ context: UnsafeMutablePointer<gevent_context>) {
        self.context = nil
        detachOwner(context)
        if pendingErrors != nil { dropPendingErrors() }
        if !gevent_list_is_empty(&context.pointee.timeouts) { Timeout.cancelAll(of: context) }
        if context.pointee.locals != nil { dropLocals(of: context) }
    }

    /// The spawn site; nil once its hub is destroyed, which frees the record, and on another thread.
    package final var readableSpawnSite: UnsafePointer<gevent_spawn_site>? {
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial else { return nil }
        return spawnSite
    }

    // MARK: Delivering errors

    /// Delivers `error` to the greenlet, to be raised where it is parked or at its next switch point. A sticky error is
    /// raised at every switch point from then on.
    ///
    /// A greenlet that has not run yet ends at once and never runs. No effect on one that has ended.
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
            // A context that was woken, or that yielded, is in the ready queue already. It receives what it was woken
            // for, and the error stays pending until its next park. So nothing handed to it is lost.
            gevent_wait_end(context, UInt8(GEVENT_WAIT_FAILED))
        }
    }

    private func addPending(_ new: PendingError) {
        guard let pending = pendingErrors else {
            pendingErrors = PendingErrors(new)
            return
        }
        if pending.hasSticky {
            // The sticky error is raised at every park, so a later one would never be raised.
            new.timeout?.wasDropped()
            return
        }
        _ = pending.add(new)
    }

    /// Adds a pending error. The caller must then end the greenlet's wait with `GEVENT_WAIT_FAILED`.
    final func prepareToRaise(_ error: any Error, _ context: UnsafeMutablePointer<gevent_context>) {
        addPending(PendingError(error: error, timeout: nil, isSticky: false))
        gevent_pending_raise(context)
    }

    final var hasStickyError: Bool { pendingErrors?.hasSticky == true }

    /// Removes the pending error that `timeout` delivered to the running greenlet. Returns whether there was one.
    @discardableResult
    final func retract(_ timeout: Timeout) -> Bool {
        retractErrors { $0.timeout === timeout }
    }

    /// Removes the pending errors that match. Returns whether there were any.
    @discardableResult
    final func retractErrors(where matches: (PendingError) -> Bool) -> Bool {
        guard let pending = pendingErrors else { return false }
        let (removed, isEmpty) = pending.remove(where: matches)
        if isEmpty { clearPendingErrors() }
        return !removed.isEmpty
    }

    /// Removes and returns the earliest pending error; a sticky one stays pending.
    final func takePendingError() -> any Error {
        guard let pending = pendingErrors else {
            return HubError(.invalidSwitch, "a wait failed, but no error is pending")
        }
        if pending.first.isSticky { return pending.first.error }
        let (first, isLast) = pending.takeFirst()
        if isLast { clearPendingErrors() }
        first.timeout?.wasRaised(in: self)
        return first.error
    }

    /// A unique number of the running greenlet, which a timeout stores when it is thrown here. No other greenlet of the
    /// process has it, not even a deallocated one.
    final var raisedNumber: UInt64 {
        if endOrder == 0 { endOrder = UniqueNumber.next() }
        return endOrder
    }

    /// Discards the pending errors; they are never raised.
    final func dropPendingErrors() {
        guard let pending = pendingErrors else { return }
        clearPendingErrors()
        for dropped in pending.all { dropped.timeout?.wasDropped() }
    }

    private func clearPendingErrors() {
        // Released after nothing is pending any longer: a `deinit` may deliver an error to this very greenlet.
        let discarded = pendingErrors
        pendingErrors = nil
        if let context { gevent_pending_clear(context) }
        withExtendedLifetime(discarded) {}
    }
}

@available(*, unavailable)
extension AnyGreenlet: Sendable {}

/// Rarely needed flags of a greenlet, in one byte.
private struct GreenletFlags: OptionSet {
    let rawValue: UInt8
    static let isNotifying = GreenletFlags(rawValue: 1)
    static let isInherited = GreenletFlags(rawValue: 2)
    static let keepsFailure = GreenletFlags(rawValue: 4)
}

/// State that few greenlets need, allocated separately so that the others do not pay for it.
final class GreenletDetails {
    var name: String?
    var minimalID: Int?
    /// The inherited values of greenlet locals, until the greenlet runs.
    var inheritedLocals: UnsafeMutablePointer<gevent_locals>?

    /// Frees the inherited locals, and the identifier if its hub is still this thread's hub.
    func close(hubSerial: UInt32) {
        let hub = gevent_hub_current().flatMap { $0.pointee.serial == hubSerial ? $0 : nil }
        dropInheritedLocals(hub)
        guard let minimalID, let hub else { return }
        Hub.of(hub).identifiers.release(minimalID)
    }
}

/// An allocator of the smallest free non-negative integer.
struct IdentifierPool {
    /// A bit per identifier in use.
    private var words: [UInt64] = []
    /// The index of the first word that may have a free bit.
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
