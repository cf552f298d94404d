import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("AsyncResult")
struct AsyncResultTests {
    @Test("get returns the value to all waiters, present and future, in the order in which they began to wait")
    func value() throws {
        let log = try logged { log, hub in
            let result = AsyncResult<Int>()
            #expect(!result.isReady && !result.isSuccessful && result.value == nil && result.result == nil)
            let waiters = (0..<3).map { number in spawn { log.note("\(number): \(try result.get())") } }
            try sleep()
            result.set(7)
            #expect(result.isReady && result.isSuccessful && result.value == 7 && result.error == nil)
            try joinAll(waiters)
            let before = hub.statistics.switchCount
            log.note("later: \(try result.get()) \(try result.getNowait()) \(try result.wait() ?? 0)")
            #expect(hub.statistics.switchCount == before)
        }
        #expect(log == ["0: 7", "1: 7", "2: 7", "later: 7 7 7"])
    }

    @Test("get throws the stored error to all waiters, present and future; wait returns nil for an error")
    func error() throws {
        let log = try logged { log, _ in
            let result = AsyncResult<Int>()
            let waiters = (0..<2).map { number in spawn { log.outcome("\(number)") { try result.get() } } }
            let silent = spawn { log.note("wait: \(try result.wait() as Int?)") }
            try sleep()
            let boom = BoomObject()
            result.setError(boom)
            #expect(result.isReady && !result.isSuccessful && result.value == nil && result.exit == nil)
            #expect(result.error as? BoomObject === boom)
            try joinAll(waiters + [silent])
            #expect(throws: BoomObject.self) { try result.get() }
            #expect(throws: BoomObject.self) { try result.getNowait() }
            try #expect(result.wait() == nil)
        }
        #expect(log.count == 3 && log[2] == "wait: nil")
        #expect(log[0].hasPrefix("0: threw") && log[1].hasPrefix("1: threw"))
    }

    @Test("A result set to nil counts as ready")
    func nilValue() throws {
        try withHub { _ in
            let result = AsyncResult<Int?>()
            let waiter = spawn { try result.get() }
            try sleep()
            result.set(nil)
            #expect(result.isReady && result.isSuccessful)
            try #expect(waiter.get() == nil)
            try #expect(result.wait() == .some(nil))
        }
    }

    @Test("With two calls of set, the last outcome wins, also for waiters that have not run yet")
    func lastWins() throws {
        let log = try logged { log, _ in
            let result = AsyncResult<Int>()
            let waiter = spawn { log.outcome("waiter") { try result.get() } }
            try sleep()
            result.set(1)
            result.setError(Boom())
            #expect(result.value == nil && result.error is Boom)
            result.set(2)
            #expect(result.value == 2 && result.error == nil && result.isSuccessful)
            try waiter.join()
            log.outcome("later") { try result.get() }
        }
        #expect(log == ["waiter: 2", "later: 2"])
    }

