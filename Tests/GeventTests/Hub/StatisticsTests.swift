import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Hub statistics")
struct StatisticsTests {
    @Test("Starts, polls, timers and parked greenlets are counted", arguments: bothLoops)
    func counters(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let before = hub.statistics
            let gate = Greenlet {}
            let waiting = (0..<3).map { _ in spawn { try gate.join() } }
            spawnRaw { try sleep(for: .milliseconds(1)) }
            let never = Greenlet {}
            let delayed = spawn(after: .milliseconds(1)) {}
            try sleep(for: .milliseconds(2))
            try delayed.join()
            let cancelled = Timeout.startNew(.seconds(100))
            let pending = hub.statistics
            cancelled.cancel()
            log.note("\(pending.spawnCount - before.spawnCount) spawned")
            // Main is running.
            log.note("\(pending.parkedGreenlets) parked of \(pending.liveGreenlets), \(pending.pendingTimers) timers")
            log.note("\(pending.firedTimers - before.firedTimers) fired")
            log.note("\(pending.pollCount > before.pollCount) \(pending.switchCount > before.switchCount)")
            log.note("\(pending.uptime >= .milliseconds(2)) \(pending.spawnsPerSecond > 0)")
            gate.start()
            try joinAll(waiting)
            log.note("\(hub.statistics.parkedGreenlets) \(never.isStarted)")
        }
        #expect(log == ["5 spawned", "3 parked of 3, 1 timers", "3 fired", "true true", "true true", "0 false"])
    }

    @Test("Main counts as parked while it waits, and a killed greenlet no longer counts")
    func parked() throws {
        let log = try logged { log, hub in
            let sleeper = spawn { try sleep(for: .seconds(9)) }
            hub.runCallback { log.note("\(hub.statistics.parkedGreenlets)") }
            try sleep(for: .seconds(1))
            try kill(sleeper)
            log.note("\(hub.statistics.parkedGreenlets)")
            try sleeper.join()
            log.note("\(hub.statistics.parkedGreenlets)")
        }
        #expect(log == ["2", "0", "0"])
    }

    @Test("A stack's high-water mark grows with use, and reading it costs no memory")
    func highWaterMark() throws {
        let log = try logged { log, hub in
            let gate = Greenlet {}
            let shallow = spawn { try gate.join() }
            let deep = spawn {
                _ = touch(kibibytes: 100)
                try gate.join()
            }
            try sleep()
            let marks = (shallow.stackHighWaterMark!, deep.stackHighWaterMark!)
            log.note("\(marks.0 > 0) \(marks.0 < 64 << 10)")
            log.note("\(marks.1 >= 100 << 10) \(marks.1 < hub.usableStackSize)")
            log.note("\(hub.deepestStack! == max(marks.0, marks.1)) \(shallow.stackHighWaterMark! == marks.0)")
            log.note("\(AnyGreenlet.current.stackHighWaterMark == nil) \(gate.stackHighWaterMark == nil)")
            gate.start()
            try joinAll([shallow, deep])
            log.note("\(deep.stackHighWaterMark == nil) \(hub.deepestStack! >= marks.1)")
        }
        #expect(log == ["true true", "true true", "true true", "true true", "true true"])
    }
}

/// Writes to that much of the stack, a KiB per frame.
@inline(never)
private func touch(kibibytes: Int) -> Int {
    withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 16) { buffer in
        for index in buffer.indices { buffer[index] = 0xff }
        let below = kibibytes <= 0 ? 0 : touch(kibibytes: kibibytes - 1)
        // Read afterwards, so that the frame stays in use until then.
        return below + Int(buffer[kibibytes % 1024])
    }
}

