import Gevent
import GeventTesting
import Testing

@Suite("joinAll and killAll")
struct JoinAllKillAllTests {
    /// Spawns a greenlet that ends after that many virtual seconds and returns its name.
    static func named(_ name: String, _ seconds: Int) -> Greenlet<String> {
        spawn {
            try sleep(for: .seconds(seconds))
            return name
        }
    }

    // MARK: joinAll

    @Test("joinAll returns the greenlets in the order in which they ended")
    func completionOrder() throws {
        let names = try withHub { _ in
            let greenlets = [Self.named("c", 3), Self.named("a", 1), Self.named("b", 2)]
            return try joinAll(greenlets).compactMap(\.value)
        }
        #expect(names == ["a", "b", "c"])
    }

    @Test("joinAll returns already ended greenlets first, in the order in which they ended")
    func endedBefore() throws {
        let names = try withHub { _ in
            let greenlets = [Self.named("c", 3), Self.named("b", 2), Self.named("a", 1), Self.named("d", 4)]
            try sleep(for: .milliseconds(3500))
            return try joinAll(greenlets).compactMap(\.value)
        }
        #expect(names == ["a", "b", "c", "d"])
    }

    @Test("joinAll returns the partial list on timeout, without an error", arguments: bothLoops)
    func joinAllTimeout(loop: TestLoop) throws {
        let names = try withHub(on: loop) { _ in
            let slow = spawn { () throws -> String in
                try sleep(for: .milliseconds(20))
                return "slow"
            }
            let quick = spawn { "quick" }
            let partial = try joinAll([slow, quick], timeout: .milliseconds(2)).compactMap(\.value)
            #expect(slow.isActive)
            return partial + (try joinAll([slow]).compactMap(\.value))
        }
        #expect(names == ["quick", "slow"])
    }

    @Test("A zero timeout returns the ended greenlets, without a switch")
    func joinAllZero() throws {
        try withHub { hub in
            let over = spawn { 1 }
            try over.join()
            let live = spawn { 2 }
            let before = hub.statistics.switchCount
            try #expect(joinAll([live, over], timeout: .zero).compactMap(\.value) == [1])
            #expect(hub.statistics.switchCount == before)
            try live.join()
        }
    }