    @Test(
        "On its own timeout get throws and wait returns nil; a foreign Timeout passes through both",
        arguments: bothLoops)
    func timeouts(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let result = AsyncResult<Int>()
            log.outcome("get") { try result.get(timeout: .milliseconds(1)) }
            log.note("wait: \(try result.wait(timeout: .milliseconds(1)) as Int?)")
            log.outcome("not blocking") { try result.get(blocking: false) }
            log.outcome("nowait") { try result.getNowait() }
            let waits: [() throws -> Void] = [
                { _ = try result.get() }, { _ = try result.wait() }, { _ = try result.get(timeout: .seconds(60)) },
                { _ = try result.wait(timeout: .seconds(60)) },
            ]
            for wait in waits { log.note("foreign: \(letsForeignTimeoutPass(wait))") }
            let own = Timeout(.milliseconds(1))
            let caught = #expect(throws: Timeout.self) { try result.get(timeout: own) }
            log.note("given: \(caught === own) \(own.isPending)")
            #expect(result.linkCount == 0 && hub.statistics.pendingTimers == 0)
        }
        #expect(
            log == [
                "get: threw 0.001 seconds", "wait: nil", "not blocking: threw 0 seconds", "nowait: threw 0 seconds",
                "foreign: true", "foreign: true", "foreign: true", "foreign: true", "given: true false",
            ])
    }

    @Test(
        "A waiter killed after the result was set has it and is killed at its next park; one killed before never gets it"
    )
    func kills() throws {
        let log = try logged { log, _ in
            let result = AsyncResult<Int>()
            let early = spawn { log.outcome("early") { try result.get() } }
            let late = spawn {
                log.outcome("late") { try result.get() }
                log.outcome("sleep") { try sleep() }
            }
            try sleep()
            try early.kill(blocking: false)
            #expect(result.linkCount == 1)
            result.set(1)
            try late.kill()
        }
        #expect(log == ["early: threw GreenletExit", "late: 1", "sleep: threw GreenletExit"])
    }

    @Test("Linking a greenlet to it copies value, error or exit; it works repeatedly, also after death")
    func linkTarget() throws {
        try withHub { hub in
            hub.errorHandler = { _, _ in }
            let good = spawn { 1 }
            let bad = spawn { () throws -> Int in throw Boom() }
            let killed = spawn { () throws -> Int in
                try sleep(for: .seconds(9))
                return 2
            }
            let greenlets = [good, bad, killed]
            let results = greenlets.map { _ in (AsyncResult<Int>(), AsyncResult<Int>()) }
            for (greenlet, result) in zip(greenlets, results) {
                greenlet.link(to: result.0)
                greenlet.link(to: result.0)
                greenlet.link(to: result.1)
            }
            try sleep()
            try killed.kill()
            _ = try hub.join()
            for result in [results[0].0, results[0].1] { try #expect(result.get() == 1) }
            for result in [results[1].0, results[1].1] {
                #expect(throws: Boom.self) { try result.get() }
                #expect(!result.isSuccessful && result.error is Boom && result.exit == nil)
            }
            for result in [results[2].0, results[2].1] {
                #expect(throws: GreenletExit.self) { try result.get() }
                #expect(result.isSuccessful && result.error == nil && result.exit is GreenletExit)
                try #expect(result.wait() == nil)
            }
            for greenlet in greenlets {
                let late = AsyncResult<Int>()
                greenlet.link(to: late)
                #expect(!late.isReady)
                _ = try late.wait()
                #expect(late.value == greenlet.value && (late.error == nil) == (greenlet.error == nil))
                #expect((late.exit == nil) == (greenlet.exit == nil))
            }
        }
    }

    @Test("A link to a result can be cancelled")
    func unlinkResult() throws {
        try withHub { _ in
            let greenlet = spawn { 1 }
            let result = AsyncResult<Int>()
            greenlet.link(to: result).cancel()
            try greenlet.join()
            try sleep()
            #expect(!result.isReady)
        }
    }

    @Test("Setting a result in a hub callback works; getting one there throws blockedInHub unless it is ready")
    func inHub() throws {
        try withHub { hub in
            let result = AsyncResult<Int>()
            hub.runCallback {
                #expect(hubErrorCode { _ = try result.get() } == .blockedInHub)
                result.set(3)
                try #expect(result.get() == 3)
            }
            try #expect(result.get() == 3)
        }
    }

    @Test("wouldBlockForever names the result; use on another thread throws wrongThread")
    func misuse() throws {
        try withHub { _ in
            let result = AsyncResult<Int>()
            let error = #expect(throws: HubError.self) { try result.get() }
            #expect(error?.code == .wouldBlockForever)
            #expect(error?.message.contains("a wait for <AsyncResult unset, 1 waiting>") == true)
            let smuggled = Smuggled(result)
            try onFreshThread {
                #expect(hubErrorCode { _ = try smuggled.value.get() } == .wrongThread)
                #expect(hubErrorCode { _ = try smuggled.value.getNowait() } == .wrongThread)
                #expect(hubErrorCode { _ = try smuggled.value.wait() } == .wrongThread)
            }
            result.set(1)
            #expect(result.description == "<AsyncResult value>")
            result.setError(Boom())
            #expect(result.description == "<AsyncResult error: Boom>")
            result.setError(GreenletExit())
            #expect(result.description == "<AsyncResult exit>")
        }
    }

    @Test("A result is released with its last reference, including its value; waiting and linking make no cycle")
    func life() throws {
        try withHub { hub in
            weak var seen: AsyncResult<Witness>?
            weak var inside: Witness?
            do {
                let result = AsyncResult<Witness>()
                seen = result
                let waiters = (0..<3).map { _ in spawn { _ = try result.get(timeout: .seconds(1)) } }
                let source = spawn {
                    try sleep()
                    return Witness()
                }
                source.link(to: result)
                try waiters[0].kill()
                try joinAll(waiters)
                inside = result.value
                #expect(inside != nil)
                try source.join()
                let never = spawn { Witness() }
                never.link(to: result)
                try never.kill()
            }
            _ = try hub.join()
            #expect(seen == nil && inside == nil)
        }
    }
}

