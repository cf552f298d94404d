import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Spawning and scheduling")
struct SchedulingTests {
    @Test("spawn returns before the new greenlet runs; it runs when the spawner next parks")
    func spawnReturnsFirst() throws {
        let log = try logged { log, _ in
            spawn { log.note("child") }
            log.note("spawned")
            try sleep()
            log.note("back")
        }
        #expect(log == ["spawned", "child", "back"])
    }

    @Test("Spawns, starts and hub callbacks run in the order in which they were made")
    func oneOrder() throws {
        let log = try logged { log, hub in
            spawn { log.note("spawn") }
            hub.runCallback { log.note("callback") }
            let made = Greenlet { log.note("start") }
            spawnRaw { log.note("raw") }
            made.start()
            hub.runCallback { log.note("callback 2") }
            Greenlet.spawn { log.note("Greenlet.spawn") }
            try sleep()
        }
        #expect(log == ["spawn", "callback", "raw", "start", "callback 2", "Greenlet.spawn"])
    }

    @Test("Two greenlets that append, sleep() and append interleave as 1A 2A 1B 2B", arguments: bothLoops)
    func interleaving(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let greenlets = ["1", "2"].map { name in
                spawn {
                    log.note("\(name)A")
                    try sleep()
                    log.note("\(name)B")
                }
            }
            try joinAll(greenlets)
        }
        #expect(log == ["1A", "2A", "1B", "2B"])
    }

    @Test("Three-way sleep() loops are strictly round-robin", arguments: bothLoops)
    func roundRobin(loop: TestLoop) throws {
        // More rounds than the hub grants handovers at a time, so that the hub runs in between.
        let rounds = 2000
        let log = try logged(on: loop) { log, _ in
            let greenlets = ["A", "B", "C"].map { name in
                spawn {
                    for _ in 0..<rounds {
                        log.note(name)
                        try sleep()
                    }
                }
            }
            try joinAll(greenlets)
        }
        #expect(log == (0..<rounds).flatMap { _ in ["A", "B", "C"] })
    }

    @Test("Main and a greenlet that yield alternate")
    func mainAlternates() throws {
        let log = try logged { log, _ in
            let other = spawn {
                for _ in 0..<3 {
                    log.note("other")
                    try sleep()
                }
            }
            for _ in 0..<3 {
                log.note("main")
                try sleep()
            }
            try other.join()
        }
        #expect(log == ["main", "other", "main", "other", "main", "other"])
    }

    @Test("A spawned greenlet still runs when its spawner ends immediately")
    func orphans() throws {
        let log = try logged { log, hub in
            spawn {
                spawn {
                    spawn { log.note("grandchild") }
                    log.note("child")
                }
                log.note("spawner")
            }
            _ = try hub.join()
        }
        #expect(log == ["spawner", "child", "grandchild"])
    }

    @Test("A hub callback that requeues itself forever delays neither timers nor descriptors", arguments: bothLoops)
    func callbackStorm(loop: TestLoop) throws {
        final class Storm {
            var isOver = false
            func blow(_ hub: Hub) {
                hub.runCallback { if !self.isOver { self.blow(hub) } }
            }
        }
        let log = try logged(on: loop) { log, hub in
            let storm = Storm()
            storm.blow(hub)
            let pipe = try Pipe()
            let reader = spawn {
                try waitRead(pipe.readEnd)
                log.note("readable")
            }
            try sleep()
            spawn(after: .milliseconds(1)) { pipe.write() }
            try reader.join()
            try sleep(for: .milliseconds(1))
            log.note("woke")
            storm.isOver = true
            try sleep()
        }
        #expect(log == ["readable", "woke"])
    }

    @Test("Greenlets that yield forever delay neither timers nor descriptors", arguments: bothLoops)
    func yieldStorm(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let spinners = (0..<3).map { _ in spawn { while true { try sleep() } } }
            let pipe = try Pipe()
            let reader = spawn {
                try waitRead(pipe.readEnd)
                log.note("readable")
            }
            spawn(after: .milliseconds(1)) { pipe.write() }
            try reader.join()
            try sleep(for: .milliseconds(1))
            log.note("woke")
            try killAll(spinners)
        }
        #expect(log == ["readable", "woke"])
    }

    @Test("The switch interval, 5 ms by default, bounds how late a timer is behind slow greenlets")
    func switchInterval() throws {
        try withHub { hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            func lateness() throws -> Duration {
                var goesOn = true
                let slow = (0..<3).map { _ in
                    spawn {
                        while goesOn {
                            loop.advance(by: .milliseconds(1))
                            try sleep()
                        }
                    }
                }
                let due = hub.now.advanced(by: .milliseconds(10))
                try sleep(for: .milliseconds(10))
                goesOn = false
                try joinAll(slow)
                return due.duration(to: hub.now)
            }
            #expect(hub.switchInterval == .milliseconds(5))
            // The interval, the greenlets between two clock checks, and those ahead of main in the ready queue.
            try #expect(lateness() < .milliseconds(5 + 4 + 3))
            hub.switchInterval = .milliseconds(200)
            try #expect((.milliseconds(100)..<(.milliseconds(400))).contains(lateness()))
        }
    }

    @Test("withSilentTimeout(10 ms) ends an infinite sleep() loop", arguments: bothLoops)
    func silentTimeoutEndsLoop(loop: TestLoop) throws {
        let isNil = try withHub(on: loop) { _ in
            try withSilentTimeout(.milliseconds(10)) { while true { try sleep() } } == nil
        }
        #expect(isNil)
    }

    @Test(
        "sleep(for:) with zero or a negative duration is a yield", arguments: [Duration.zero, .seconds(-5)], bothLoops)
    func negativeSleep(duration: Duration, loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            // Runs in order with greenlets that only yield: a wait for the loop would come later.
            spawn {
                log.note("other")
                try sleep()
                log.note("other again")
            }
            try sleep(for: duration)
            log.note("back")
            #expect(hub.statistics.pendingTimers == 0)
            if hub.loop is VirtualLoop { #expect(hub.now.nanoseconds == 0) }
            try sleep()
        }
        #expect(log == ["other", "back", "other again"])
    }

    @Test("sleep(for:) takes at least that long, counted from the call", arguments: bothLoops)
    func sleepLength(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            for duration in [Duration.nanoseconds(1), .microseconds(300), .milliseconds(3)] {
                let before = hub.now
                try sleep(for: duration)
                #expect(before.duration(to: hub.now) >= duration)
            }
        }
    }

    @Test("On virtual time a sleep takes exactly its length, and a day takes no time")
    func virtualSleep() throws {
        let now = try withHub { hub in
            try sleep(for: .seconds(86_400))
            try sleep(for: .nanoseconds(1))
            return hub.now
        }
        #expect(now.nanoseconds == 86_400_000_000_001)
    }

    @Test("A sleep counts from the call, also after a long computation")
    func sleepAfterComputation() throws {
        let log = try withHub(on: .custom { try VirtualLoop() }) { hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            try sleep(for: .seconds(1))
            loop.advance(by: .seconds(10))
            try sleep(for: .seconds(1))
            return hub.now.nanoseconds
        }
        #expect(log == 12_000_000_000)
    }

    @Test(
        "Sleepers wake in order of their deadlines, and equal deadlines in the order started", arguments: bothLoops)
    func deadlineOrder(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let start = hub.now
            // On a real clock two calls have two deadlines; the order is still that of the calls.
            let greenlets = [(3, "c1"), (1, "a1"), (2, "b1"), (3, "c2"), (1, "a2"), (1, "a3")].map { delay, name in
                spawn {
                    try sleep(for: .milliseconds(delay))
                    log.note(name)
                }
            }
            try joinAll(greenlets)
            #expect(start.duration(to: hub.now) >= .milliseconds(3))
        }
        #expect(log == ["a1", "a2", "a3", "b1", "c1", "c2"])
    }

    @Test(
        "Of two spawn(after:), the one with the smaller delay runs first, whichever was made first",
        arguments: bothLoops)
    func smallerDelayFirst(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let slow = spawn(after: .milliseconds(8)) { log.note("8 ms") }
            let quick = Greenlet.spawn(after: .milliseconds(2)) { log.note("2 ms") }
            try joinAll([slow, quick])
        }
        #expect(log == ["2 ms", "8 ms"])
    }

    @Test(
        "spawn(after:) with no delay still waits until the hub next checks its timers", arguments: [0, -1], bothLoops)
    func noDelay(seconds: Int, loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let later = spawn(after: .seconds(seconds)) { log.note("later") }
            spawn { log.note("now") }
            try sleep()
            log.note("back")
            try later.join()
        }
        #expect(log == ["now", "back", "later"])
    }

    @Test("start() twice runs the body once; start() after the end does nothing")
    func startTwice() throws {
        let log = try logged { log, hub in
            let greenlet = Greenlet { log.note("ran") }
            greenlet.start()
            greenlet.start()
            try greenlet.join()
            greenlet.start()
            greenlet.start(after: .seconds(1))
            _ = try hub.join()
            log.note("\(hub.now.nanoseconds)")
        }
        #expect(log == ["ran", "0"])
    }

    @Test("A later start() does not speed up start(after:), and start(after:) does not delay start()")
    func startAndStartAfter() throws {
        let log = try logged { log, hub in
            let late = Greenlet { log.note("late at \(hub.now.nanoseconds)") }
            late.start(after: .nanoseconds(5))
            late.start()
            late.start(after: .nanoseconds(1))
            let soon = Greenlet { log.note("soon at \(hub.now.nanoseconds)") }
            soon.start()
            soon.start(after: .seconds(5))
            try joinAll([late, soon])
        }
        #expect(log == ["soon at 0", "late at 5"])
    }

    @Test("In a greenlet current is that greenlet, in main the main greenlet, in a hub callback the hub")
    func current() throws {
        let log = try logged { log, hub in
            let main = AnyGreenlet.current
            log.note(main.description)
            let inside = spawn { ObjectIdentifier(AnyGreenlet.current) }
            try #expect(inside.get() == ObjectIdentifier(inside))
            #expect(AnyGreenlet.current === main)
            var insideRaw: ObjectIdentifier?
            let raw = spawnRaw { insideRaw = ObjectIdentifier(AnyGreenlet.current) }
            hub.runCallback { log.note(AnyGreenlet.current.description) }
            try sleep()
            #expect(insideRaw == ObjectIdentifier(raw))
        }
        #expect(log == ["<MainGreenlet>", "<HubGreenlet>"])
    }

    @Test("current remains correct across switches in every direction")
    func currentAfterSwitches() throws {
        try withHub { _ in
            let greenlets = (0..<5).map { _ in
                spawn {
                    let me = AnyGreenlet.current
                    for round in 0..<5 {
                        if round.isMultiple(of: 2) { try sleep() } else { try sleep(for: .nanoseconds(round)) }
                        #expect(AnyGreenlet.current === me)
                    }
                }
            }
            try joinAll(greenlets)
        }
    }

    @Test("A subclass overrides run() and starts like any greenlet")
    func subclass() throws {
        final class Adder: Greenlet<Int> {
            let numbers: [Int]
            init(_ numbers: [Int]) {
                self.numbers = numbers
                super.init()
            }
            override func run() throws -> Int {
                try sleep()
                return numbers.reduce(0, +)
            }
        }
        let sum = try withHub { _ in
            let adder = Adder([1, 2, 3])
            adder.start()
            return try adder.get()
        }
        #expect(sum == 6)
    }

    @Test("A subclass's outcome is recorded, its links notified and its error reported, like any greenlet's")
    func failingSubclass() throws {
        final class Failing: Greenlet<Int> {
            override func run() throws -> Int {
                // Unqualified names would refer to members.
                let other = Gevent.spawn { try sleep(for: .seconds(1000)) }
                try sleep()
                try Gevent.kill(other)
                throw Boom()
            }
            override var description: String { "a failing one" }
        }
        let log = try logged { log, hub in
            let failing = Failing()
            failing.linkValue { _ in log.note("never") }
            failing.linkError { log.note("link: \($0.error ?? OwnExit()), \($0 === failing)") }
            failing.start()
            log.outcome("get") { try failing.get() }
            try hub.join()
            let killed = Failing()
            killed.link { log.note("link: \($0.exit ?? OwnExit())") }
            killed.start()
            try killed.kill()
            try hub.join()
        }
        #expect(
            log == ["reported Boom of a failing one", "link: Boom, true", "get: threw Boom", "link: GreenletExit"])
    }

    @Test("Making a greenlet schedules nothing, and does not keep the hub waiting")
    func makingSchedulesNothing() throws {
        let log = try logged { log, hub in
            let made = Greenlet { log.note("ran") }
            let before = hub.statistics
            try #expect(hub.join())
            try sleep(for: .seconds(1))
            #expect(hub.statistics.spawnCount == before.spawnCount)
            #expect(!made.isStarted)
            log.note("\(hub.now.nanoseconds / 1_000_000_000)")
        }
        #expect(log == ["1"])
    }

    @Test("spawn(function, arguments) passes the arguments on")
    func spawnWithArguments() throws {
        @Sendable func add(_ a: Int, _ b: Double, _ c: String) -> String { "\(a) \(b) \(c)" }
        let text = try withHub { _ in try spawn(add, 1, 2.5, "three").get() }
        #expect(text == "1 2.5 three")
    }

    @Test("Greenlets can spawn, wait and be joined at any depth")
    func nestedSpawns() throws {
        @Sendable func depth(_ n: Int) throws -> Int { n == 0 ? 0 : try spawn { try depth(n - 1) }.get() + 1 }
        let reached = try withHub { _ in try depth(200) }
        #expect(reached == 200)
    }

    @Test("More greenlets than one step of the hub runs still run in order")
    func manyInOrder() throws {
        let count = 10_000
        let order = try withHub { _ in
            var order: [Int] = []
            let greenlets = (0..<count).map { number in spawn { order.append(number) } }
            try joinAll(greenlets)
            return order
        }
        #expect(order == Array(0..<count))
    }

    @Test("A greenlet that is woken goes to the back of the queue")
    func wokenGoToTheBack() throws {
        let log = try logged { log, _ in
            let first = spawn {
                try sleep()
                log.note("first ends")
            }
            let waiter = spawn {
                try first.join()
                log.note("waiter")
            }
            let third = spawn {
                try sleep()
                log.note("third")
            }
            try joinAll([waiter, third])
        }
        #expect(log == ["first ends", "third", "waiter"])
    }
}
