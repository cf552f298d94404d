// Where the values of greenlet locals are: in a table for each greenlet, and in a list for each local, so that either
// can go and take them along.

internal import CGevent

/// The values of one local on one hub.
final class LocalRoster {
    let id: UInt64
    /// For reports.
    let label: String
    let isInheriting: Bool
    /// Not retained: a greenlet's table retains each cell, and a cell that leaves its table leaves the list.
    fileprivate(set) var first: Unmanaged<AnyLocalCell>?

    init(id: UInt64, label: String, isInheriting: Bool) {
        self.id = id
        self.label = label
        self.isInheriting = isInheriting
    }
}

/// One greenlet's value of one local, with its type erased.
@usableFromInline
class AnyLocalCell {
    let locals: UnsafeMutablePointer<gevent_locals>
    package let roster: LocalRoster
    private var previous: Unmanaged<AnyLocalCell>?
    fileprivate private(set) var next: Unmanaged<AnyLocalCell>?

    init(in locals: UnsafeMutablePointer<gevent_locals>, _ roster: LocalRoster) {
        self.locals = locals
        self.roster = roster
    }

    /// Puts the new cell into its table, which retains it, and its list.
    final func enlist(_ hub: UnsafeMutablePointer<gevent_hub>) {
        gevent_locals_add(locals, roster.id, Unmanaged.passRetained(self).toOpaque())
        next = roster.first
        next?._withUnsafeGuaranteedRef { $0.previous = Unmanaged.passUnretained(self) }
        roster.first = Unmanaged.passUnretained(self)
        guard roster.isInheriting else { return }
        Hub.of(hub).locals.inheritableCount += 1
        hub.pointee.spawn_duties |= UInt32(GEVENT_SPAWN_INHERITS)
    }

    /// `hub` is null if the cell's hub is gone.
    fileprivate final func delist(_ hub: UnsafeMutablePointer<gevent_hub>?) {
        if let previous {
            previous._withUnsafeGuaranteedRef { $0.next = next }
        } else {
            roster.first = next
        }
        next?._withUnsafeGuaranteedRef { $0.previous = previous }
        guard roster.isInheriting, let hub else { return }
        let owner = Hub.of(hub)
        owner.locals.inheritableCount -= 1
        if owner.locals.inheritableCount == 0 { hub.pointee.spawn_duties &= ~UInt32(GEVENT_SPAWN_INHERITS) }
    }

    /// Puts a copy of the value into another greenlet's table.
    func copy(to locals: UnsafeMutablePointer<gevent_locals>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        preconditionFailure("overridden by LocalCell")
    }

    /// For reports.
    var anyValue: Any { preconditionFailure("overridden by LocalCell") }
}

@usableFromInline
final class LocalCell<Value>: AnyLocalCell {
    // Unchecked, because `isBeingModified` is the check: a flag of the greenlet's own, which costs less than the
    // runtime's list of accesses and, unlike that, may stay set over a wait.
    @usableFromInline @exclusivity(unchecked) var storage: Value
    @usableFromInline @exclusivity(unchecked) var isBeingModified = false

    init(_ value: Value, in locals: UnsafeMutablePointer<gevent_locals>, _ roster: LocalRoster) {
        storage = value
        super.init(in: locals, roster)
    }

    @inlinable var value: Value {
        get {
            if isBeingModified { conflict() }
            return storage
        }
        set {
            if isBeingModified { conflict() }
            // The old value goes when the new one is in its place: what it does then may look at the local.
            let previous = storage
            storage = newValue
            withExtendedLifetime(previous) {}
        }
        _modify {
            if isBeingModified { conflict() }
            isBeingModified = true
            defer { isBeingModified = false }
            yield &storage
        }
    }

    @usableFromInline
    @inline(never)
    func conflict() -> Never {
        fatalError("a greenlet local was used while its value was being changed in place")
    }

    override func copy(to locals: UnsafeMutablePointer<gevent_locals>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        LocalCell(value, in: locals, roster).enlist(hub)
    }

    override var anyValue: Any { isBeingModified ? "(being changed)" : storage }
}

/// The current greenlet's table.
enum LocalTable {
    /// A stack that runs on nobody's behalf any more is the hub's. Main's is main's, also while it destroys the hub.
    private static func context(_ hub: UnsafeMutablePointer<gevent_hub>) -> UnsafeMutablePointer<gevent_context> {
        let current = hub.pointee.current!
        let isNobodys = gevent_pending_flags(hub) == UInt8(GEVENT_PENDING_REFUSED) && current != gevent_hub_main(hub)
        return isNobodys ? gevent_hub_root(hub) : current
    }

    static func existing(_ hub: UnsafeMutablePointer<gevent_hub>) -> UnsafeMutablePointer<gevent_locals>? {
        context(hub).pointee.locals
    }