@Suite("Waiter")
struct WaiterTests {
    @Test("A value or an error set before get is kept until clear")
    func keeps() throws {
        try withHub { hub in
            let waiter = Waiter<Int>()
            #expect(!waiter.isReady && waiter.description == "<Waiter empty>")
            waiter.resume(returning: 1)
            #expect(waiter.isReady && waiter.description == "<Waiter ready>")
            let before = hub.statistics.switchCount
            try #expect(waiter.get() == 1)
            try #expect(waiter.get() == 1)
            #expect(hub.statistics.switchCount == before)
            waiter.clear()
            waiter.resume(throwing: Boom())
            #expect(throws: Boom.self) { try waiter.get() }
            waiter.clear()
            #expect(!waiter.isReady)
            #expect(hubErrorCode { _ = try waiter.get() } == .wouldBlockForever)
            waiter.resume(with: .success(2))
            try #expect(waiter.get() == 2)
        }
    }

    @Test("A parked getter resumes with the value, from a greenlet or a hub callback")
    func wakes() throws {
        let log = try logged { log, hub in
            let waiter = Waiter<Int>()
            let getter = spawn { log.outcome("get") { try waiter.get() } }
            try sleep()
            #expect(waiter.description == "<Waiter empty, 1 waiting>")
            waiter.resume(returning: 1)
            try getter.join()
            waiter.clear()
            hub.runCallback { waiter.resume(throwing: Boom()) }
            log.outcome("get") { try waiter.get() }
        }
        #expect(log == ["get: 1", "get: threw Boom"])
    }

    @Test("A second concurrent getter is refused; a later one may try again")
    func secondGetter() throws {
        try withHub { _ in
            let waiter = Waiter<Int>()
            let first = spawn { try waiter.get() }
            try sleep()
            #expect(hubErrorCode { _ = try waiter.get() } == .concurrentUse)
            try first.kill()
            let second = spawn { try waiter.get() }
            try sleep()
            waiter.resume(returning: 5)
            try #expect(second.get() == 5)
        }
    }

    @Test("A killed or timed out getter leaves nothing behind, and a later value is kept for the next getter")
    func interrupted() throws {
        let log = try logged { log, hub in
            let waiter = Waiter<Int>()
            let getter = spawn {
                log.outcome("killed") { try waiter.get() }
                try sleep(for: .seconds(1))
                log.note("slept until \(hub.now.nanoseconds / 1_000_000_000)")
            }
            try sleep()
            getter.deliver(Boom("kill"))
            // The wait has ended, although the getter has not run yet: this must not end another wait.
            waiter.resume(returning: 4)
            try getter.join()
            log.outcome("next") { try waiter.get() }
            waiter.clear()
            log.note("\(try withSilentTimeout(.seconds(1)) { try waiter.get() } as Int?)")
            waiter.resume(returning: 6)
            log.outcome("next") { try waiter.get() }
        }
        #expect(log == ["killed: threw kill", "slept until 1", "next: 4", "nil", "next: 6"])
    }

    @Test("A getter killed after it received a value has it, and is killed at its next park")
    func givenThenKilled() throws {
        let log = try logged { log, _ in
            let waiter = Waiter<Int>()
            let getter = spawn {
                log.outcome("get") { try waiter.get() }
                log.outcome("sleep") { try sleep() }
            }
            try sleep()
            waiter.resume(returning: 1)
            try getter.kill()
        }
        #expect(log == ["get: 1", "sleep: threw GreenletExit"])
    }

    @Test("wouldBlockForever names it; use on another thread, and in the hub, throws")
    func misuse() throws {
        try withHub { hub in
            let waiter = Waiter<Int>()
            let error = #expect(throws: HubError.self) { try waiter.get() }
            #expect(error?.message.contains("get of <Waiter empty, 1 waiting>") == true)
            hub.runCallback { #expect(hubErrorCode { _ = try waiter.get() } == .blockedInHub) }
            try sleep()
            let smuggled = Smuggled(waiter)
            try onFreshThread { #expect(hubErrorCode { _ = try smuggled.value.get() } == .wrongThread) }
        }
    }

    @Test("A waiter is released with its last reference, including its value")
    func life() throws {
        try withHub { _ in
            weak var seen: Waiter<Witness>?
            weak var inside: Witness?
            do {
                let waiter = Waiter<Witness>()
                seen = waiter
                let getter = spawn { _ = try waiter.get() }
                try sleep()
                try getter.kill()
                let witness = Witness()
                inside = witness
                waiter.resume(returning: witness)
            }
            #expect(seen == nil && inside == nil)
        }
    }
}
