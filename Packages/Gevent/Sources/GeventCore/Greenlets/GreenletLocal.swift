public import CGevent
internal import Synchronization

/// A variable of which each greenlet has a value of its own.
///
/// ```swift
/// let requestID = GreenletLocal("requestID") { "none" }
///
/// spawn {
///     requestID.value = "42"
///     try handle()  // and whatever it calls sees "42" here, and nobody else does
/// }
/// ```
///
/// A greenlet's value is made by the default closure when it is first read, and freed when the greenlet ends or the
/// local goes, whichever comes first; neither keeps the other alive. Main and raw greenlets have values too, and so has
/// the hub, for its callbacks. Reading costs a few nanoseconds, so that a local may stand where a task-local would. A
/// task-local that is bound around a wait follows its greenlet only where ``RuntimeFacts/swapsTaskWords`` is true, and
/// no greenlet inherits one.
///
/// With `inheriting: true` a greenlet begins with a copy of the value its spawner has when it makes it, if that has
/// one. What is copied is the value: of a class, the reference. Programs without inheriting locals pay nothing for
/// them.
///
/// The local itself is Sendable and may be a global constant; each thread's greenlets have their own values, which need
/// not be Sendable. When it goes, values on other threads are freed as soon as their hubs run.
///
/// gevent: `gevent.local.local`, and `gevent.contextvars.ContextVar` for the inheriting form.
public final class GreenletLocal<Value>: Sendable {
    /// What reports call it; empty unless it was given one.
    public let name: String
    /// Whether a new greenlet begins with its spawner's value.
    public let isInheriting: Bool
    /// Its number in the greenlets' tables.
    @usableFromInline let id = UniqueNumber.next()
    private let makeDefault: @Sendable () -> Value
    /// The serial of the only hub where it has been used; `nowhere`, or `manyHubs`.
    private let usage = Atomic<UInt32>(nowhere)

    /// A local whose value in a greenlet is what `makeDefault` returns there, until another is assigned. The closure
    /// must not park.
    public init(_ name: String = "", inheriting: Bool = false, default makeDefault: @escaping @Sendable () -> Value) {
        self.name = name
        isInheriting = inheriting
        self.makeDefault = makeDefault
    }

    deinit { dropValues(of: id, usedIn: usage.load(ordering: .relaxed)) }

    /// The current greenlet's value.
    ///
    /// Never parks. Changing it in place, as in `local.value.append(x)`, copies nothing; using the local again within
    /// such a change traps.
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

    /// Frees the current greenlet's value, if it has one; read again, it is the default again.
    @available(*, noasync)
    public func remove() {
        guard let hub = gevent_hub_current() else { return }
        if let cell = LocalTable.existing(hub).flatMap({ gevent_locals_remove($0, id) }) {
            LocalTable.release(cell, hub)
        }
    }

    /// Whether the current greenlet has a value: one that was assigned or inherited, or a default that was read.
    public var hasValue: Bool {
        guard let hub = gevent_hub_current(), let locals = LocalTable.existing(hub) else { return false }
        return gevent_locals_find(locals, id) != nil
    }

    /// What is in a table under a local's number was put there by that local, so it is of its type.
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
        // Before the table is looked at: the closure may use locals itself, this one included.
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
            // The default closure has assigned a value itself: the last one counts.
            let cell = Unmanaged<LocalCell<Value>>.fromOpaque(cell).takeUnretainedValue()
            cell.value = value
            return cell
        }
        let cell = LocalCell(value, in: locals, roster(hub))
        cell.enlist(hub)
        return cell
    }

    private func roster(_ hub: UnsafeMutablePointer<gevent_hub>) -> LocalRoster {
        let owner = Hub.of(hub)
        if let latest = owner.locals.latestRoster, latest.id == id { return latest }
        if let known = owner.locals.rosters[id] {
            owner.locals.latestRoster = known
            return known
        }
        let made = LocalRoster(id: id, label: name.isEmpty ? "\(Value.self)" : name, isInheriting: isInheriting)
        owner.locals.rosters[id] = made
        let (isFirst, user) = usage.compareExchange(
            expected: nowhere, desired: hub.pointee.serial, ordering: .relaxed)
        if !isFirst && user != hub.pointee.serial { usage.store(manyHubs, ordering: .relaxed) }
        return made
    }
}

private let nowhere: UInt32 = 0
private let manyHubs = UInt32.max

/// Frees what is left of a local that has gone. Nobody uses it any more, so no value of it is added meanwhile.
private func dropValues(of id: UInt64, usedIn usage: UInt32) {
    if usage == nowhere { return }
    let here = gevent_hub_current()
    if let here { Hub.of(here).dropLocal(id) }
    if usage == here?.pointee.serial { return }
    for (serial, handle) in HubRegistry.handles where serial != here?.pointee.serial {
        if usage != manyHubs && usage != serial { continue }
        // A hub that refuses is gone, and the values with it.
        handle.post { if let hub = gevent_hub_current() { Hub.of(hub).dropLocal(id) } }
    }
}
