// Storage for the values of greenlet locals. Each value is in the table of its greenlet and in the list of its local,
// so that either can be deallocated together with its values.

internal import CGevent

/// The list of the values of one local on one hub.
final class LocalCellList {
    let id: UInt64
    /// The name in reports.
    let label: String
    let isInheriting: Bool
    /// Not retained: a greenlet's table retains each cell, and a cell that is removed from its table is removed from
    /// this list too.
    fileprivate(set) var first: Unmanaged<AnyLocalCell>?

    init(id: UInt64, label: String, isInheriting: Bool) {
        self.id = id
        self.label = label
        self.isInheriting = isInheriting
    }
}

/// The value of one local in one greenlet, with its type erased.
@usableFromInline
class AnyLocalCell {
    let locals: UnsafeMutablePointer<gevent_locals>
    package let cellList: LocalCellList
    private var previous: Unmanaged<AnyLocalCell>?
    fileprivate private(set) var next: Unmanaged<AnyLocalCell>?

    init(in locals: UnsafeMutablePointer<gevent_locals>, _ cellList: LocalCellList) {
        self.locals = locals
        self.cellList = cellList
    }

    /// Adds the new cell to its table, which retains it, and to its list.
    final func insert(_ hub: UnsafeMutablePointer<gevent_hub>) {
        gevent_locals_add(locals, cellList.id, Unmanaged.passRetained(self).toOpaque())
        next = cellList.first
        next?._withUnsafeGuaranteedRef { $0.previous = Unmanaged.passUnretained(self) }
        cellList.first = Unmanaged.passUnretained(self)
        guard cellList.isInheriting else { return }
        Hub.of(hub).locals.inheritableCount += 1
        hub.pointee.spawn_flags |= UInt32(GEVENT_SPAWN_INHERITS)
    }

    /// Removes the cell from its list. `hub` is nil if the cell's hub is destroyed.
    fileprivate final func removeFromList(_ hub: UnsafeMutablePointer<gevent_hub>?) {
        if let previous {
            previous._withUnsafeGuaranteedRef { $0.next = next }
        } else {
            cellList.first = next
        }
        next?._withUnsafeGuaranteedRef { $0.previous = previous }
        guard cellList.isInheriting, let hub else { return }
        let owner = Hub.of(hub)
        owner.locals.inheritableCount -= 1
        if owner.locals.inheritableCount == 0 { hub.pointee.spawn_flags &= ~UInt32(GEVENT_SPAWN_INHERITS) }
    }

    /// Adds a copy of the value to the table of another greenlet.
    func copy(to locals: UnsafeMutablePointer<gevent_locals>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        preconditionFailure("overridden by LocalCell")
    }

    /// The value as reports print it.
    var anyValue: Any { preconditionFailure("overridden by LocalCell") }
}

@usableFromInline
final class LocalCell<Value>: AnyLocalCell {
    // Unchecked exclusivity, because `isBeingModified` is the check. This flag costs less than the runtime's list of
    // accesses and, unlike that list, may stay set across a wait.
    @usableFromInline @exclusivity(unchecked) var storage: Value
    @usableFromInline @exclusivity(unchecked) var isBeingModified = false

    init(_ value: Value, in locals: UnsafeMutablePointer<gevent_locals>, _ cellList: LocalCellList) {
        storage = value
        super.init(in: locals, cellList)
    }