    static func existingOrNew(_ hub: UnsafeMutablePointer<gevent_hub>) -> UnsafeMutablePointer<gevent_locals> {
        let context = context(hub)
        if let locals = context.pointee.locals { return locals }
        let made = gevent_locals_make(hub)!
        context.pointee.locals = made
        return made
    }

    /// Frees a value that was taken out of its table. Whatever it held may run code of its own.
    static func release(_ cell: UnsafeMutableRawPointer, _ hub: UnsafeMutablePointer<gevent_hub>?) {
        let cell = Unmanaged<AnyLocalCell>.fromOpaque(cell).takeRetainedValue()
        cell.delist(hub)
    }

    /// Frees a table that no greenlet has any more, with all its values.
    static func free(_ locals: UnsafeMutablePointer<gevent_locals>, _ hub: UnsafeMutablePointer<gevent_hub>?) {
        while let cell = gevent_locals_remove_any(locals) { release(cell, hub) }
        gevent_locals_free(hub, locals)
    }

    /// The values stay as they are and belong to no local any more: nobody releases them.
    static func leave(_ locals: UnsafeMutablePointer<gevent_locals>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        for cell in cells(of: locals) { cell.delist(hub) }
    }

    static func cells(of locals: UnsafeMutablePointer<gevent_locals>) -> [AnyLocalCell] {
        var place: UInt32 = 0
        var cells: [AnyLocalCell] = []
        while let cell = gevent_locals_next(locals, &place) {
            cells.append(Unmanaged<AnyLocalCell>.fromOpaque(cell).takeUnretainedValue())
        }
        return cells
    }
}

extension AnyGreenlet {
    /// Gives this new greenlet copies of the current one's inheritable values.
    @inline(never)
    final func inheritLocals(_ hub: UnsafeMutablePointer<gevent_hub>) {
        guard let source = LocalTable.existing(hub) else { return }
        var place: UInt32 = 0
        while let cell = gevent_locals_next(source, &place) {
            let cell = Unmanaged<AnyLocalCell>.fromOpaque(cell)
            guard cell._withUnsafeGuaranteedRef({ $0.roster.isInheriting }) else { continue }
            let details = ensureDetails()
            let locals = details.inheritedLocals ?? gevent_locals_make(hub)!
            details.inheritedLocals = locals
            cell._withUnsafeGuaranteedRef { $0.copy(to: locals, hub) }
        }
    }

    /// The greenlet on this stack is over.
    @inline(never)
    final func dropLocals(of context: UnsafeMutablePointer<gevent_context>) {
        guard let locals = context.pointee.locals else { return }
        context.pointee.locals = nil
        LocalTable.free(locals, context.pointee.hub)
    }
}

extension GreenletDetails {
    /// Frees what the greenlet inherited and did not live to use. `hub` is null if the greenlet's hub is gone.
    func dropInheritedLocals(_ hub: UnsafeMutablePointer<gevent_hub>?) {
        guard let locals = inheritedLocals else { return }
        inheritedLocals = nil
        LocalTable.free(locals, hub)
    }
}

/// What a hub knows of the greenlet locals that have values in it.
struct HubLocals {
    /// By the numbers of the locals.
    var rosters: [UInt64: LocalRoster] = [:]
    /// The roster that was looked up last, which most often is the one that is wanted next.
    var latestRoster: LocalRoster?
    /// How many values of inheriting locals there are.
    var inheritableCount = 0
}

extension Hub {
    /// A local is gone: frees its values in all greenlets.
    func dropLocal(_ id: UInt64) {
        guard let roster = locals.rosters.removeValue(forKey: id) else { return }
        locals.latestRoster = nil
        while let cell = roster.first {
            let locals = cell._withUnsafeGuaranteedRef { $0.locals }
            if let cell = gevent_locals_remove(locals, id) { LocalTable.release(cell, pointer) }
        }
    }

    /// The hub goes, and so does every value. What a value does when it goes may make others; those of the last round
    /// are never freed.
    func dropAllLocals() {
        for _ in 0..<100 where !locals.rosters.isEmpty {
            for id in Array(locals.rosters.keys) { dropLocal(id) }
        }
        for greenlet in [mainGreenlet, hubGreenlet] as [AnyGreenlet] {
            if let context = greenlet.context { greenlet.dropLocals(of: context) }
        }
    }
}

extension AnyGreenlet {
    /// The values of its locals with their labels, in the order in which the locals were made; for reports.
    package final var labelledLocals: [(label: String, value: Any)] {
        guard let locals = context?.pointee.locals ?? details?.inheritedLocals else { return [] }
        let cells = LocalTable.cells(of: locals).sorted { $0.roster.id < $1.roster.id }
        return cells.map { ($0.roster.label, $0.anyValue) }
    }
}
