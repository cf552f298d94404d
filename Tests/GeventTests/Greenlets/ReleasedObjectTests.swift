import CGeventSystem
import Gevent
import GeventTesting
import Glibc
import Testing

// Tests releases by the library of the last reference to an object whose deinit calls back into the library.

/// Holds a value that is not Sendable. Confined to the thread of one hub.
private final class Slot<Value> {
    var value: Value?
}

/// A failure that retains an object. Invariant: it stays on the thread of one hub.
private final class HoldingError: Error, @unchecked Sendable {
    private let witness: Witness
    init(_ witness: Witness) { self.witness = witness }
}

@Suite("Releases at the end of a greenlet")
struct ReleasedByGreenletsTests {
    @Test("The deinit of a local's value sees its greenlet's final outcome")
    func localFindsOutcome() throws {
        let log = try logged { log, _ in
            let local = GreenletLocal<Witness?> { nil }
            let slot = Slot<Greenlet<Int>>()
            slot.value = spawn { () throws -> Int in
                local.value = Witness {
                    guard let greenlet = slot.value else { return }
                    log.note("ready \(greenlet.isReady), successful \(greenlet.isSuccessful)")
                    log.outcome("get") { try greenlet.get(blocking: false) }
                }
                throw Boom()
            }
            try slot.value?.join()
        }
        #expect(log.dropFirst() == ["ready true, successful false", "get: threw Boom"])
    }

    @Test("So does the deinit of an error thrown too late to be raised")
    func pendingErrorFindsOutcome() throws {
        let log = try logged { log, _ in
            let slot = Slot<Greenlet<Int>>()
            slot.value = spawn { () throws -> Int in
                try kill(
                    AnyGreenlet.current,
                    throwing: HoldingError(
                        Witness {
                            log.outcome("get") { try slot.value?.get(blocking: false) }
                            // The stack has no owner by now.
                            log.note("\(hubErrorCode { try sleep() } == .blockedInHub)")
                        }))
                throw Boom()
            }
            try slot.value?.join()
        }
        #expect(log.dropFirst() == ["get: threw Boom", "true"])
    }

    @Test("The deinit of captures of a body that never ran sees the outcome too")
    func bodyFindsOutcome() throws {
        let log = try logged { log, _ in
            let slot = Slot<Greenlet<Int>>()
            do {
                let witness = Witness { log.outcome("get") { try slot.value?.get(blocking: false) } }
                slot.value = spawn {
                    withExtendedLifetime(witness) {}
                    return 1
                }
            }
            try slot.value?.kill()
            log.note("killed")
        }
        #expect(log == ["get: threw GreenletExit", "killed"])
    }

    @Test("While a deinit of captures parks, the greenlet has ended for all others, and its links are notified")
    func bodyParks() throws {
        let log = try logged { log, _ in
            let slot = Slot<Greenlet<Int>>()
            do {
                let witness = Witness {
                    try? sleep(for: .milliseconds(20))
                    log.note("released")
                }
                slot.value = Greenlet {
                    withExtendedLifetime(witness) {}
                    return 1
                }
            }
            let greenlet = try #require(slot.value)
            greenlet.rawLink { (_: Greenlet<Int>) in log.note("notified") }
            spawn { try greenlet.kill() }
            try sleep(for: .milliseconds(5))
            log.note("exit \(greenlet.exit.map { "\($0)" } ?? "none")")
            log.outcome("get") { try greenlet.get() }
            try sleep(for: .milliseconds(30))
        }
        #expect(log == ["notified", "exit GreenletExit", "get: threw GreenletExit", "released"])
    }

    @Test("A raw greenlet that never ran has ended for all others while a deinit of its captures parks")
    func rawBodyParks() throws {
        let log = try logged { log, _ in
            let slot = Slot<RawGreenlet>()
            do {
                let witness = Witness {
                    try? sleep(for: .milliseconds(20))
                    log.note("released")
                }
                slot.value = RawGreenlet { withExtendedLifetime(witness) {} }
            }
            let raw = try #require(slot.value)
            spawn {
                try killAll([raw])
                log.note("killed")
            }
            spawn {
                try killAll([raw], timeout: .milliseconds(5))
                log.note("\(raw.isDead)")
            }
            try sleep(for: .milliseconds(30))
        }
        #expect(log == ["true", "released", "killed"])
    }