    @inlinable var value: Value {
        get {
            if isBeingModified { conflict() }
            return storage
        }
        set {
            if isBeingModified { conflict() }
            // The old value is released after the new one is stored, because its `deinit` may read the local.
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
        LocalCell(value, in: locals, cellList).insert(hub)
    }

    override var anyValue: Any { isBeingModified ? "(being changed)" : storage }
}

/// Functions for the table of the current greenlet.
enum LocalTable {
    /// Returns the context whose table is current. A stack that is detached from its greenlet uses the hub's. Main's
    /// stack uses main's, even while it destroys the hub.
    private static func context(_ hub: UnsafeMutablePointer<gevent_hub>) -> UnsafeMutablePointer<gevent_context> {
        let current = hub.pointee.current!
        let isDetached = gevent_pending_flags(hub) == UInt8(GEVENT_PENDING_REFUSED) && current != gevent_hub_main(hub)
        return isDetached ? gevent_hub_root(hub) : current
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

    /// Releases a value that was removed from its table, which may run user code.
    static func release(_ cell: UnsafeMutableRawPointer, _ hub: UnsafeMutablePointer<gevent_hub>?) {
        let cell = Unmanaged<AnyLocalCell>.fromOpaque(cell).takeRetainedValue()
        cell.removeFromList(hub)
    }

    /// Frees a table that no greenlet uses any longer, and releases all its values.
    static func free(_ locals: UnsafeMutablePointer<gevent_locals>, _ hub: UnsafeMutablePointer<gevent_hub>?) {
        while let cell = gevent_locals_remove_any(locals) { release(cell, hub) }
        gevent_locals_free(hub, locals)
    }

    /// Removes all values from the lists of their locals. They stay in the table and are never released.
    static func leave(_ locals: UnsafeMutablePointer<gevent_locals>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        for cell in cells(of: locals) { cell.removeFromList(hub) }
    }

    static func cells(of locals: UnsafeMutablePointer<gevent_locals>) -> [AnyLocalCell] {
        var position: UInt32 = 0
        var cells: [AnyLocalCell] = []
        while let cell = gevent_locals_next(locals, &position) {
            cells.append(Unmanaged<AnyLocalCell>.fromOpaque(cell).takeUnretainedValue())
        }
        return cells
    }
}

extension AnyGreenlet {
    /// Adds copies of the current greenlet's inheritable values to this new greenlet.
    @inline(never)
    final func inheritLocals(_ hub: UnsafeMutablePointer<gevent_hub>) {
        guard let source = LocalTable.existing(hub) else { return }
        var position: UInt32 = 0
        while let cell = gevent_locals_next(source, &position) {
            let cell = Unmanaged<AnyLocalCell>.fromOpaque(cell)
            guard cell._withUnsafeGuaranteedRef({ $0.cellList.isInheriting }) else { continue }
            let details = ensureDetails()
            let locals = details.inheritedLocals ?? gevent_locals_make(hub)!
            details.inheritedLocals = locals
            cell._withUnsafeGuaranteedRef { $0.copy(to: locals, hub) }
        }
    }

    /// Releases the values of a greenlet that has ended on this stack.
    @inline(never)
    final func dropLocals(of context: UnsafeMutablePointer<gevent_context>) {
        guard let locals = context.pointee.locals else { return }
        context.pointee.locals = nil
        LocalTable.free(locals, context.pointee.hub)
    }
}

extension GreenletDetails {
    /// Frees the inherited values of a greenlet that ended before it ran. `hub` is nil if the greenlet's hub is
    /// destroyed.
    func dropInheritedLocals(_ hub: UnsafeMutablePointer<gevent_hub>?) {
        guard let locals = inheritedLocals else { return }
        inheritedLocals = nil
        LocalTable.free(locals, hub)
    }
}

/// The state of a hub for the greenlet locals that have values on it.
struct HubLocals {
    /// The lists of values, by the keys of the locals.
    var cellLists: [UInt64: LocalCellList] = [:]
    /// The list that was looked up last. Most often the next lookup is for the same one.
    var latestCellList: LocalCellList?
    /// The number of values of inheriting locals.
    var inheritableCount = 0
}

extension Hub {
    /// Releases the values of a deallocated local in all greenlets.
    func dropLocal(_ id: UInt64) {
        guard let cellList = locals.cellLists.removeValue(forKey: id) else { return }
        locals.latestCellList = nil
        while let cell = cellList.first {
            let locals = cell._withUnsafeGuaranteedRef { $0.locals }
            if let cell = gevent_locals_remove(locals, id) { LocalTable.release(cell, pointer) }
        }
    }

    /// Releases every value when the hub is destroyed. The `deinit` of a value may make new values, so this takes
    /// several rounds; values made in the last round are never released.
    func dropAllLocals() {
        for _ in 0..<100 where !locals.cellLists.isEmpty {
            for id in Array(locals.cellLists.keys) { dropLocal(id) }
        }
        for greenlet in [mainGreenlet, hubGreenlet] as [AnyGreenlet] {
            if let context = greenlet.context { greenlet.dropLocals(of: context) }
        }
    }
}

extension AnyGreenlet {
    /// The values of the greenlet's locals with their labels, for reports, in the order in which the locals were made.
    package final var labelledLocals: [(label: String, value: Any)] {
        guard let locals = context?.pointee.locals ?? details?.inheritedLocals else { return [] }
        let cells = LocalTable.cells(of: locals).sorted { $0.cellList.id < $1.cellList.id }
        return cells.map { ($0.cellList.label, $0.anyValue) }
    }
}
