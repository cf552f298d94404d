import CGevent
import Gevent
import GeventTesting
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A global constant, as in real programs.
private let requestID = GreenletLocal("requestID") { "none" }

@Suite("Greenlet locals")
struct GreenletLocalTests {
    @Test("Each greenlet, including main, raw ones and the hub, has its own value, which survives switches")
    func ownValues() throws {
        let log = try logged { log, hub in
            requestID.value = "main"
            let greenlets = ["a", "b"].map { name in
                spawn {
                    log.note("\(name): \(requestID.value)")
                    requestID.value = name
                    try sleep()
                    try sleep(for: .seconds(1))
                    log.note("\(name): \(requestID.value)")
                }
            }
            let raw = spawnRaw {
                log.note("raw: \(requestID.value)")
                requestID.value = "raw"
                try sleep()
                log.note("raw: \(requestID.value)")
            }
            hub.runCallback {
                log.note("hub: \(requestID.value)")
                requestID.value = "hub"
            }
            try joinAll(greenlets)
            log.note("main: \(requestID.value) \(raw.isDead)")
            hub.runCallback { log.note("hub: \(requestID.value)") }
            try sleep()
        }
        #expect(
            log == [
                "a: none", "b: none", "raw: none", "hub: none", "raw: raw", "a: a", "b: b", "main: main true",
                "hub: hub",
            ])
    }

    @Test("The default is made once in each greenlet, on the first read; remove() restores it")
    func lazyDefault() throws {
        let log = try logged { log, _ in
            let made = Counter()
            let local = GreenletLocal { made.add() }
            log.note("\(made.count) \(local.hasValue)")
            log.note("\(local.value) \(local.value) \(local.hasValue)")
            try spawn { log.note("\(local.value)") }.join()
            try spawn { local.value = 7 }.join()
            local.remove()
            local.remove()
            log.note("\(local.hasValue) \(local.value)")
            local.value += 10
            log.note("\(local.value) \(made.count)")
        }
        #expect(log == ["0 false", "1 1 true", "2", "false 3", "13 3"])
    }

    @Test("A value is changed in place without a copy")
    func inPlace() throws {
        let log = try logged { log, _ in
            let local = GreenletLocal { [Int](repeating: 0, count: 1000) }
            let before = local.value.withUnsafeBufferPointer { $0.baseAddress }
            for index in 0..<1000 { local.value[index] = index }
            log.note("\(local.value.withUnsafeBufferPointer { $0.baseAddress } == before) \(local.value[999])")
        }
        #expect(log == ["true 999"])
    }

    @Test("A value is released when its greenlet ends, in every way, even if the Greenlet object lives on")
    func freedWithTheGreenlet() throws {
        let log = try logged { log, _ in
            let local = GreenletLocal<Witness?> { nil }
            let returning = spawn { local.value = Witness { log.note("first released") } }
            try returning.join()
            log.note("returned")
            let killed = spawn {
                local.value = Witness { log.note("second released") }
                try sleep(for: .seconds(10))
            }
            try sleep()
            try killed.kill()
            log.note("killed")
            let raw = spawnRaw {
                local.value = Witness { log.note("third released") }
                throw GreenletExit()
            }
            try sleep()
            log.note("\(raw.isDead) \(returning.isDead)")
        }
        #expect(log == ["first released", "returned", "second released", "killed", "third released", "true true"])
    }

    @Test("Values are released together with the local, in every live greenlet")
    func freedWithTheLocal() throws {
        let log = try logged { log, _ in
            let gate = Greenlet {}
            var local: GreenletLocal<Witness?>? = GreenletLocal { nil }
            let greenlets = (0..<3).map { number in
                spawn {
                    local!.value = Witness { log.note("released \(number)") }
                    try gate.join()
                }
            }
            local!.value = Witness { log.note("main's released") }
            try sleep()
            log.note("dropped")
            local = nil
            log.note("freed")
            gate.start()
            try joinAll(greenlets)
        }
        #expect(log.first == "dropped")
        #expect(Set(log[1...4]) == ["released 0", "released 1", "released 2", "main's released"])
        #expect(log[5...] == ["freed"])
    }

    @Test("Neither the local nor the greenlet retains the other")
    func noReferences() throws {
        let log = try logged { log, _ in
            weak var weakGreenlet: AnyGreenlet?
            weak var weakLocal: GreenletLocal<Int>?
            let keptLocal = GreenletLocal { 1 }
            do {
                let local = GreenletLocal { 1 }
                weakLocal = local
                let greenlet = spawn { _ = local.value + keptLocal.value }
                weakGreenlet = greenlet
                try greenlet.join()
                _ = local.value
            }
            log.note("\(weakGreenlet == nil) \(weakLocal == nil) \(keptLocal.value)")
        }
        #expect(log == ["true true 1"])
    }

    @Test("Many short-lived locals leave nothing in a long-lived greenlet")
    func shortLivedLocals() throws {
        let log = try logged { log, hub in
            func use(_ count: Int) {
                for number in 0..<count {
                    let local = GreenletLocal { number }
                    precondition(local.value == number)
                }
            }
            use(100)
            use(10_000)
            log.note("\(hub.locals.cellLists.isEmpty)")
            let table = gevent_hub_main(hub.pointer).pointee.locals!
            log.note("\(table.pointee.count) \(table.pointee.mask)")
        }
        #expect(log == ["true", "0 1"])
    }

    private final class Holder: Sendable {
        let local = Mutex<GreenletLocal<Witness?>?>(GreenletLocal { nil })
    }

    @Test("Values of a local released on one thread are released on other threads when their hubs next run")
    func acrossThreads() throws {
        let log = try logged { log, hub in
            let (released, used, dropped, seen) = (Counter(), Counter(), Counter(), Counter())
            let holder = Holder()
            holder.local.withLock { $0 }?.value = Witness { released.add() }
            let thread = TestThread {
                do {
                    _ = try Hub.start(on: VirtualLoop())
                    holder.local.withLock { $0 }?.value = Witness { released.add() }
                    used.add()
                    while dropped.count == 0 { sched_yield() }
                    // Main's value is released, and this thread's hub has not run yet.
                    seen.add(released.count)
                    try sleep(for: .seconds(1))
                    seen.add(released.count * 10)
                } catch { Issue.record(error) }
            }
            while used.count == 0 { sched_yield() }
            let last = holder.local.withLock { local in
                defer { local = nil }
                return local
            }
            _ = consume last
            dropped.add()
            thread.join()
            log.note("\(seen.count)")
        }
        #expect(log == ["21"])
    }

    @Test("Destroying a hub releases every value, including those of main and callbacks")
    func freedWithTheHub() throws {
        let released = Counter()
        let local = GreenletLocal<Witness?>(inheriting: true) { nil }
        for _ in 0..<3 {
            try onFreshThread {
                let hub = try Hub.start(on: VirtualLoop())
                local.value = Witness { released.add() }
                hub.runCallback { local.value = Witness { released.add() } }
                let parked = spawn { try Greenlet {}.join() }
                // Never started: it has inherited main's value.
                let never = Greenlet {}
                try sleep()
                hub.destroy()
                withExtendedLifetime((parked, never)) {}
            }
        }
        #expect(released.count == 6)
    }

    @Test("A change in place may last across a wait, and affects only the greenlet that makes it")
    func changedOverAWait() throws {
        let log = try logged { log, _ in
            func grow(_ array: inout [String]) throws {
                array.append("before")
                try sleep()
                array.append("after")
            }
            let local = GreenletLocal<[String]> { [] }
            let other = spawn {
                local.value.append("other")
                log.note("\(local.value)")
            }
            try grow(&local.value)
            log.note("\(local.value) \(other.isDead)")
        }
        #expect(log == ["[\"other\"]", "[\"before\", \"after\"] true"])
    }

    @Test("Access to a local during its change in place by the same greenlet traps")
    func conflict() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let local = GreenletLocal { [1] }
                local.value.withUnsafeMutableBufferPointer { $0[0] = local.value.count }
            }
        }
        #expect(
            text(result.standardErrorContent).contains("a greenlet local was used while its value was being changed"))
    }

    @Test("Greenlets that values start during the hub's destruction end without running")
    func startedWhileDestroyed() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            let local = GreenletLocal<Witness?> { nil }
            local.value = Witness {
                let greenlet = spawn { log.note("ran") }
                log.note("released")
                greenlet.rawLink { log.note("notified of \($0.isSuccessful)") }
            }
            hub.destroy()
            return log.entries
        }
        #expect(log == ["released", "notified of true"])
    }

    @Test("A value's deinit may use locals: the same one, others, and ones being released with it")
    func reentrant() throws {
        let log = try logged { log, hub in
            let other = GreenletLocal { "other" }
            let local = GreenletLocal<Witness?> { nil }
            try spawn {
                _ = other.value
                local.value = Witness { log.note("\(other.value) \(local.value == nil) \(AnyGreenlet.current)") }
            }.join()
            local.value = Witness { log.note("replaced \(local.value == nil)") }
            local.value = nil
            let owned = GreenletLocal<GreenletLocal<Witness?>?> { nil }
            try spawn {
                let inner = GreenletLocal<Witness?> { nil }
                inner.value = Witness { log.note("inner released") }
                owned.value = inner
            }.join()
            log.note("end")
        }
        // The greenlet has ended, so the access comes from the hub.
        #expect(log == ["other true <HubGreenlet>", "replaced true", "inner released", "end"])
    }

    @Test("A default closure may use other locals, and may assign the local it makes a value for")
    func recursiveDefault() throws {
        let log = try logged { log, _ in
            let holder = IntHolder()
            let other = GreenletLocal { 5 }
            let local = GreenletLocal {
                other.value += 1
                holder.local.withLock { $0 }?.value = 70
                return other.value
            }
            holder.local.withLock { $0 = local }
            log.note("\(local.value) \(other.value)")
            holder.local.withLock { $0 = nil }
        }
        #expect(log == ["6 6"])
    }

    private final class IntHolder: Sendable {
        let local = Mutex<GreenletLocal<Int>?>(nil)
    }

    @Test("A greenlet may have any number of locals", arguments: [2, 3, 1000])
    func many(count: Int) throws {
        let log = try logged { log, _ in
            var locals = (0..<count).map { number in GreenletLocal { number } }
            try spawn {
                for local in locals { _ = local.value }
                for (number, local) in locals.enumerated() where local.value != number { log.note("wrong \(number)") }
                for (number, local) in locals.enumerated() where number % 3 == 0 { local.remove() }
                for (number, local) in locals.enumerated() where local.hasValue != (number % 3 != 0) {
                    log.note("wrong after removal \(number)")
                }
                locals.removeLast(count / 2)
                for (number, local) in locals.enumerated() where local.value != number { log.note("wrong \(number)") }
            }.join()
        }
        #expect(log == [])
    }

    // MARK: Inheriting

    @Test("An inheriting local starts with the spawner's value at creation; the greenlet changes its own copy")
    func inheriting() throws {
        let log = try logged { log, hub in
            let local = GreenletLocal("trace", inheriting: true) { ["root"] }
            let plain = GreenletLocal { "default" }
            plain.value = "main"
            local.value.append("main")
            let child = spawn {
                log.note("\(local.value) \(plain.value)")
                local.value.append("child")
                let grandchild = spawn {
                    log.note("\(local.value)")
                    local.value = []
                }
                local.value.append("later")
                try grandchild.join()
                log.note("\(local.value)")
            }
            local.value.append("after")
            try child.join()
            spawnRaw { log.note("raw \(local.value)") }
            try sleep()
            local.remove()
            try spawn { log.note("\(local.value)") }.join()
            log.note("\(local.hasValue) \(hub.pointer.pointee.spawn_flags & UInt32(GEVENT_SPAWN_INHERITS))")
        }
        #expect(
            log == [
                "[\"root\", \"main\"] default", "[\"root\", \"main\", \"child\"]",
                "[\"root\", \"main\", \"child\", \"later\"]", "raw [\"root\", \"main\", \"after\"]", "[\"root\"]",
                "false 0",
            ])
    }

    @Test("An inherited value is released if the greenlet never runs: killed, or never started")
    func inheritedUnused() throws {
        let log = try logged { log, _ in
            let local = GreenletLocal<Witness?>(inheriting: true) { nil }
            weak var witness: Witness?
            do {
                let made = Witness()
                witness = made
                local.value = made
            }
            var never: Greenlet<Void>? = Greenlet {}
            let killed = spawn {}
            let raw = spawnRaw {}
            let later = spawn(after: .seconds(10)) {}
            local.value = nil
            log.note("\(witness != nil)")
            never = nil
            try killAll([killed, raw, later] as [AnyGreenlet])
            log.note("\(never == nil) \(witness == nil)")
            withExtendedLifetime((killed, raw, later)) {}
        }
        #expect(log == ["true", "true true"])
    }
}

