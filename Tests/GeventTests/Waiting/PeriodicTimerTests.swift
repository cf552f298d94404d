import Gevent
import GeventTesting
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// Milliseconds since the hub's time zero.
private func milliseconds(_ hub: Hub) -> Int64 { hub.now.nanoseconds / 1_000_000 }

@Suite("Periodic timers")
struct PeriodicTimerTests {
    @Test("Ticks fire at the start plus multiples of the interval, each in its own greenlet")
    func grid() throws {
        let entries = try logged { log, hub in
            let start = milliseconds(hub)
            var greenlets: [AnyGreenlet] = []
            let timer = every(.milliseconds(10)) {
                greenlets.append(.current)
                log.note("\(milliseconds(hub) - start)")
            }
            try sleep(for: .milliseconds(35))
            #expect(timer.isActive && timer.tickCount == 3 && timer.skippedTicks == 0)
            timer.cancel()
            timer.cancel()
            #expect(!timer.isActive)
            try sleep(for: .milliseconds(35))
            #expect(timer.tickCount == 3)
            #expect(Set(greenlets.map(ObjectIdentifier.init)).count == 3)
        }
        #expect(entries == ["10", "20", "30"])
    }

    @Test("The first tick may have another delay; a negative one means now")
    func firstTick() throws {
        let entries = try logged { log, hub in
            let late = every(.milliseconds(10), startingAfter: .milliseconds(3)) {
                log.note("late \(milliseconds(hub))")
            }
            let early = every(.milliseconds(20), startingAfter: .seconds(-1)) { log.note("early \(milliseconds(hub))") }
            #expect(early.interval == .milliseconds(20))
            try sleep(for: .milliseconds(25))
            late.cancel()
            early.cancel()
        }
        #expect(entries == ["early 0", "late 3", "late 13", "early 20", "late 23"])
    }

    @Test(
        "Rounding does not add up: after 9,000 ticks of an interval with a fraction of a nanosecond, ticks are on the grid"
    )
    func noDrift() throws {
        try withHub { hub in
            let start = hub.now
            let interval = Duration.seconds(1) / 3
            let timer = every(interval) {}
            try sleep(for: .milliseconds(3_000_500))
            timer.cancel()
            #expect(timer.tickCount == 9_001 && timer.skippedTicks == 0)
            #expect(start.duration(to: hub.now) == .milliseconds(3_000_500))
        }
    }

    @Test("Ticks never overlap: those that fire during a tick are skipped and counted, and the grid remains")
    func skipping() throws {
        let entries = try logged { log, hub in
            var running = 0
            let timer = every(.milliseconds(10)) {
                running += 1
                #expect(running == 1)
                log.note("\(milliseconds(hub))")
                try sleep(for: .milliseconds(25))
                running -= 1
            }
            try sleep(for: .milliseconds(75))
            timer.cancel()
            #expect(timer.tickCount == 3 && timer.skippedTicks == 4)
            _ = try hub.join()
        }
        #expect(entries == ["10", "40", "70"])
    }

    @Test("Ticks missed by a busy hub are skipped and counted, not made up for")
    func busyHub() throws {
        try withHub(on: .custom { try VirtualLoop(advancesAutomatically: false) }) { hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            let timer = every(.milliseconds(10)) {}
            loop.advance(by: .milliseconds(55))
            while timer.tickCount == 0 { try idle() }
            #expect(timer.tickCount == 1 && timer.skippedTicks == 4)
            loop.advance(by: .milliseconds(5))
            while timer.tickCount == 1 { try idle() }
            #expect(timer.tickCount == 2 && timer.skippedTicks == 4)
            timer.cancel()
        }
    }

    @Test("An error is reported to the hub's error handler, and the timer continues")
    func errors() throws {
        let entries = try logged { log, hub in
            let timer = every(.milliseconds(10)) { throw Boom() }
            try sleep(for: .milliseconds(25))
            #expect(timer.isActive && timer.tickCount == 2)
            timer.cancel()
        }
        #expect(entries.count == 2 && entries.allSatisfy { $0.hasPrefix("reported Boom of <RawGreenlet") })
    }

