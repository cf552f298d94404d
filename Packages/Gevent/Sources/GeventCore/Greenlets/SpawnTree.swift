// Who spawned whom: the spawner, where it was, and the store that a tree of greenlets shares.

internal import CGevent

/// Counts a new greenlet among the children of the current one. Returns its spawnNode, and where the current one was made
/// itself.
@inline(__always)
func recordSpawner(
    _ hub: UnsafeMutablePointer<gevent_hub>
) -> (spawnNode: UInt, spawnersSite: UnsafePointer<gevent_spawn_site>?) {
    // The owner of the running context is there as long as it runs.
    recordSpawner(hub, hub.pointee.current.pointee.owner)
}

/// The same among those of the greenlet `owner`.
@inline(__always)
func recordSpawner(
    _ hub: UnsafeMutablePointer<gevent_hub>, _ owner: UnsafeMutableRawPointer
) -> (spawnNode: UInt, spawnersSite: UnsafePointer<gevent_spawn_site>?) {
    let spawner = Unmanaged<AnyGreenlet>.fromOpaque(owner)
    return spawner._withUnsafeGuaranteedRef {
        if !gevent_spawn_node_is_own($0.spawnNode) { $0.makeOwnSpawnNode(hub) }
        return (gevent_spawn_node_child($0.spawnNode), $0.spawnSite)
    }
}

extension AnyGreenlet {
    @inline(never)
    fileprivate final func makeOwnSpawnNode(_ hub: UnsafeMutablePointer<gevent_hub>) {
        spawnNode = gevent_spawn_node_make_own(hub, spawnNode, Unmanaged.passUnretained(self).toOpaque())
    }

    /// For `deinit`.
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

    /// For one that nobody shares any more. What it holds may spawn when it goes, so nothing may be half done by then.
    private func releaseStore(_ store: UnsafeMutableRawPointer?) {
        if let store { Unmanaged<SpawnTreeLocals>.fromOpaque(store).release() }
    }

    /// The greenlet that made this one, if it still exists: main, the hub for what callbacks spawn, or another.
    ///
    /// Weak: nothing is kept alive by what it spawned. Nil for main and the hub, and if `GEVENT_TRACK_GREENLET_TREE` is
    /// off. Traps on a foreign thread.
    ///
    /// gevent: `Greenlet.spawning_greenlet`.
    public final var spawningGreenlet: AnyGreenlet? {
        _ = requireOwnHub()
        // A spawner that goes takes its address out of the record.
        return gevent_spawn_node_spawner(spawnNode).map { Unmanaged<AnyGreenlet>.fromOpaque($0).takeUnretainedValue() }
    }

    /// Where it was made, and where the greenlets were made that led to it, the latest first.
    ///
    /// Recording costs nanoseconds; names are looked up when the stack is printed. Nil for main, the hub and raw
    /// greenlets, and if `GEVENT_TRACK_GREENLET_TREE` is off. Traps on a foreign thread.
    ///
    /// gevent: `Greenlet.spawning_stack`.
    public final var spawningStack: SpawningStack? {
        _ = requireOwnHub()
        return spawnSite.map(SpawningStack.init)
    }

    /// How many levels of spawning a ``spawningStack`` keeps, from 0, which keeps none, to 255; 10 unless it is set.
    /// For greenlets made from now on, in the whole process.
    ///
    /// A program in which greenlets spawn greenlets for ever comes round to the same few records, so memory is bounded.
    ///
    /// gevent: `Greenlet.spawning_stack_limit`, which counts frames. A level here is the place that made one greenlet,
    /// with a fixed number of frames.
    public static var spawningStackLimit: Int {
        get { Int(gevent_spawn_site_limit()) }
        set { gevent_spawn_site_set_limit(UInt32(min(max(newValue, 0), Int(GEVENT_SPAWN_LEVELS_MOST)))) }
    }

    /// What the greenlet and all its descendants share.
    ///
    /// Each child of main, and of the hub, begins a tree of its own, unless a store was assigned to main. Assigning a
    /// store begins a new tree with this greenlet: what it spawns from then on shares that store, and what it has
    /// spawned keeps the old one. The store goes with the last of its tree. Nil for main and the hub until one is
    /// assigned; always nil, and assigning does nothing, if `GEVENT_TRACK_GREENLET_TREE` is off. Raw greenlets take
    /// part. Traps on a foreign thread.
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

    /// The store as far as it exists: looking makes none.
    package final var existingSpawnTreeLocals: SpawnTreeLocals? {
        guard let tree = gevent_spawn_node_tree(spawnNode), let store = tree.pointee.store else { return nil }
        return Unmanaged<SpawnTreeLocals>.fromOpaque(store).takeUnretainedValue()
    }
}

/// Names a value in ``SpawnTreeLocals``. Each key made is another one, whatever it is called.
///
/// ```swift
/// let requestID = SpawnTreeKey<String>("requestID")
/// ```
public struct SpawnTreeKey<Value>: Sendable {
    /// What reports call it.
    public let name: String
    let id = UniqueNumber.next()

    /// A new key.
    public init(_ name: String) { self.name = name }
}

/// Values that a tree of greenlets shares, by typed keys; see ``AnyGreenlet/spawnTreeLocals``.
///
/// Confined to the thread of its greenlets.
///
/// gevent: the dictionary in `Greenlet.spawn_tree_locals`.
public final class SpawnTreeLocals: CustomStringConvertible {
    private var values: [UInt64: (name: String, value: Any)] = [:]

    /// An empty store.
    public init() {}

    /// The value of `key`, or nil if there is none; assigning nil removes it.
    public subscript<Value>(key: SpawnTreeKey<Value>) -> Value? {
        get { values[key.id]?.value as? Value }
        set {
            // The old value goes when this is done: what it does then may look at the store.
            let previous = values[key.id]
            values[key.id] = newValue.map { (key.name, $0) }
            withExtendedLifetime(previous) {}
        }
    }

    /// Whether it holds no value.
    public var isEmpty: Bool { values.isEmpty }

    /// The names and values, in the order in which their keys were made.
    public var description: String {
        "[\(entries.map { "\($0.name): \($0.value)" }.joined(separator: ", "))]"
    }

    package var entries: [(name: String, value: Any)] { values.sorted { $0.key < $1.key }.map(\.value) }
}

@available(*, unavailable)
extension SpawnTreeLocals: Sendable {}
