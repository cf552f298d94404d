// The spawn tree: the spawner of each greenlet, its spawn site, and the store that a tree of greenlets shares.

internal import CGevent

/// Records a new greenlet as a child of the current one. Returns the child's spawn-tree node and the current greenlet's
/// spawn site.
@inline(__always)
func recordSpawner(
    _ hub: UnsafeMutablePointer<gevent_hub>
) -> (spawnNode: UInt, spawnerSite: UnsafePointer<gevent_spawn_site>?) {
    // The owner of the running context is alive while the context runs.
    recordSpawner(hub, hub.pointee.current.pointee.owner)
}

/// Records a new greenlet as a child of the greenlet `owner`.
@inline(__always)
func recordSpawner(
    _ hub: UnsafeMutablePointer<gevent_hub>, _ owner: UnsafeMutableRawPointer
) -> (spawnNode: UInt, spawnerSite: UnsafePointer<gevent_spawn_site>?) {
    let spawner = Unmanaged<AnyGreenlet>.fromOpaque(owner)
    return spawner._withUnsafeGuaranteedRef {
        if !gevent_spawn_node_is_own($0.spawnNode) { $0.makeOwnSpawnNode(hub) }
        return (gevent_spawn_node_child($0.spawnNode), $0.spawnSite)
    }
}

extension AnyGreenlet {
    /// Gives this greenlet its own spawn-tree node.
    @inline(never)
    fileprivate final func makeOwnSpawnNode(_ hub: UnsafeMutablePointer<gevent_hub>) {
        spawnNode = gevent_spawn_node_make_own(hub, spawnNode, Unmanaged.passUnretained(self).toOpaque())
    }

    /// Leaves the spawn tree on the slow path. Called by `deinit`.
    @inline(never)
    final func leaveSpawnNodeSlowly() {
        let left = spawnNode
        spawnNode = 0
        var dropped: (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?)
        withUnsafeMutableBytes(of: &dropped) {
            gevent_spawn_node_leave_slowly(
                gevent_hub_current().flatMap { $0.pointee.serial == hubSerial ? $0 : nil }, left,
                $0.bindMemory(to: UnsafeMutableRawPointer?.self).baseAddress!)
        }
        releaseStore(dropped.0)
        releaseStore(dropped.1)
    }

    /// Releases a store that no greenlet shares any longer. Its values may spawn greenlets in their `deinit`, so the
    /// spawn tree must be consistent by then.
    private func releaseStore(_ store: UnsafeMutableRawPointer?) {
        if let store { Unmanaged<SpawnTreeLocals>.fromOpaque(store).release() }
    }

    /// The greenlet that spawned this one, if it still exists: main, the hub for greenlets spawned in callbacks, or
    /// another.
    ///
    /// Weak: a greenlet does not retain its spawner. Nil for main and the hub, and if `GEVENT_TRACK_GREENLET_TREE` is
    /// off. Traps on another thread.
    ///
    /// gevent: `Greenlet.spawning_greenlet`.
    public final var spawningGreenlet: AnyGreenlet? {
        _ = requireOwnHub()
        // A spawner clears its address in the node when it is deallocated.
        return gevent_spawn_node_spawner(spawnNode).map { Unmanaged<AnyGreenlet>.fromOpaque($0).takeUnretainedValue() }
    }

    /// The spawn site of this greenlet, of its spawner, and so on, the latest first.
    ///
    /// Recording costs nanoseconds; addresses are symbolicated when the stack is printed. Nil for main, the hub and raw
    /// greenlets, and if `GEVENT_TRACK_GREENLET_TREE` is off. Traps on another thread.
    ///
    /// gevent: `Greenlet.spawning_stack`.
    public final var spawningStack: SpawningStack? {
        _ = requireOwnHub()
        return spawnSite.map(SpawningStack.init)
    }

