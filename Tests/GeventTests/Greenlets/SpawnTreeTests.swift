import CGevent
import Gevent
import GeventTesting
import Glibc
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

private let user = SpawnTreeKey<String>("user")
private let depth = SpawnTreeKey<Int>("depth")

@Suite("Spawn tree")
struct SpawnTreeTests {
    // MARK: Spawners

    @Test("The spawner is the greenlet that made it: main, another one, a raw one, or the hub for callbacks")
    func spawner() throws {
        let log = try logged { log, hub in
            let main = AnyGreenlet.current
            let outer = spawn {
                let made = Greenlet {}
                log.note("\(made.spawningGreenlet === AnyGreenlet.current)")
                return made
            }
            log.note("\(outer.spawningGreenlet === main)")
            let made = try outer.get()
            // The greenlet that starts it is irrelevant.
            made.start()
            log.note("\(made.spawningGreenlet === outer)")
            let raw = spawnRaw {
                log.note("\(spawn {}.spawningGreenlet === AnyGreenlet.current)")
            }
            log.note("\(raw.spawningGreenlet === main)")
            hub.runCallback {
                let child = spawn {}
                log.note("\(child.spawningGreenlet === AnyGreenlet.current) \(child.spawningGreenlet!)")
            }
            try sleep()
            log.note("\(main.spawningGreenlet == nil)")
        }
        #expect(log == ["true", "true", "true", "true", "true", "true <HubGreenlet>", "true"])
    }

    @Test("The spawner is a weak reference: a spawned greenlet retains nothing")
    func weakSpawner() throws {
        let log = try logged { log, _ in
            var child: Greenlet<Void>?
            weak var spawner: AnyGreenlet?
            do {
                let parent = spawn { child = Greenlet {} }
                try parent.join()
                spawner = parent
                // Ended, but not released.
                log.note("\(child!.spawningGreenlet === parent)")
            }
            log.note("\(spawner == nil) \(child!.spawningGreenlet == nil)")
        }
        #expect(log == ["true", "true true"])
    }

    @Test("Greenlets may outlive their hub and each other, in any order")
    func outliveTheHub() throws {
        for order in 0..<6 {
            try onFreshThread {
                var kept: [AnyGreenlet] = []
                let hub = try Hub.start(on: VirtualLoop())
                let parent = spawn {
                    let child = spawn {
                        AnyGreenlet.current.spawnTreeLocals![depth] = 2
                        kept.append(spawn {})
                    }
                    kept.append(child)
                    try child.join()
                }
                kept.append(parent)
                try parent.join()
                try sleep()
                hub.destroy()
                if order % 2 == 1 { kept.swapAt(0, 1) }
                kept.swapAt(2, order / 2)
                while !kept.isEmpty { kept.removeLast() }
            }
        }
    }

    // MARK: Spawn sites

    @Test("The stack shows the spawn site, followed by the spawner's spawn site")
    func stack() throws {
        let text = try withHub { _ in
            try spawn { try spawn { AnyGreenlet.current.spawningStack!.description }.get() }.get()
        }
        let lines = text.split(separator: "\n")
        #expect(lines.first?.hasPrefix("spawned at ") == true)
        #expect(lines.filter { $0.drop { $0 == " " }.hasPrefix("spawned at ") }.count == 2)
        #expect(lines.contains { $0.hasPrefix("  spawned at ") })
        #expect(lines.filter { $0.contains("SpawnTreeTests.stack()") }.count >= 2)
    }

    @Test("It shows file and line, also of an inlined function")
    func stackLines() throws {
        let (frames, inner, outer) = try withHub { _ in
            var inner: UInt = 0
            @inline(__always)
            func made() -> Greenlet<Void> {
                inner = #line + 1
                return Greenlet {}
            }
            let outer: UInt = #line + 1
            let greenlet = made()
            return (greenlet.spawningStack![0].frames, inner, outer)
        }
        #expect(frames.first?.hasSuffix("(SpawnTreeTests.swift:\(inner))") == true)
        #expect(frames.dropFirst().first?.hasSuffix("(SpawnTreeTests.swift:\(outer))") == true)
    }

    @Test("Equal sites share one record; main, the hub and raw greenlets have none")
    func records() throws {
        let log = try logged { log, hub in
            // The compiler does not know the count, so it does not unroll the loop: one site.
            var greenlets: [Greenlet<Void>] = []
            while greenlets.count < hub.statistics.spawnCount + 3 { greenlets.append(Greenlet {}) }
            log.note("\(greenlets[0].spawningStack! == greenlets[2].spawningStack!)")
            log.note("\(Greenlet {}.spawningStack! == greenlets[0].spawningStack!)")
            log.note("\(AnyGreenlet.current.spawningStack == nil) \(spawnRaw {}.spawningStack == nil)")
            hub.runCallback { log.note("\(AnyGreenlet.current.spawningStack == nil)") }
            try sleep()
        }
        #expect(log == ["true", "false", "true true", "true"])
    }