    @Test("A link added by a deinit is notified once, after the existing links")
    func linksAddedMeanwhile() throws {
        let log = try logged { log, _ in
            let local = GreenletLocal<Witness?> { nil }
            let slot = Slot<Greenlet<Void>>()
            let greenlet = spawn {
                local.value = Witness { slot.value?.link { _ in log.note("second") } }
            }
            slot.value = greenlet
            greenlet.link { _ in log.note("first") }
            try greenlet.join()
            try sleep()
            try sleep()
            slot.value = nil
        }
        #expect(log == ["first", "second"])
    }

    @Test("A member linked by the deinit of its local still fails its scope")
    func failureOfMember() throws {
        let log = try logged { log, _ in
            let local = GreenletLocal<Witness?> { nil }
            log.outcome("scope") {
                try withGroup { group in
                    let slot = Slot<Greenlet<Void>>()
                    slot.value = group.spawn {
                        local.value = Witness {
                            slot.value?.link { _ in }
                            slot.value = nil
                        }
                        throw Boom()
                    }
                }
            }
        }
        #expect(log == ["scope: threw Boom"])
    }

    @Test("After the end of its hub a tree is shown without the places recorded by the hub")
    func treeAfterDestroy() throws {
        let texts = try withHub(allowingLeftovers: true) { hub in
            let event = Event()
            let greenlets = (0..<3).map { _ in spawn { try event.wait() } }
            try sleep()
            let tree = GreenletTree.current()
            let before = "\(tree)"
            hub.destroy()
            let after = "\(tree)"
            withExtendedLifetime(greenlets) {}
            return [before, after]
        }
        #expect(texts[0].contains("spawned at"))
        #expect(!texts[1].contains("spawned at"))
        #expect(texts[1].contains("<Greenlet"))
    }
}

@Suite("Releases on replacement or removal")
struct ReplacedObjectsTests {
    private static let key = SpawnTreeKey<Witness>("value")

    @Test("A greenlet spawned by the deinit of a tree's old store belongs to the new tree")
    func newTree() throws {
        let log = try logged { log, _ in
            try spawn {
                let current = AnyGreenlet.current
                let slot = Slot<Greenlet<Void>>()
                current.spawnTreeLocals = SpawnTreeLocals()
                current.spawnTreeLocals![Self.key] = Witness { slot.value = spawn {} }
                let store = SpawnTreeLocals()
                current.spawnTreeLocals = store
                // All released records are in use again.
                let timeouts = (0..<20).map { _ in Timeout(.seconds(100)) }
                for timeout in timeouts { timeout.start() }
                defer { for timeout in timeouts { timeout.cancel() } }
                let child = try #require(slot.value)
                log.note("spawner \(child.spawningGreenlet === current), store \(child.spawnTreeLocals === store)")
                try child.join()
            }.get()
        }
        #expect(log == ["spawner true, store true"])
    }

    @Test("A value removed from a tree's store may read the store in its deinit")
    func storedValue() throws {
        let log = try logged { log, _ in
            let store = SpawnTreeLocals()
            store[Self.key] = Witness { log.note("empty \(store.isEmpty)") }
            store[Self.key] = Witness { log.note("empty \(store.isEmpty)") }
            store[Self.key] = nil
        }
        #expect(log == ["empty false", "empty true"])
    }

    @Test("A callback linked to an event may be unlinked by the deinit of its captures")
    func waitLink() throws {
        let log = try logged { log, _ in
            let event = Event()
            let slot = Slot<Registration>()
            do {
                let witness = Witness {
                    guard let link = slot.value else { return }
                    link.cancel()
                    log.note("active \(link.isActive), links \(event.linkCount)")
                }
                slot.value = event.rawLink { withExtendedLifetime(witness) {} }
            }
            try #require(slot.value).cancel()
        }
        #expect(log == ["active false, links 0"])
    }