    @Test("A timer keeps the hub waiting unless it is unreferenced", arguments: bothLoops)
    func references(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let idle = every(.milliseconds(1), referenced: false) {}
            try #require(try hub.join())
            var ticks = 0
            var timer: PeriodicTimer?
            timer = every(.milliseconds(1)) {
                ticks += 1
                if ticks == 5 { timer?.cancel() }
            }
            #expect(try hub.join())
            #expect(ticks == 5)
            #expect(!idle.isReferenced && timer?.isReferenced == false)
            // The flag may change, and the next tick fires at its old time.
            let due = hub.now.advanced(by: .milliseconds(40))
            var late: [PeriodicTimer] = []
            late.append(
                every(.milliseconds(40), referenced: false) {
                    #expect(hub.now >= due)
                    late[0].isReferenced = false
                })
            late[0].isReferenced = true
            #expect(try hub.join())
            #expect(late[0].tickCount == 1 && late[0].isActive)
            late.removeLast().cancel()
            idle.cancel()
        }
    }

    @Test("A timer without references runs until its hub is destroyed; a tick that has not started is cancelled too")
    func life() throws {
        let alive = Counter()
        try withHub(allowingLeftovers: true) { hub in
            alive.add(2)
            let kept = Witness { alive.add(-1) }
            let cancelled = Witness { alive.add(-1) }
            var ticks = 0
            every(.milliseconds(10)) { withExtendedLifetime(kept) { ticks += 1 } }
            try sleep(for: .milliseconds(25))
            #expect(ticks == 2)
            // Due at the same time, and started earlier.
            let canceller = Timeout.startNew(.milliseconds(1), throwing: Boom())
            let timer = every(.milliseconds(3), startingAfter: .milliseconds(1)) {
                withExtendedLifetime(cancelled) { _ = Issue.record("it was cancelled") }
            }
            do { try sleep(for: .seconds(1)) } catch is Boom { timer.cancel() }
            #expect(!canceller.isPending && timer.tickCount == 1)
            try sleep()
        }
        #expect(alive.count == 0)
    }

    @Test("On real clocks a tick is never early", arguments: [TestLoop.configured])
    func notEarly(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let start = hub.now
            var late: [Duration] = []
            let timer = every(.milliseconds(2)) { late.append(start.duration(to: hub.now)) }
            try waitUntil { late.count >= 10 }
            timer.cancel()
            for (index, elapsed) in late.enumerated() { #expect(elapsed >= .milliseconds(2) * (index + 1)) }
        }
    }

    @Test("An interval of zero or less stops the program with a message that says so")
    func badInterval() async throws {
        for interval in [0, -1] {
            let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
                [interval = interval as Int] in
                dieQuietly()
                try withHub { _ in _ = every(.seconds(interval)) {} }
            }
            #expect(text(result.standardErrorContent).contains("an interval must be greater than zero"))
        }
    }

    @Test("A tick killed before it runs counts as a tick, and the next one fires")
    func killedTick() throws {
        let log = try logged { log, hub in
            // This sleep started before the timer, so it wakes first and finds the tick's greenlet queued.
            let killer = spawn {
                try sleep(for: .milliseconds(1))
                for node in GreenletTree.current().nodes where node.greenlet is RawGreenlet { try kill(node.greenlet) }
            }
            try sleep()
            let timer = every(.milliseconds(1)) { log.note("tick at \(hub.now)") }
            try sleep(for: .microseconds(3500))
            log.note("\(timer.tickCount) ticks, \(timer.skippedTicks) skipped, killer \(killer.isSuccessful)")
            timer.cancel()
        }
        #expect(
            log == ["tick at 0.002000000 s", "tick at 0.003000000 s", "3 ticks, 0 skipped, killer true"])
    }
}
