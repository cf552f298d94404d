import Gevent
import GeventTesting
import Testing

@Suite("get and join")
struct GetAndJoinTests {
    @Test(
        "join neither returns the outcome nor throws it, on success, failure and timeout", arguments: bothLoops)
    func joinIsSilent(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            hub.errorHandler = { _, _ in }
            let good = spawn { 1 }
            let bad = spawn { () throws -> Int in throw Boom() }
            let slow = spawn { () throws -> Int in
                try sleep(for: .milliseconds(10))
                return 2
            }
            log.outcome("good") { try good.join() }
            log.outcome("bad") { try bad.join() }
            log.outcome("slow") { try slow.join(timeout: .milliseconds(1)) }
            log.note("\(slow.isReady)")
            log.outcome("again") { try slow.join() }
            log.note("\(slow.isReady)")
        }
        #expect(log == ["good: returned", "bad: returned", "slow: returned", "false", "again: returned", "true"])
    }

    @Test(
        "A foreign Timeout that fires inside join or get propagates, and the link is removed", arguments: bothLoops)
    func foreignTimeout(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let late = Greenlet { 1 }
            let waits: [(String, () throws -> Void)] = [
                ("join", { try late.join() }), ("join(timeout:)", { try late.join(timeout: .seconds(1000)) }),
                ("get", { _ = try late.get() }), ("get(timeout:)", { _ = try late.get(timeout: .seconds(1000)) }),
                ("joinAll", { try joinAll([late]) }),
            ]
            for (name, wait) in waits {
                let timeout = Timeout(.milliseconds(1))
                timeout.start()
                let caught = #expect(throws: Timeout.self) { try wait() }
                log.note("\(name): \(caught === timeout)")
            }
            // A leftover link would let the end of `late` cut this sleep short.
            late.start()
            let before = hub.now
            try sleep(for: .milliseconds(5))
            log.note("ended: \(late.isReady), slept well: \(before.duration(to: hub.now) >= .milliseconds(5))")
        }
        #expect(
            log == [
                "join: true", "join(timeout:): true", "get: true", "get(timeout:): true", "joinAll: true",
                "ended: true, slept well: true",
            ])
    }

    @Test("A finished wait does not disturb the next one: its timeout is cancelled")
    func noStaleTimeout() throws {
        let log = try logged { log, hub in
            let quick = spawn { try sleep(for: .seconds(1)) }
            try quick.join(timeout: .seconds(5))
            #expect(hub.statistics.pendingTimers == 0)
            try sleep(for: .seconds(100))
            log.note("\(hub.now.nanoseconds / 1_000_000_000)")
        }
        #expect(log == ["101"])
    }

    @Test("get(timeout:) throws a Timeout of that length", arguments: bothLoops)
    func getTimeout(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let slow = spawn {
                try sleep(for: .milliseconds(10))
                return "value"
            }
            log.outcome("get") { try slow.get(timeout: .milliseconds(1)) }
            log.outcome("get") { try slow.get() }
        }
        #expect(log == ["get: threw 0.001 seconds", "get: value"])
    }

    @Test("get(timeout:) given a Timeout throws that very object, or the error it carries", arguments: bothLoops)
    func getWithTimeoutObject(loop: TestLoop) throws {
        try withHub(on: loop) { _ in
            let gate = Event()
            let slow = spawn {
                try gate.wait()
                return 1
            }
            let timeout = Timeout(.milliseconds(1))
            let caught = #expect(throws: Timeout.self) { try slow.get(timeout: timeout) }
            #expect(caught === timeout)
            #expect(!timeout.isPending)

            let carried = BoomObject()
            let error = #expect(throws: BoomObject.self) {
                try slow.get(timeout: Timeout(.milliseconds(1), throwing: carried))
            }
            #expect(error === carried)

            let pending = Timeout(.milliseconds(1))
            pending.start()
            let other = #expect(throws: Timeout.self) { try slow.get(timeout: pending) }
            #expect(other === pending)

            spawn(after: .milliseconds(1)) { gate.set() }
            let ample = Timeout(.seconds(60))
            ample.start()
            try #expect(slow.get(timeout: ample) == 1)
            #expect(!ample.isPending, "cancelled with the wait, although it was pending before")
            // A finished greenlet does not check it.
            try #expect(slow.get(timeout: ample) == 1)
            ample.start()
            try #expect(slow.get(timeout: ample) == 1)
            #expect(ample.isPending)
            ample.cancel()
        }
    }

    @Test("get(blocking: false) and get with a zero timeout throw Timeout at once on a live greenlet, without a switch")
    func getWithoutBlocking() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { 1 }
            let before = hub.statistics.switchCount
            log.outcome("not blocking") { try greenlet.get(blocking: false) }
            log.outcome("zero") { try greenlet.get(timeout: .zero) }
            log.outcome("negative") { try greenlet.get(timeout: .seconds(-1)) }
            log.outcome("join zero") { try greenlet.join(timeout: .zero) }
            #expect(hub.statistics.switchCount == before)
            #expect(throws: Timeout.self) { try Greenlet { 1 }.get(blocking: false) }
            try sleep()
            log.outcome("not blocking") { try greenlet.get(blocking: false) }
        }
        #expect(
            log == [
                "not blocking: threw 0 seconds", "zero: threw 0 seconds", "negative: threw -1 seconds",
                "join zero: returned", "not blocking: 1",
            ])
    }

    @Test("A value is returned intact, whatever its size and alignment, and is released with its greenlet")
    func values() throws {
        try withHub { _ in
            try spawn {}.get()
            #expect(try spawn { UInt8(7) }.get() == 7)
            #expect(try spawn { 1.5 }.get() == 1.5)
            #expect(try spawn { Int?.none }.get() == nil)
            #expect(try spawn { "longer than fifteen bytes" }.get() == "longer than fifteen bytes")
            #expect(try spawn { (1, 2) }.get() == (1, 2))
            // These do not fit in the greenlet's inline storage: too large, or over-aligned.
            #expect(try spawn { (1, 2, 3) }.get() == (1, 2, 3))
            #expect(try spawn { SIMD4<Double>(1, 2, 3, 4) }.get() == [1, 2, 3, 4])
            #expect(try spawn { [SIMD16<UInt8>(repeating: 9)] }.get() == [SIMD16(repeating: 9)])
            try expectRelease { $0 }
            try expectRelease { ($0, $0) }
            try expectRelease { ($0, $0, "more") }
            try expectRelease { Watching(witness: $0, watched: $0) }
        }
    }

    /// Checks that the greenlet's value is released together with the greenlet, and not before.
    private func expectRelease<Value>(_ wrap: @escaping (Witness) -> Value) throws {
        var releases = 0
        var greenlet: Greenlet<Value>? = spawn { wrap(Witness { releases += 1 }) }
        do {
            // Each call returns a new value.
            _ = try greenlet?.get()
            _ = try greenlet?.get()
            #expect(greenlet?.value != nil)
        }
        try sleep()
        #expect(releases == 0)
        greenlet = nil
        #expect(releases == 1)
        // Without a value there is nothing to release or return.
        for body in [{ throw GreenletExit() }, { throw Boom() }] as [() throws -> Value] {
            let failed = spawn(body)
            failed.hub?.errorHandler = { _, _ in }
            try failed.join()
            #expect(failed.value == nil)
        }
    }

    @Test("join or get on a finished greenlet does not switch")
    func finishedDoesNotSwitch() throws {
        try withHub { hub in
            let greenlet = spawn { 1 }
            try greenlet.join()
            var ran = false
            let other = spawn { ran = true }
            let before = hub.statistics.switchCount
            try greenlet.join()
            try greenlet.join(timeout: .seconds(1))
            try #expect(greenlet.get() == 1)
            try joinAll([greenlet, greenlet])
            #expect(hub.statistics.switchCount == before)
            #expect(!ran)
            try other.join()
        }
    }

    @Test(
        "Joining a greenlet that was never started, with nothing else alive, would block forever, in main",
        arguments: bothLoops)
    func joinUnstarted(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let greenlet = Greenlet { log.note("body") }
            #expect(hubErrorCode { try greenlet.join() } == .wouldBlockForever)
            #expect(hubErrorCode { _ = try greenlet.get() } == .wouldBlockForever)
            #expect(hubErrorCode { try joinAll([greenlet]) } == .wouldBlockForever)
            // The greenlet can still be started. Its end does not wake the waiter that gave up.
            greenlet.start()
            let before = hub.now
            try sleep(for: .milliseconds(2))
            log.note("slept well: \(before.duration(to: hub.now) >= .milliseconds(2))")
            try greenlet.join()
        }
        #expect(log == ["body", "slept well: true"])
    }

    @Test("A greenlet waiting for one that was never started keeps waiting until it is started")
    func joinUnstartedFromGreenlet() throws {
        let log = try logged { log, _ in
            let late = Greenlet { log.note("late") }
            let waiter = spawn {
                try late.join()
                log.note("waiter")
            }
            try sleep(for: .seconds(1))
            log.note("start")
            late.start()
            try waiter.join()
        }
        #expect(log == ["start", "late", "waiter"])
    }

    @Test("Several waiters of one greenlet are resumed in the order in which they began to wait")
    func manyWaiters() throws {
        let log = try logged { log, _ in
            let slow = spawn {
                try sleep(for: .seconds(1))
                return 7
            }
            let waiters = (0..<5).map { number in spawn { log.note("\(number): \(try slow.get())") } }
            try joinAll(waiters)
        }
        #expect(log == (0..<5).map { "\($0): 7" })
    }

    @Test("A chain of joiners is resumed")
    func chain() throws {
        let sum = try withHub { _ in
            var last = spawn { () throws -> Int in
                try sleep(for: .seconds(1))
                return 1
            }
            for _ in 0..<1000 {
                let previous = last
                last = spawn { try previous.get() + 1 }
            }
            return try last.get()
        }
        #expect(sum == 1001)
    }

    @Test("Joining the current greenlet throws wouldBlockForever at once", arguments: [nil, Duration.seconds(1)])
    func joinSelf(timeout: Duration?) throws {
        let log = try logged { log, hub in
            var own: Greenlet<Void>?
            own = Greenlet {
                log.note("\(hubErrorCode { try own!.join(timeout: timeout) } == .wouldBlockForever)")
                log.note("\(hubErrorCode { try own!.get(timeout: timeout) } == .wouldBlockForever)")
            }
            own!.start()
            try own!.join()
            own = nil
            log.note("\(hub.now.nanoseconds)")
        }
        #expect(log == ["true", "true", "0"])
    }
}

/// A value whose address the runtime records, so that it cannot be moved byte by byte.
private struct Watching {
    let witness: Witness
    weak var watched: Witness?
}