    @Test("A link to a greenlet may be unlinked by the deinit of its captures, whether removed or skipped")
    func greenletLink() throws {
        let log = try logged { log, _ in
            for removes in [true, false] {
                let greenlet = spawn {}
                let slot = Slot<Registration>()
                do {
                    let witness = Witness {
                        guard let link = slot.value else { return }
                        link.cancel()
                        log.note("links \(greenlet.hasLinks)")
                    }
                    slot.value = greenlet.linkError { _ in withExtendedLifetime(witness) {} }
                }
                if removes { try #require(slot.value).cancel() }
                try greenlet.join()
                try sleep()
                try sleep()
            }
        }
        #expect(log == ["links false", "links false"])
    }

    @Test("A spawn callback may be removed by the deinit of its captures")
    func spawnCallback() throws {
        let log = try logged { log, _ in
            let slot = Slot<Registration>()
            do {
                let witness = Witness {
                    slot.value?.cancel()
                    log.note("released")
                }
                slot.value = AnyGreenlet.addSpawnCallback { _ in withExtendedLifetime(witness) {} }
            }
            try #require(slot.value).cancel()
        }
        #expect(log == ["released"])
    }

    @Test("A hub callback may be read by the deinit of its captures")
    func hubCallback() throws {
        let log = try logged { log, hub in
            let slot = Slot<Registration>()
            do {
                let witness = Witness { log.note("pending \(slot.value?.isActive == true)") }
                slot.value = hub.runCallback { withExtendedLifetime(witness) {} }
            }
            slot.value?.cancel()
        }
        #expect(log == ["pending false"])
    }
}

@Suite("Many errors thrown into one greenlet")
struct ManyPendingErrorsTests {
    /// Throws `count` errors into the current greenlet and catches them all. Returns the CPU time used and whether they
    /// arrived in order.
    private static func takeErrors(_ count: Int) throws -> (nanoseconds: Int, inOrder: Bool) {
        let start = cpuTime()
        for index in 0..<count { try kill(AnyGreenlet.current, throwing: Numbered(number: index)) }
        var inOrder = true
        for index in 0..<count {
            do {
                try sleep()
                inOrder = false
            } catch let error as Numbered {
                inOrder = inOrder && error.number == index
            }
        }
        // No pending error remains.
        try sleep()
        return (cpuTime() - start, inOrder)
    }

    private struct Numbered: Error { let number: Int }

    private static func cpuTime() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }

    @Test("They are raised in order, and their cost is linear in their number")
    func linear() throws {
        let (few, many, inOrder) = try withHub { _ in
            _ = try Self.takeErrors(100)
            let few = try Self.takeErrors(3_000)
            let many = try Self.takeErrors(30_000)
            return (few.nanoseconds, many.nanoseconds, few.inOrder && many.inOrder)
        }
        #expect(inOrder)
        #expect(many < few * 40)
    }

    @Test("Errors added while others are raised keep their order")
    func mixed() throws {
        let log = try withHub { _ in
            var taken: [Int] = []
            var thrown = 0
            for round in 0..<60 {
                for _ in 0..<(round < 30 ? 3 : 0) {
                    try kill(AnyGreenlet.current, throwing: Numbered(number: thrown))
                    thrown += 1
                }
                for _ in 0..<(round < 30 ? 1 : 2) {
                    do { try sleep() } catch let error as Numbered { taken.append(error.number) }
                }
            }
            try sleep()
            return taken
        }
        #expect(log == Array(0..<90))
    }

    @Test(
        "A second kill is ignored; a sticky kill replaces the first, and no error follows it"
    )
    func kills() throws {
        let log = try logged { log, _ in
            let greenlet = spawn {
                let current = AnyGreenlet.current
                try kill(current, throwing: Boom("first"))
                try kill(current, throwing: OwnExit())
                try kill(current)
                try kill(current, throwing: Boom("second"))
                log.outcome("1") { try sleep() }
                log.outcome("2") { try sleep() }
                try kill(current)
                try kill(current, throwing: Boom("third"))
                try kill(current, sticky: true)
                try kill(current, throwing: Boom("never"))
                for number in 3..<7 { log.outcome("\(number)") { try sleep() } }
            }
            try greenlet.join()
        }
        #expect(
            log == [
                "1: threw first", "2: threw OwnExit", "3: threw second", "4: threw third", "5: threw GreenletExit",
                "6: threw GreenletExit",
            ])
    }

    @Test("A timeout withdraws its own error from among others")
    func retracted() throws {
        let log = try logged { log, _ in
            let timeouts = (0..<3).map { _ in Timeout(.milliseconds(1)) }
            let greenlet = spawn {
                for timeout in timeouts { timeout.start() }
                do { try sleep(for: .milliseconds(5)) } catch { log.note("\(error as? Timeout === timeouts[0])") }
                try kill(AnyGreenlet.current, throwing: Boom())
                timeouts[1].cancel()
                log.note("\((try? sleep()) == nil)")
                log.outcome("then") { try sleep() }
                timeouts[2].cancel()
                log.outcome("last") { try sleep() }
            }
            try greenlet.join()
        }
        #expect(log == ["true", "true", "then: threw Boom", "last: returned"])
    }
}
