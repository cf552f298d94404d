import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Timeout")
struct TimeoutTests {
    @Test("A Timeout is thrown at the wait of the greenlet that started it, and nowhere else", arguments: bothLoops)
    func thrownWhereItWaits(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let timeout = Timeout(.milliseconds(2))
            let other = spawn { log.outcome("other") { try sleep(for: .milliseconds(6)) } }
            let starter = spawn {
                timeout.start()
                let caught = #expect(throws: Timeout.self) { try sleep(for: .seconds(1000)) }
                log.note("\(caught === timeout)")
            }
            try joinAll([other, starter])
        }
        #expect(log == ["true", "other: returned"])
    }

    @Test("Started and never cancelled, it fires later in unrelated code of the same greenlet", arguments: bothLoops)
    func firesInUnrelatedCode(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            func careless() { Timeout(.milliseconds(20)).start() }
            let before = hub.now
            careless()
            try sleep(for: .nanoseconds(1))
            let other = spawn { try sleep(for: .seconds(1000)) }
            log.outcome("unrelated") { try other.join() }
            log.note("not early: \(before.duration(to: hub.now) >= .milliseconds(20))")
            try other.kill()
        }
        #expect(log == ["unrelated: threw 0.02 seconds", "not early: true"])
    }

    @Test(
        "A started Timeout still fires after its last reference is dropped, and is released then", arguments: bothLoops)
    func dropped(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            weak var seen: Timeout?
            do {
                let timeout = Timeout(.milliseconds(2))
                timeout.start()
                seen = timeout
            }
            log.note(seen == nil ? "released" : "kept")
            do { try sleep(for: .seconds(1000)) } catch let caught as Timeout {
                log.note("\(caught === seen)")
            }
            log.note(seen == nil ? "released" : "kept")
        }
        #expect(log == ["kept", "true", "released"])
    }

    @Test("A cancelled Timeout, and one whose greenlet has ended, are released and no longer pending")
    func released() throws {
        try withHub { hub in
            weak var cancelled: Timeout?
            do {
                let timeout = Timeout.startNew(.seconds(1))
                cancelled = timeout
                timeout.cancel()
            }
            #expect(cancelled == nil)
            weak var orphan: Timeout?
            let held = Timeout(.seconds(5))
            let greenlet = spawn {
                orphan = Timeout.startNew(.seconds(1))
                held.start()
            }
            try greenlet.join()
            #expect(orphan == nil)
            #expect(!held.isPending)
            #expect(hub.statistics.pendingTimers == 0)
        }
    }

    @Test(
        "Pending from start until it fires or is cancelled; once fired it does not fire again by itself",
        arguments: bothLoops)
    func pending(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let timeout = Timeout(.milliseconds(2))
            #expect(!timeout.isPending)
            timeout.start()
            #expect(timeout.isPending)
            #expect(hub.statistics.pendingTimers == 1)
            #expect(throws: Timeout.self) { try sleep(for: .seconds(1000)) }
            #expect(!timeout.isPending)
            #expect(hub.statistics.pendingTimers == 0)
            try sleep(for: .milliseconds(5))
            timeout.start()
            #expect(timeout.isPending)
            timeout.cancel()
            #expect(!timeout.isPending)
            try sleep(for: .milliseconds(5))
        }
    }

    @Test("It can be restarted after it fired, or after cancel(); the time starts over", arguments: bothLoops)
    func restart(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let timeout = Timeout(.milliseconds(20))
            var started = hub.now
            func expectFullLength() {
                log.outcome("sleep") { try sleep(for: .seconds(1000)) }
                log.note("not early: \(started.duration(to: hub.now) >= .milliseconds(20))")
            }
            for _ in 0..<2 {
                started = hub.now
                timeout.start()
                expectFullLength()
            }
            timeout.start()
            try sleep(for: .milliseconds(1))
            timeout.cancel()
            started = hub.now
            timeout.start()
            expectFullLength()
        }
        #expect(log == Array(repeating: ["sleep: threw 0.02 seconds", "not early: true"], count: 3).flatMap { $0 })
    }

    @Test("cancel() and close() on an idle Timeout do nothing, and are repeatable")
    func idempotent() throws {
        try withHub { _ in
            let timeout = Timeout(.seconds(1))
            timeout.cancel()
            timeout.start()
            timeout.cancel()
            timeout.cancel()
            timeout.start()
            timeout.close()
            timeout.close()
            #expect(!timeout.isPending)
            try sleep(for: .seconds(2))
        }
    }

    @Test("Timeout(nil) never fires and costs no timer")
    func never() throws {
        try withHub { hub in
            let timeout = Timeout(nil)
            timeout.start()
            timeout.start()
            #expect(!timeout.isPending)
            #expect(hub.statistics.pendingTimers == 0)
            try sleep(for: .seconds(1_000_000))
            timeout.cancel()
            try #expect(withTimeout(nil) { _ in 1 } == 1)
            try #expect(withSilentTimeout(nil) { 1 } == 1)
        }
    }

    @Test("A zero Timeout fires when the hub next checks its timers", arguments: [Duration.zero, .seconds(-1)])
    func zero(duration: Duration) throws {
        try withHub { _ in
            let timeout = Timeout(duration)
            timeout.start()
            let caught = #expect(throws: Timeout.self) { try sleep(for: .nanoseconds(1)) }
            #expect(caught === timeout)
        }
    }

    @Test("It throws the error it carries instead of itself")
    func carriedError() throws {
        try withHub { _ in
            let error = BoomObject()
            Timeout(.seconds(1), throwing: error).start()
            let caught = #expect(throws: BoomObject.self) { try sleep(for: .seconds(5)) }
            #expect(caught === error)
        }
    }

    @Test("startNew accepts a duration or a Timeout, and returns a pending one unchanged")
    func startNew() throws {
        let log = try logged { log, hub in
            let first = Timeout.startNew(.seconds(3), throwing: Boom())
            try sleep(for: .seconds(1))
            #expect(Timeout.startNew(first) === first)
            log.outcome("sleep") { try sleep(for: .seconds(10)) }
            log.note("\(hub.now.nanoseconds / 1_000_000_000)")
            #expect(Timeout.startNew(first) === first)
            #expect(first.isPending)
            first.cancel()
        }
        #expect(log == ["sleep: threw Boom", "3"])
    }

    @Test("It does not interrupt a computation; it is thrown at the next park", arguments: bothLoops)
    func computation(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            Timeout.startNew(.milliseconds(1))
            if let virtual = hub.loop as? VirtualLoop {
                virtual.advance(by: .milliseconds(10))
            } else {
                let before = hub.now
                while before.duration(to: hub.now) < .milliseconds(10) {}
            }
            log.note("computed")
            log.outcome("park") { try sleep(for: .seconds(1000)) }
            log.outcome("next") { try sleep(for: .milliseconds(1)) }
        }
        #expect(log == ["computed", "park: threw 0.001 seconds", "next: returned"])
    }

    @Test(
        "cancel() in the starting greenlet withdraws a fired Timeout, even if another greenlet cancelled or closed it first"
    )
    func cancelledElsewhereFirst() throws {
        let log = try logged { log, _ in
            for undo in [Timeout.cancel, Timeout.close] {
                let victim = spawn {
                    let timeout = Timeout(.zero)
                    // All three are due at once: this one is queued, then the first timeout ends the victim's wait, and
                    // the second is still pending when `undo` runs.
                    spawn(after: .zero) { undo(timeout)() }
                    let first = Timeout.startNew(.zero)
                    timeout.start()
                    let caught = #expect(throws: Timeout.self) { try sleep(for: .seconds(1)) }
                    #expect(caught === first && !timeout.isPending)
                    timeout.cancel()
                    log.outcome("sleep") { try sleep(for: .seconds(1)) }
                }
                try victim.join()
            }
        }
        #expect(log == ["sleep: returned", "sleep: returned"])
    }

    @Test(
        "If it fires after its greenlet's wait has ended, that wait succeeds, and cancel() withdraws the error")
    func firedInTheGap() throws {
        let log = try logged { log, hub in
            let source = spawn { try sleep(for: .seconds(1)) }
            let victim = spawn {
                let timeout = Timeout.startNew(.seconds(1))
                log.outcome("join") { try source.join() }
                log.note("\(timeout.isPending)")
                timeout.cancel()
                log.outcome("sleep") { try sleep(for: .seconds(1)) }
            }
            try joinAll([source, victim])
        }
        // Both deadlines are equal. The source's was started earlier, so it is woken first. But the timeout finds the
        // victim still parked, because the source has not run yet.
        #expect(log == ["join: threw 1 second", "false", "sleep: returned"])
        let gap = try logged { log, hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            let never = Greenlet {}
            let victim = spawn {
                let timeout = Timeout.startNew(.milliseconds(10))
                // Its own limit ends this wait. The Timeout is due at the same check of the timers, before the victim
                // runs.
                log.outcome("join") { try never.join(timeout: .milliseconds(9)) }
                log.note("pending: \(timeout.isPending)")
                timeout.cancel()
                log.outcome("sleep") { try sleep(for: .seconds(1)) }
            }
            try sleep()
            loop.advance(by: .milliseconds(20))
            try victim.join()
        }
        #expect(gap == ["join: returned", "pending: false", "sleep: returned"])
    }

    @Test(
        "An unreferenced Timeout does not keep the hub waiting: the wait would block forever", arguments: bothLoops)
    func unreferenced(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let never = Greenlet {}
            let far = Timeout.startNew(Timeout(.seconds(1000), referenced: false))
            log.note("\(hubErrorCode { try never.join() } == .wouldBlockForever)")
            #expect(far.isPending)
            far.cancel()
            // While other work keeps the hub waiting, it fires like any Timeout.
            Timeout(.milliseconds(2), referenced: false).start()
            log.outcome("sleep") { try sleep(for: .seconds(1000)) }
            Timeout(.milliseconds(3)).start()
            log.outcome("join") { try never.join() }
        }
        #expect(log == ["true", "sleep: threw 0.002 seconds", "join: threw 0.003 seconds"])
    }

    @Test(
        "The nearest fires first, whatever the order of starts; equal deadlines fire in the order started",
        arguments: bothLoops)
    func firingOrder(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            // On a real clock two starts have two deadlines; the order is still that of the starts.
            for (name, delay) in [("c", 50), ("a", 5), ("b", 25), ("a2", 5), ("c2", 50)] {
                Timeout(.milliseconds(delay), throwing: Boom(name)).start()
            }
            for _ in 0..<5 { log.outcome("sleep") { try sleep(for: .seconds(1000)) } }
        }
        #expect(log == ["a", "a2", "b", "c", "c2"].map { "sleep: threw \($0)" })
    }

    @Test("Two Timeouts that fire at once are both thrown, one park after the other")
    func bothAreThrown() throws {
        let log = try logged { log, hub in
            Timeout(.seconds(1), throwing: Boom("1")).start()
            Timeout(.seconds(1), throwing: Boom("2")).start()
            log.outcome("first") { try sleep(for: .seconds(5)) }
            log.outcome("second") { try sleep() }
            log.note("\(hub.now.nanoseconds / 1_000_000_000)")
            log.outcome("third") { try sleep(for: .seconds(5)) }
        }
        #expect(log == ["first: threw 1", "second: threw 2", "1", "third: returned"])
    }

    @Test("A wait for a descriptor does not make a 1 ms timer later than 11 ms")
    func timersBesideDescriptors() throws {
        // The best of a few attempts, so that a busy machine does not fail the test.
        let best = try withHub(on: .configured) { hub in
            let pipe = try Pipe()
            let reader = spawn { try waitRead(pipe.readEnd) }
            try sleep()
            var best = Duration.seconds(1000)
            for _ in 0..<5 {
                let before = hub.now
                try sleep(for: .milliseconds(1))
                best = min(best, before.duration(to: hub.now))
            }
            try reader.kill()
            return best
        }
        #expect(best >= .milliseconds(1))
        #expect(best < .milliseconds(11))
    }

    @Test("Descriptions: 1 second, 2 seconds, 0.5 seconds: message, 1 second (silent), empty for nil")
    func descriptions() throws {
        #expect(Timeout(.seconds(1)).description == "1 second")
        #expect(Timeout(.seconds(2)).description == "2 seconds")
        #expect(Timeout(.milliseconds(500)).description == "0.5 seconds")
        #expect(Timeout(.milliseconds(500), message: "message").description == "0.5 seconds: message")
        #expect(Timeout(.seconds(1), message: "message").description == "1 second: message")
        #expect(Timeout(silent: .seconds(1)).description == "1 second (silent)")
        #expect(Timeout(silent: .milliseconds(100)).description == "0.1 seconds (silent)")
        #expect(Timeout(.zero).description == "0 seconds")
        #expect(Timeout(.nanoseconds(1)).description == "0.000000001 seconds")
        #expect(Timeout(.milliseconds(-1500)).description == "-1.5 seconds")
        #expect(Timeout(nil).description == "")
    }

    @Test("A Timeout of ten thousand years never fires")
    func farFuture() throws {
        try withHub { hub in
            let timeouts = [Duration.seconds(Int64.max), .seconds(315_360_000_000)].map { Timeout.startNew($0) }
            try sleep(for: .seconds(86_400 * 365))
            #expect(timeouts.map(\.isPending) == [true, true])
            for timeout in timeouts { timeout.cancel() }
            #expect(hub.statistics.pendingTimers == 0)
        }
    }

    // MARK: Misuse

    @Test("Starting a pending Timeout is refused, with a message")
    func startTwice() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let timeout = Timeout(.seconds(1))
                timeout.start()
                timeout.start()
            }
        }
        #expect(text(result.standardErrorContent).contains("this Timeout is pending already: 1 second"))
    }

    @Test("Starting one after close() is refused, with a message")
    func startAfterClose() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let timeout = Timeout(.seconds(1))
                timeout.close()
                timeout.start()
            }
        }
        #expect(text(result.standardErrorContent).contains("this Timeout was closed: 1 second"))
    }

    @Test("Starting one in a hub callback is refused, with a message")
    func startInCallback() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { hub in
                hub.runCallback { Timeout(.seconds(1)).start() }
                try sleep()
            }
        }
        #expect(text(result.standardErrorContent).contains("a Timeout cannot be started in a hub callback"))
    }
}
