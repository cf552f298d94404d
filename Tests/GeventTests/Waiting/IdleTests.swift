import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Idle, and unreferenced sleeps")
struct IdleTests {
    @Test("idle returns when nothing else is runnable", arguments: bothLoops)
    func afterAll(loop: TestLoop) throws {
        let entries = try logged(on: loop) { log, hub in
            for name in ["A", "B"] {
                spawn {
                    for round in 1...3 {
                        log.note("\(name)\(round)")
                        try sleep()
                    }
                }
            }
            hub.runCallback { log.note("callback") }
            try idle()
            log.note("idle")
        }
        #expect(entries == ["A1", "B1", "callback", "A2", "B2", "A3", "B3", "idle"])
    }

    @Test("Ready descriptors and due timers run before idle waiters", arguments: bothLoops)
    func afterEvents(loop: TestLoop) throws {
        let entries = try logged(on: loop) { log, hub in
            let pipe = try Pipe()
            spawn {
                try waitRead(pipe.readEnd)
                log.note("readable")
            }
            let duration = Duration.milliseconds(loop.testDescription == "virtual" ? 0 : 1)
            Timeout.startNew(duration, throwing: Boom())
            try sleep()
            pipe.write()
            let start = hub.now
            while start.duration(to: hub.now) < duration {}
            do {
                try idle()
            } catch is Boom {
                log.note("due")
            }
            try idle()
            log.note("idle")
        }
        #expect(Set(entries.prefix(2)) == ["readable", "due"] && entries.last == "idle" && entries.count == 3)
    }

    @Test("idle with no other work returns, and does not wait for later timers", arguments: bothLoops)
    func alone(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            for _ in 0..<10 { try idle() }
            let sleeping = spawn { try sleep(for: .seconds(3600)) }
            try sleep()
            let start = hub.now
            for _ in 0..<10 { try idle() }
            #expect(start.duration(to: hub.now) < .seconds(1800))
            try sleeping.kill()
        }
    }

    @Test("Idle waiters are resumed one at a time, in order")
    func several() throws {
        let entries = try logged { log, hub in
            let greenlets = ["A", "B"].map { name in
                spawn {
                    for round in 1...2 {
                        try idle()
                        log.note("\(name)\(round)")
                        // The work of one runs before the next idle waiter resumes.
                        spawn { log.note("work of \(name)\(round)") }
                    }
                }
            }
            try joinAll(greenlets)
        }
        #expect(
            entries == [
                "A1", "work of A1", "B1", "work of B1", "A2", "work of A2", "B2", "work of B2",
            ])
    }

    @Test("While a hub callback requeues itself, timers and descriptors are served, and idle waits")
    func endlessCallback() throws {
        let entries = try logged(on: .configured) { log, hub in
            var goesOn = true
            func again() { if goesOn { hub.runCallback(again) } }
            again()
            let pipe = try Pipe()
            let reader = spawn {
                try waitRead(pipe.readEnd)
                log.note("readable")
            }
            let waiting = spawn {
                try idle()
                log.note("idle")
            }
            try sleep(for: .milliseconds(2))
            log.note("timer")
            pipe.write()
            try reader.join()
            #expect(waiting.isActive)
            goesOn = false
            try waiting.join()
        }
        #expect(entries == ["timer", "readable", "idle"])
    }

    @Test("idle can be killed and timed out, and leaves nothing behind")
    func interrupted() throws {
        try withHub(on: .configured) { hub in
            var goesOn = true
            func again() { if goesOn { hub.runCallback(again) } }
            again()
            let waiting = spawn { try idle() }
            try sleep()
            try waiting.kill()
            #expect(waiting.exit != nil)
            #expect(try withSilentTimeout(.milliseconds(1)) { try idle() } == nil)
            goesOn = false
            try idle()
            hub.runCallback { #expect(hubErrorCode { try idle() } == .blockedInHub) }
            try sleep()
        }
    }

    @Test("A post from another thread runs before idle waiters")
    func posts() throws {
        try withHub(on: .configured) { hub in
            var posted = false
            let set = Smuggled({ posted = true })
            let handle = hub.handle
            try onFreshThread { _ = handle.post { set.value() } }
            try idle()
            #expect(posted)
        }
    }

    @Test("An unreferenced sleep blocks forever if it is the only work", arguments: bothLoops)
    func unreferenced(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            #expect(hubErrorCode { try sleep(for: .milliseconds(1), referenced: false) } == .wouldBlockForever)
            #expect(hub.statistics.pendingTimers == 0)
            let sleeping = spawn { try sleep(for: .seconds(3600), referenced: false) }
            #expect(try hub.join())
            #expect(sleeping.isActive)
            try sleeping.kill()
            // Next to referenced work it behaves like any sleep.
            let short = spawn { try sleep(for: .milliseconds(1), referenced: false) }
            try sleep(for: .milliseconds(20))
            #expect(short.isSuccessful)
            try sleep(for: .milliseconds(1), referenced: true)
            try sleep(for: .seconds(-1), referenced: false)
        }
    }
}