    /// Spawns a chain of greenlets, each from the one before, and returns each one's number of levels.
    private static func chain(_ length: Int) throws -> [Int] {
        var levels: [Int] = []
        func next(_ left: Int) {
            levels.append(AnyGreenlet.current.spawningStack?.count ?? 0)
            if left > 0 { spawn { next(left - 1) } }
        }
        spawn { next(length - 1) }
        _ = try Hub.current.join()
        return levels
    }

    @Test("The limit sets the number of recorded levels, ten by default")
    func limit() throws {
        defer { AnyGreenlet.spawningStackLimit = 10 }
        #expect(AnyGreenlet.spawningStackLimit == 10)
        let levels = try withHub { _ in
            var levels = [try Self.chain(13)]
            for limit in [3, 1, 0, -1, 1000, 3] {
                AnyGreenlet.spawningStackLimit = limit
                levels.append(try Self.chain(5))
            }
            return levels
        }
        #expect(
            levels == [
                [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10], [1, 2, 3, 3, 3], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0], [1, 2, 3, 4, 5], [1, 2, 3, 3, 3],
            ])
    }

    @Test("A greenlet that spawns its successor forever uses a constant number of records and no memory")
    func successors() throws {
        let counts = try withHub { hub in
            var left = 100_000
            var counts: [UInt32] = []
            func next() {
                left -= 1
                if left % 10_000 == 0 { counts.append(hub.pointer.pointee.spawn_sites.count) }
                if left > 0 { spawn { next() } }
            }
            spawn { next() }
            _ = try hub.join()
            return counts
        }
        #expect(counts.count == 10)
        #expect(Set(counts).count == 1)
        #expect(counts[0] < 40)
    }

    @Test("Chains beyond the limit are cut, and sites beyond the limit are not recorded")
    func cap() throws {
        let found = try withHub { hub in
            var sites = gevent_spawn_sites()
            defer { gevent_spawn_sites_destroy(&sites) }
            let most = Int(GEVENT_SPAWN_SITES_MAX)
            // More spawners than any real program has.
            let spawners = UnsafeMutableBufferPointer<gevent_spawn_site>.allocate(capacity: 3 * most)
            defer { spawners.deallocate() }
            spawners.initialize(repeating: gevent_spawn_site())
            var chained = 0
            var levelsOfLast: UInt32?
            for spawner in spawners.indices {
                spawners[spawner].level_count = 1
                let site = gevent_spawn_site_capture(
                    &sites, UnsafePointer(spawners.baseAddress! + spawner), hub.pointer.pointee.main.stack_high)
                if site?.pointee.parent != nil { chained += 1 }
                levelsOfLast = site?.pointee.level_count
            }
            return [chained - most, Int(sites.count) - most, Int(levelsOfLast ?? 0)]
        }
        #expect(found == [0, 1, 1])
    }

    // MARK: Locals of the tree

    @Test("A greenlet and all its descendants share one store; each child of main, and of the hub, has its own")
    func treeLocals() throws {
        let log = try logged { log, hub in
            func tree(_ name: String) -> Greenlet<Void> {
                spawn {
                    AnyGreenlet.current.spawnTreeLocals![user] = name
                    try spawn {
                        try sleep()
                        let store = AnyGreenlet.current.spawnTreeLocals!
                        log.note("\(name): \(store[user]!)")
                        store[user] = nil
                        let raw = spawnRaw {
                            log.note("\(name): raw \(AnyGreenlet.current.spawnTreeLocals === store)")
                            try spawn { log.note("\(AnyGreenlet.current.spawnTreeLocals === store)") }.join()
                        }
                        log.note("\(raw.spawnTreeLocals === store)")
                        store[depth] = 3
                    }.join()
                    log.note("\(name): \(AnyGreenlet.current.spawnTreeLocals!)")
                }
            }
            try joinAll([tree("a")])
            try joinAll([tree("b")])
            log.note("\(AnyGreenlet.current.spawnTreeLocals == nil)")
            hub.runCallback {
                log.note("\(AnyGreenlet.current.spawnTreeLocals == nil)")
                let (one, other) = (spawn {}, spawn {})
                log.note("\(one.spawnTreeLocals !== other.spawnTreeLocals)")
            }
            try sleep()
        }
        #expect(
            log == [
                "a: a", "true", "a: raw true", "a: [depth: 3]", "true", "b: b", "true", "b: raw true",
                "b: [depth: 3]", "true", "true", "true", "true",
            ])
    }

    @Test("A store exists whichever access comes first: from the child, from the parent, or from outside")
    func firstAccess() throws {
        let log = try logged { log, _ in
            let event = Greenlet {}
            var child: Greenlet<Void>?
            let parent = spawn {
                child = spawn { try event.join() }
                try event.join()
            }
            try sleep()
            let store = child!.spawnTreeLocals
            log.note("\(store === parent.spawnTreeLocals) \(store != nil)")
            event.start()
            try joinAll([parent, child!])
            // They have ended, and still have the store.
            log.note("\(store === parent.spawnTreeLocals) \(store === child!.spawnTreeLocals)")
        }
        #expect(log == ["true true", "true true"])
    }

    @Test("Assigning a store starts a new tree: greenlets spawned before keep the old store")
    func assigned() throws {
        let log = try logged { log, _ in
            let gate = Greenlet {}
            try spawn {
                let current = AnyGreenlet.current
                let old = current.spawnTreeLocals!
                let before = spawn { try gate.join() }
                let fresh = SpawnTreeLocals()
                current.spawnTreeLocals = fresh
                let after = spawn { try gate.join() }
                log.note("\(before.spawnTreeLocals === old) \(after.spawnTreeLocals === fresh)")
                log.note("\(current.spawnTreeLocals === fresh)")
                // Both are still children of it.
                log.note("\(before.spawningGreenlet === current) \(after.spawningGreenlet === current)")
                current.spawnTreeLocals = nil
                log.note("\(current.spawnTreeLocals !== fresh) \(current.spawnTreeLocals != nil)")
                gate.start()
                try joinAll([before, after])
            }.join()
            let main = AnyGreenlet.current
            main.spawnTreeLocals = SpawnTreeLocals()
            log.note("\(spawn {}.spawnTreeLocals === main.spawnTreeLocals)")
            main.spawnTreeLocals = nil
            log.note("\(main.spawnTreeLocals == nil) \(spawn {}.spawnTreeLocals !== spawn {}.spawnTreeLocals)")
        }
        #expect(log == ["true true", "true", "true true", "true true", "true", "true true"])
    }

    @Test("The store is released with the last greenlet of its tree, and no earlier")
    func storeIsReleased() throws {
        let log = try logged { log, _ in
            let key = SpawnTreeKey<Witness>("witness")
            let gate = Greenlet {}
            var last: Greenlet<Void>?
            do {
                let parent = spawn {
                    AnyGreenlet.current.spawnTreeLocals![key] = Witness { log.note("released") }
                    spawn { last = spawn { try gate.join() } }
                }
                try parent.join()
                try sleep()
            }
            log.note("kept")
            gate.start()
            try last!.join()
            log.note("over")
            last = nil
            log.note("end")
        }
        #expect(log == ["kept", "over", "released", "end"])
    }

    @Test("A long-lived greenlet that starts a tree for each request retains none of them")
    func requests() throws {
        let log = try logged { log, hub in
            let released = Counter()
            let key = SpawnTreeKey<Witness>("witness")
            try spawn {
                for _ in 0..<1000 {
                    let store = SpawnTreeLocals()
                    store[key] = Witness { released.add() }
                    AnyGreenlet.current.spawnTreeLocals = store
                    // The previous tree has ended when the next one starts.
                    try spawn { _ = AnyGreenlet.current.spawnTreeLocals![key] }.join()
                }
                // The last one is still in use.
                log.note("\(released.count)")
            }.join()
            log.note("\(released.count)")
        }
        #expect(log == ["999", "1000"])
    }

    @Test("A store is defined by its keys, which are typed and distinct")
    func keys() throws {
        let store = SpawnTreeLocals()
        let other = SpawnTreeKey<String>("user")
        #expect(store.isEmpty)
        store[user] = "a"
        store[depth] = 1
        store[other] = "b"
        #expect(store[user] == "a" && store[other] == "b" && store[depth] == 1)
        store[depth]! += 1
        store[user] = nil
        #expect(store.description == "[depth: 2, user: b]")
    }

    @Test("Spawning at any depth makes no store and leaves no record in use")
    func nothingIsLeft() throws {
        let counts = try withHub { hub in
            func work() throws {
                for _ in 0..<100 {
                    try spawn { try spawn { try spawn {}.join() }.join() }.join()
                }
            }
            try work()
            let before = freeRecordCount(hub)
            for _ in 0..<20 { try work() }
            return [before, freeRecordCount(hub)]
        }
        // No more records than a chain of three uses at once.
        #expect(counts[0] == counts[1])
        #expect(counts[0] < 20)
    }

    @Test("With GEVENT_TRACK_GREENLET_TREE off there is no spawner, stack or store; everything else works")
    func off() async {
        await #expect(processExitsWith: .success) {
            setenv("GEVENT_TRACK_GREENLET_TREE", "0", 1)
            try withHub { _ in try withoutTracking() }
            exit(0)
        }
    }
}

private func withoutTracking() throws {
    let greenlet = spawn { spawn { 1 } }
    let child = try greenlet.get()
    let main = AnyGreenlet.current
    main.spawnTreeLocals = SpawnTreeLocals()
    child.spawnTreeLocals = SpawnTreeLocals()
    for greenlet in [main, greenlet, child] {
        if greenlet.spawningGreenlet != nil || greenlet.spawningStack != nil { exit(2) }
        if greenlet.spawnTreeLocals != nil { exit(3) }
    }
    let raw = spawnRaw { if AnyGreenlet.current.spawnTreeLocals != nil { exit(4) } }
    if raw.spawningGreenlet != nil || GreenletTree.current().nodes.contains(where: { $0.depth > 0 }) { exit(5) }
    try child.join()
}

/// The number of the hub's records that are free for reuse.
private func freeRecordCount(_ hub: Hub) -> Int {
    var count = 0
    var record = hub.pointer.pointee.free_records
    while let next = record {
        count += 1
        record = next.load(as: UnsafeMutableRawPointer?.self)
    }
    return count
}