@Suite("assertSwitches")
struct AssertSwitchesTests {
    @Test("It throws if the block did not switch, and otherwise returns the block's value")
    func failsWithoutASwitch() throws {
        let log = try logged { log, _ in
            log.outcome("nothing") { try assertSwitches { 1 } }
            log.outcome("yield") {
                try assertSwitches {
                    try sleep()
                    return 2
                }
            }
            log.outcome("sleep") { try assertSwitches { try sleep(for: .seconds(1)) } }
            let ended = spawn {}
            try ended.join()
            log.outcome("no wait") { try assertSwitches { try ended.join() } }
            // The report is made on the hub's stack, and no other greenlet runs.
            log.outcome("report") { try assertSwitches { try Greenlet {}.kill(throwing: Boom()) } }
        }
        #expect(
            log == [
                "nothing: threw a block did not switch to another greenlet in 0 s", "yield: 2", "sleep: returned",
                "no wait: threw a block did not switch to another greenlet in 0 s", log[4],
                "report: threw a block did not switch to another greenlet in 0 s",
            ])
        #expect(log[4].hasPrefix("reported Boom"))
    }

    @Test("It adds no error when the block threw")
    func passesErrorsOn() throws {
        let log = try logged { log, _ in
            log.outcome("thrown") { try assertSwitches { throw Boom() } }
            log.outcome("limited") { try assertSwitches(maxBlockingTime: .zero, hubOnly: true) { throw Boom() } }
        }
        #expect(log == ["thrown: threw Boom", "limited: threw Boom"])
    }

    @Test("With a limit, only a block that exceeds it must have switched")
    func limited() throws {
        let log = try logged { log, hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            log.outcome("fast") { try assertSwitches(maxBlockingTime: .seconds(1)) { loop.advance(by: .seconds(1)) } }
            log.outcome("slow") { try assertSwitches(maxBlockingTime: .seconds(1)) { loop.advance(by: .seconds(2)) } }
            log.outcome("switching") {
                try assertSwitches(maxBlockingTime: .seconds(1)) {
                    loop.advance(by: .seconds(2))
                    try sleep()
                }
            }
        }
        #expect(
            log == [
                "fast: returned",
                "slow: threw a block did not switch to another greenlet in 2 s, where 1 s are allowed",
                "switching: returned",
            ])
    }

    @Test("With hubOnly a switch to another greenlet does not count")
    func hubOnly() throws {
        let log = try logged { log, _ in
            let other = spawn { for _ in 0..<10 { try sleep() } }
            // The hub must have granted some handovers before, or it would run now.
            try sleep()
            log.outcome("any") { try assertSwitches { try sleep() } }
            log.outcome("a greenlet") { try assertSwitches(hubOnly: true) { try sleep() } }
            log.outcome("the hub") { try assertSwitches(hubOnly: true) { try sleep(for: .seconds(1)) } }
            try other.join()
        }
        #expect(
            log == [
                "any: returned", "a greenlet: threw a block did not switch to the hub in 0 s", "the hub: returned",
            ])
    }

    @Test("It nests: each block is judged independently")
    func nested() throws {
        let log = try logged { log, _ in
            log.outcome("outer") {
                try assertSwitches {
                    try sleep()
                    log.outcome("inner") { try assertSwitches { 1 } }
                }
            }
            log.outcome("both") { try assertSwitches { try assertSwitches { try sleep() } } }
        }
        #expect(
            log == [
                "inner: threw a block did not switch to another greenlet in 0 s", "outer: returned", "both: returned",
            ])
    }

    @Test("With hubOnly no direct switch counts, by whichever call; starts of raw greenlets are counted")
    func handover() throws {
        try withHub { hub in
            try sleep(for: .milliseconds(1))
            let main = AnyGreenlet.current
            let raw = RawGreenlet { try main.switchTo() }
            // Switches to the raw greenlet and back without the hub.
            #expect(throws: NoSwitchError.self) { try assertSwitches(hubOnly: true) { try raw.switchTo() } }
            try raw.kill()
            let before = hub.statistics.spawnCount
            try assertSwitches { try RawGreenlet {}.switchTo() }
            #expect(hub.statistics.spawnCount == before + 1)
        }
    }
}