    /// The number of levels that a ``spawningStack`` keeps, from 0, which keeps none, to 255; 10 by default. Applies to
    /// greenlets made from now on, in the whole process.
    ///
    /// Memory is bounded: even in a program whose greenlets spawn greenlets without end, the same few records recur.
    ///
    /// gevent: `Greenlet.spawning_stack_limit`, which counts frames. A level here is the spawn site of one greenlet,
    /// with a fixed number of frames.
    public static var spawningStackLimit: Int {
        get { Int(gevent_spawn_site_limit()) }
        set { gevent_spawn_site_set_limit(UInt32(min(max(newValue, 0), Int(GEVENT_SPAWN_LEVELS_MAX)))) }
    }

    /// The store that the greenlet and all its descendants share.
    ///
    /// Each child of main, and of the hub, starts a new tree, unless a store was assigned to main. Assigning a store
    /// starts a new tree with this greenlet: greenlets that it spawns from then on share that store, and earlier ones
    /// keep the old store. The store is released with the last greenlet of its tree. Nil for main and the hub until one
    /// is assigned. Always nil if `GEVENT_TRACK_GREENLET_TREE` is off; then assigning has no effect. Raw greenlets take
    /// part. Traps on another thread.
    ///
    /// gevent: `Greenlet.spawn_tree_locals`.
    public final var spawnTreeLocals: SpawnTreeLocals? {
        get {
            let hub = requireOwnHub()
            if spawnNode == 0 { return nil }
            if gevent_spawn_node_tree(spawnNode) == nil && !gevent_spawn_node_is_own(spawnNode) {
                makeOwnSpawnNode(hub)
            }
            guard let tree = gevent_spawn_node_tree(spawnNode) else { return nil }
            if let store = tree.pointee.store {
                return Unmanaged<SpawnTreeLocals>.fromOpaque(store).takeUnretainedValue()
            }
            let made = SpawnTreeLocals()
            tree.pointee.store = Unmanaged.passRetained(made).toOpaque()
            return made
        }
        set {
            let hub = requireOwnHub()
            if spawnNode == 0 { return }
            let store = newValue.map { Unmanaged.passRetained($0).toOpaque() }
            var dropped: UnsafeMutableRawPointer?
            spawnNode = gevent_spawn_node_begin_tree(
                hub, spawnNode, Unmanaged.passUnretained(self).toOpaque(), store, &dropped)
            releaseStore(dropped)
        }
    }

    /// The store if it has been made. Reading this property does not make one.
    package final var existingSpawnTreeLocals: SpawnTreeLocals? {
        guard let tree = gevent_spawn_node_tree(spawnNode), let store = tree.pointee.store else { return nil }
        return Unmanaged<SpawnTreeLocals>.fromOpaque(store).takeUnretainedValue()
    }
}

/// A key of a value in ``SpawnTreeLocals``. Each key that is made is distinct, even if its name is not.
///
/// ```swift
/// let requestID = SpawnTreeKey<String>("requestID")
/// ```
public struct SpawnTreeKey<Value>: Sendable {
    /// The name of the key in reports.
    public let name: String
    let id = UniqueNumber.next()

    /// Makes a new key.
    public init(_ name: String) { self.name = name }
}

/// A store of values that a tree of greenlets shares, by typed keys; see ``AnyGreenlet/spawnTreeLocals``.
///
/// Confined to the thread of its greenlets.
///
/// gevent: the dictionary in `Greenlet.spawn_tree_locals`.
public final class SpawnTreeLocals: CustomStringConvertible {
    private var values: [UInt64: (name: String, value: Any)] = [:]

    /// Makes an empty store.
    public init() {}

    /// The value of `key`, or nil if there is none; assigning nil removes it.
    public subscript<Value>(key: SpawnTreeKey<Value>) -> Value? {
        get { values[key.id]?.value as? Value }
        set {
            // The old value is released last: its `deinit` may read the store.
            let previous = values[key.id]
            values[key.id] = newValue.map { (key.name, $0) }
            withExtendedLifetime(previous) {}
        }
    }

    /// Whether the store has no values.
    public var isEmpty: Bool { values.isEmpty }

    /// The names and values, in the order in which their keys were made.
    public var description: String {
        "[\(entries.map { "\($0.name): \($0.value)" }.joined(separator: ", "))]"
    }

    package var entries: [(name: String, value: Any)] { values.sorted { $0.key < $1.key }.map(\.value) }
}

@available(*, unavailable)
extension SpawnTreeLocals: Sendable {}
