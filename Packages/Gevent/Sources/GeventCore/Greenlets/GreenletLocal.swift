public import CGevent
internal import Synchronization

/// A variable with a separate value in each greenlet.
///
/// ```swift
/// let requestID = GreenletLocal("requestID") { "none" }
///
/// spawn {
///     requestID.value = "42"
///     try handle()  // reads "42" here and in the functions it calls; other greenlets do not
/// }
/// ```
///
/// The default closure makes a greenlet's value when it is first read. The value is released when the greenlet ends or
/// the local is deallocated, whichever comes first; the greenlet and the local do not retain each other. Main and raw
/// greenlets have values too, and so does the hub, for its callbacks. Reading costs a few nanoseconds, so a local can
/// be used where a task-local would be. A task-local that is bound around a wait follows its greenlet only where
/// ``RuntimeFacts/swapsTaskWords`` is true, and no greenlet inherits one.
///
/// With `inheriting: true`, a greenlet starts with a copy of its spawner's value, taken when the greenlet is made, if
/// the spawner has one. For a class, the reference is copied. Programs without inheriting locals pay nothing for them.
///
/// The local itself is Sendable and may be a global constant. The greenlets of each thread have their own values, which
/// need not be Sendable. When the local is deallocated, its values on other threads are released as soon as the hubs of
/// those threads run.
///
/// gevent: `gevent.local.local`, and `gevent.contextvars.ContextVar` for the inheriting form.
public final class GreenletLocal<Value>: Sendable {
    /// The name in reports; empty unless one was passed to the initialiser.
    public let name: String
    /// Whether a new greenlet starts with its spawner's value.
    public let isInheriting: Bool
    /// The local's key in the tables of greenlets.
    @usableFromInline let id = UniqueNumber.next()
    private let makeDefault: @Sendable () -> Value
    /// The serial of the only hub where the local has been used; otherwise `noHub` or `multipleHubs`.
    private let usage = Atomic<UInt32>(noHub)

    /// Makes a local. Its value in a greenlet is the one that `makeDefault` returns there, until another is assigned.
    /// The closure must not park.
    public init(_ name: String = "", inheriting: Bool = false, default makeDefault: @escaping @Sendable () -> Value) {
        self.name = name
        isInheriting = inheriting
        self.makeDefault = makeDefault
    }

    deinit { dropValues(of: id, usedIn: usage.load(ordering: .relaxed)) }

    /// The current greenlet's value.
    ///
    /// Never parks. Changing the value in place, as in `local.value.append(x)`, copies nothing. Using the local again
    /// within such a change traps.
    @available(*, noasync)
    public var value: Value {
        @inlinable get {
            if let hub = gevent_hub_current(), let locals = hub.pointee.current.pointee.locals,
                let cell = gevent_locals_find(locals, id)
            {
                return GreenletLocal.read(cell)
            }
            return existingOrNewCell().value
        }
        @inlinable set {
            if let hub = gevent_hub_current(), let locals = hub.pointee.current.pointee.locals,
                let cell = gevent_locals_find(locals, id)
            {
                Unmanaged<LocalCell<Value>>.fromOpaque(cell)._withUnsafeGuaranteedRef { $0.value = newValue }
            } else {
                assign(newValue)
            }
        }
        @inlinable _modify {
            let cell = existingOrNewCell()
            yield &cell.value
        }
    }

    /// Releases the current greenlet's value, if it has one. The next read makes the default again.
    @available(*, noasync)
    public func remove() {
        guard let hub = gevent_hub_current() else { return }
        if let cell = LocalTable.existing(hub).flatMap({ gevent_locals_remove($0, id) }) {
            LocalTable.release(cell, hub)
        }
    }

    /// Whether the current greenlet has a value: an assigned or inherited one, or a default that has been read.
    public var hasValue: Bool {
        guard let hub = gevent_hub_current(), let locals = LocalTable.existing(hub) else { return false }
        return gevent_locals_find(locals, id) != nil
    }

    /// Reads the value of a cell. Only this local adds cells under its key, so the cell has the type of this local.
    @usableFromInline
    @inline(__always)
    static func read(_ cell: UnsafeMutableRawPointer) -> Value {
        Unmanaged<LocalCell<Value>>.fromOpaque(cell)._withUnsafeGuaranteedRef { $0.value }
    }

    @usableFromInline
    func existingOrNewCell() -> LocalCell<Value> {
        let hub = requireHub()
        if let locals = LocalTable.existing(hub), let cell = gevent_locals_find(locals, id) {
            return Unmanaged<LocalCell<Value>>.fromOpaque(cell).takeUnretainedValue()
        }
        // The default is made before the table is accessed: the closure may use locals itself, this one included.
        return add(makeDefault())
    }

    @usableFromInline
    func assign(_ value: Value) {
        let hub = requireHub()
        if let locals = LocalTable.existing(hub), let cell = gevent_locals_find(locals, id) {
            Unmanaged<LocalCell<Value>>.fromOpaque(cell).takeUnretainedValue().value = value
        } else {
            _ = add(value)
        }
    }

    private func add(_ value: Value) -> LocalCell<Value> {
        let hub = requireHub()
        let locals = LocalTable.existingOrNew(hub)
        if let cell = gevent_locals_find(locals, id) {
            // The default closure has assigned a value itself. The last assignment wins.
            let cell = Unmanaged<LocalCell<Value>>.fromOpaque(cell).takeUnretainedValue()
            cell.value = value
            return cell
        }
        let cell = LocalCell(value, in: locals, cellList(hub))
        cell.insert(hub)
        return cell
    }

    private func cellList(_ hub: UnsafeMutablePointer<gevent_hub>) -> LocalCellList {
        let owner = Hub.of(hub)
        if let latest = owner.locals.latestCellList, latest.id == id { return latest }
        if let known = owner.locals.cellLists[id] {
            owner.locals.latestCellList = known
            return known
        }
        let made = LocalCellList(id: id, label: name.isEmpty ? "\(Value.self)" : name, isInheriting: isInheriting)
        owner.locals.cellLists[id] = made
        let (isFirst, user) = usage.compareExchange(
            expected: noHub, desired: hub.pointee.serial, ordering: .relaxed)
        if !isFirst && user != hub.pointee.serial { usage.store(multipleHubs, ordering: .relaxed) }
        return made
    }
}

private let noHub: UInt32 = 0
private let multipleHubs = UInt32.max

/// Releases the values of a deallocated local. The local cannot be used any longer, so no value is added meanwhile.
private func dropValues(of id: UInt64, usedIn usage: UInt32) {
    if usage == noHub { return }
    let here = gevent_hub_current()
    if let here { Hub.of(here).dropLocal(id) }
    if usage == here?.pointee.serial { return }
    for (serial, handle) in HubRegistry.handles where serial != here?.pointee.serial {
        if usage != multipleHubs && usage != serial { continue }
        // A hub that refuses the job is destroyed, and its values with it.
        handle.post { if let hub = gevent_hub_current() { Hub.of(hub).dropLocal(id) } }
    }
}