    @Test(
        "joinAll(throwingErrors: true) throws the earliest failure at once; the others keep running",
        arguments: bothLoops)
    func firstFailureInTime(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            hub.errorHandler = { _, _ in }
            // The others end only after joinAll returns: each starts its delay when the gate opens.
            let gate = Event()
            func failing(_ name: String, _ milliseconds: Int) -> Greenlet<String> {
                spawn {
                    if name != "first" { try gate.wait() }
                    try sleep(for: .milliseconds(milliseconds))
                    throw Boom(name)
                }
            }
            let value = spawn {
                try gate.wait()
                return "value"
            }
            let greenlets = [failing("late", 3), failing("first", 1), value, failing("second", 2)]
            let before = hub.now
            log.outcome("joinAll") { try joinAll(greenlets, throwingErrors: true).count }
            #expect(before.duration(to: hub.now) >= .milliseconds(1))
            log.note("active \(greenlets.filter(\.isActive).count)")
            gate.set()
            log.note("\(try joinAll(greenlets).count)")
            log.outcome("afterwards") { try joinAll(greenlets, throwingErrors: true).count }
        }
        #expect(log == ["joinAll: threw first", "active 3", "4", "afterwards: threw first"])
    }

    @Test("joinAll orders by the time of the end, even if an earlier link delays a notification")
    func endedBeforeNotification() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in }
            let first = spawn {
                try sleep()
                throw Boom("first")
            }
            let second = spawn {
                try sleep()
                throw Boom("second")
            }
            first.name = "first"
            second.name = "second"
            // From this closure on, a callback notifies the links of `first`.
            first.link { _ in }
            for count in 1...2 {
                spawn { log.note("\(try joinAll([second, first], count: count).map(\.name))") }
            }
            spawn { log.outcome("throwing") { try joinAll([second, first], throwingErrors: true) } }
            _ = try hub.join()
        }
        #expect(log == [#"["first"]"#, "throwing: threw first", #"["first", "second"]"#])
    }

    @Test("A joinAll that times out counts members that end before it resumes, and killAll does not throw then")
    func endedAsTimeIsUp() throws {
        let log = try logged { log, _ in
            let victim = spawn {
                // The first of three that wait for the same moment, so it has ended when the others resume.
                Timeout(.seconds(1), throwing: GreenletExit()).start()
                do { try sleep(for: .seconds(1000)) } catch { try sleep(for: .seconds(1000)) }
            }
            victim.link { _ in }
            try sleep()
            let waiter = spawn { log.note("\(try joinAll([victim], timeout: .seconds(1)).count)") }
            log.outcome("killAll") { try killAll([victim], timeout: .seconds(1)) }
            try waiter.join()
        }
        #expect(log == ["killAll: returned", "1"])
    }

    @Test("joinAll does not count exits as failures")
    func exitsAreNoFailures() throws {
        let count = try withHub { _ in
            let killed = spawn { try sleep(for: .seconds(1)) }
            let exiting = spawn { throw GreenletExit() }
            try sleep()
            try killed.kill()
            return try joinAll([killed, exiting], throwingErrors: true).count
        }
        #expect(count == 2)
    }

    @Test("joinAll with a count waits for that many")
    func count() throws {
        let log = try logged { log, hub in
            let greenlets = [Self.named("c", 3), Self.named("a", 1), Self.named("b", 2)]
            for count in [2, 0, -1, 99] {
                let ended = try joinAll(greenlets, count: count)
                let now = hub.now.nanoseconds / 1_000_000_000
                log.note("\(count): \(ended.compactMap(\.value).joined()) at \(now)")
            }
        }
        #expect(log == ["2: ab at 2", "0:  at 2", "-1:  at 2", "99: abc at 3"])
    }

    @Test("Duplicates are counted and returned each time; an empty collection returns at once")
    func duplicates() throws {
        try withHub { _ in
            let greenlet = Self.named("a", 1)
            let other = Self.named("b", 2)
            try #expect(joinAll([greenlet, other, greenlet]).compactMap(\.value) == ["a", "a", "b"])
            try #expect(joinAll([greenlet, greenlet]).count == 2)
            try #expect(joinAll([Greenlet<Int>]()).isEmpty)
        }
    }

    @Test("joinAll takes sets, sequences and greenlets of different types")
    func collections() throws {
        try withHub { _ in
            let set: Set = [spawn { 1 }, spawn { 2 }, spawn { 3 }]
            try #expect(joinAll(set).compactMap(\.value) == [1, 2, 3])
            let mixed: [JoinableGreenlet] = [spawn { 1 }, spawn { "one" }, Self.named("slow", 1)]
            try #expect(joinAll(mixed).count == 3)
            let list = (0..<3).map { number in spawn { number } }
            try #expect(joinAll(list.lazy.filter { $0.isActive }).count == 3)
        }
    }

    @Test("An interrupted joinAll leaves no link behind")
    func interruptedJoinAll() throws {
        let log = try logged { log, hub in
            let greenlets = (1...3).map { Self.named("\($0)", $0 * 10) }
            log.outcome("joinAll") { try withTimeout(.seconds(15)) { _ in try joinAll(greenlets).count } }
            try sleep(for: .seconds(100))
            log.note("\(hub.now.nanoseconds / 1_000_000_000)")
            log.note("\(try joinAll(greenlets).count)")
        }
        #expect(log == ["joinAll: threw 15 seconds", "115", "3"])
    }

    // MARK: killAll

    @Test("killAll ends the parked and the unstarted, and waits for their cleanup")
    func killAllWaits() throws {
        let log = try logged { log, hub in
            func victim(_ name: String) -> Greenlet<Void> {
                spawn {
                    defer { log.note("\(name) ends at \(hub.now.nanoseconds / 1_000_000_000)") }
                    do { try sleep(for: .seconds(1000)) } catch {
                        try sleep(for: .seconds(1))
                        throw error
                    }
                }
            }
            let parked = [victim("a"), victim("b")]
            try sleep()
            let unstarted = victim("never")
            try killAll(parked + [unstarted])
            log.note("\((parked + [unstarted]).allSatisfy(\.isDead))")
        }
        #expect(log == ["a ends at 1", "b ends at 1", "true"])
    }

    @Test("killAll ends every unstarted member first, without a switch, then throws into the others in order")
    func killAllOrder() throws {
        let log = try logged { log, hub in
            let parked = (0..<3).map { number in
                spawn {
                    defer { log.note("parked \(number)") }
                    try sleep(for: .seconds(1))
                }
            }
            try sleep()
            let unstarted = spawn { log.note("never") }
            unstarted.rawLink { _ in log.note("unstarted") }
            let delayed = spawn(after: .seconds(1)) { log.note("never") }
            let before = hub.statistics.switchCount
            try killAll([parked[2], unstarted, parked[0], delayed, parked[1]], blocking: false)
            #expect(hub.statistics.switchCount == before)
            log.note("\(unstarted.isDead) \(delayed.isDead) \(parked[0].isDead)")
            try joinAll(parked)
        }
        #expect(log == ["true true false", "unstarted", "parked 2", "parked 0", "parked 1"])
    }

    @Test("killAll(timeout:) throws Timeout if and only if a member survives", arguments: bothLoops)
    func killAllTimeout(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let stubborn = spawn {
                try? sleep(for: .seconds(1000))
                try sleep(for: .milliseconds(20))
            }
            let meek = spawn { try sleep(for: .seconds(1000)) }
            try sleep()
            log.outcome("killAll") { try killAll([stubborn, meek], timeout: .milliseconds(1)) }
            log.note("\(stubborn.isActive) \(meek.isActive)")
            try stubborn.join()
            log.outcome("killAll") { try killAll([stubborn, meek, Greenlet {}, spawn {}], timeout: .milliseconds(1)) }
        }
        #expect(log == ["killAll: threw 0.001 seconds", "true false", "killAll: returned"])
    }

    @Test("killAll accepts sets, duplicates, raw greenlets and an empty collection")
    func killAllCollections() throws {
        let log = try logged { log, _ in
            try killAll([Greenlet<Void>]())
            let raw = spawnRaw {
                defer { log.note("raw") }
                try sleep(for: .seconds(1))
            }
            let greenlet = spawn {
                defer { log.note("greenlet") }
                try sleep(for: .seconds(1))
            }
            let unstartedRaw = spawnRaw { log.note("never") }
            try sleep(for: .zero)
            let late = spawnRaw { log.note("never") }
            try killAll([raw, greenlet, raw, late, greenlet] as [AnyGreenlet])
            log.note("\(raw.isDead && greenlet.isDead && late.isDead && unstartedRaw.isDead)")
            let others = (0..<3).map { _ in spawn { try sleep(for: .seconds(1)) } }
            try sleep()
            let set = Set(others + others)
            try killAll(set)
            log.note("\(set.count) \(others.allSatisfy(\.isDead))")
            try killAll(Set<Greenlet<Void>>())
        }
        #expect(log == ["never", "raw", "greenlet", "true", "3 true"])
    }

    @Test("killAll throws the given error into each member once")
    func killAllError() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in }
            let greenlets = (0..<3).map { _ in spawn { try sleep(for: .seconds(1)) } }
            try sleep()
            try killAll(greenlets + greenlets, throwing: Boom())
            log.note(greenlets.map { "\($0.error ?? Boom("none"))" }.joined(separator: " "))
        }
        #expect(log == ["Boom Boom Boom"])
    }

    @Test("A member that calls killAll kills the others and is interrupted immediately")
    func killAllFromMember() throws {
        let log = try logged { log, _ in
            var group: [Greenlet<Void>] = []
            group = (0..<3).map { number in
                spawn {
                    defer { log.note("\(number) ends") }
                    if number == 1 {
                        try sleep()
                        try killAll(group)
                        log.note("not reached")
                    }
                    try sleep(for: .seconds(1))
                }
            }
            try joinAll(group)
            log.note("\(group.allSatisfy { $0.exit != nil })")
            group = []
        }
        #expect(log == ["1 ends", "0 ends", "2 ends", "true"])
    }

    @Test("Main as a member is interrupted immediately, whatever the others do")
    func killAllWithMain() throws {
        let log = try logged { log, _ in
            let main = AnyGreenlet.current
            log.outcome("alone") { try killAll([main]) }
            let parked = spawn { try sleep(for: .seconds(1)) }
            try sleep()
            log.outcome("with another") { try killAll([main, parked]) }
            log.outcome("not blocking") { try killAll([main], blocking: false) }
            log.outcome("park") { try sleep() }
            try parked.join()
            log.outcome("afterwards") { try sleep() }
        }
        #expect(
            log == [
                "alone: threw GreenletExit", "with another: threw GreenletExit", "not blocking: returned",
                "park: threw GreenletExit", "afterwards: returned",
            ])
    }

    @Test("An interrupted killAll leaves no link behind")
    func interruptedKillAll() throws {
        let log = try logged { log, hub in
            let stubborn = spawn {
                try? sleep(for: .seconds(1000))
                try sleep(for: .seconds(5))
            }
            try sleep()
            log.outcome("killAll") { try withTimeout(.seconds(1)) { _ in try killAll([stubborn]) } }
            try sleep(for: .seconds(100))
            log.note("\(hub.now.nanoseconds / 1_000_000_000)")
        }
        #expect(log == ["killAll: threw 1 second", "101"])
    }
}