@Suite("Tables of locals")
struct LocalTableTests {
    @Test("A table holds what was added, whatever the order of additions and removals")
    func againstModel() throws {
        try withHub { hub in
            let table = gevent_locals_make(hub.pointer)!
            defer { gevent_locals_free(hub.pointer, table) }
            var model: [UInt64: Int] = [:]
            var random = SeededNumbers(seed: 11)
            for step in 1...50_000 {
                // Clustered keys, and keys with equal low bits.
                let key = UInt64.random(in: 1...24, using: &random) + 64 * UInt64.random(in: 0...3, using: &random)
                if let value = model[key] {
                    #expect(gevent_locals_find(table, key) == UnsafeMutableRawPointer(bitPattern: value))
                    if Bool.random(using: &random) {
                        #expect(gevent_locals_remove(table, key) == UnsafeMutableRawPointer(bitPattern: value))
                        model[key] = nil
                    }
                } else {
                    #expect(gevent_locals_find(table, key) == nil)
                    #expect(gevent_locals_remove(table, key) == nil)
                    gevent_locals_add(table, key, UnsafeMutableRawPointer(bitPattern: step))
                    model[key] = step
                }
                if step % 1000 == 0 {
                    var place: UInt32 = 0
                    var cells: Set<Int> = []
                    while let cell = gevent_locals_next(table, &place) { cells.insert(Int(bitPattern: cell)) }
                    #expect(cells == Set(model.values))
                }
            }
            while gevent_locals_remove_any(table) != nil {}
            #expect(table.pointee.count == 0)
        }
    }
}
