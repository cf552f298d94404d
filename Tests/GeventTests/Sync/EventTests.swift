import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Event")
struct EventTests {
    @Test("Waiters are resumed in the order in which they began to wait, and not before the setter parks")
    func order() throws {
        let log = try logged { log, _ in
            let event = Event()
            let waiters = (0..<5).map { number in spawn { log.note("\(number): \(try event.wait())") } }
            try sleep()
            event.set()
            log.note("set")
            try joinAll(waiters)
            log.note("\(event.isSet) \(event.linkCount)")
        }
        #expect(log == ["set", "0: true", "1: true", "2: true", "3: true", "4: true", "true 0"])
    }

    @Test("set and clear without a switch resume all waiters with true, and no later waiter")
    func setAndClear() throws {
        let log = try logged { log, hub in
            let event = Event()
            let waiters = (0..<1000).map { _ in spawn { try event.wait(timeout: .seconds(9)) } }
            try sleep()
            event.set()
            event.clear()
            let late = spawn { log.note("late: \(try event.wait(timeout: .seconds(1)))") }
            log.note("\(try waiters.filter { try $0.get() }.count) at \(hub.now.nanoseconds)")
            try late.join()
            log.note("\(hub.now.nanoseconds)")
        }
        #expect(log == ["1000 at 0", "late: false", "1000000000"])
    }

    @Test("A wait() made during notification returns after the earlier waiters, without a poll in between")
    func waitDuringNotification() throws {
        let log = try logged { log, hub in
            let event = Event()
            let waiters = (1...2).map { number in
                spawn {
                    try event.wait()
                    log.note("\(number)")
                }
            }
            try sleep()
            // Due at once; fires when the hub next checks its timers, before it polls.
            let timer = spawn(after: .zero) { log.note("timer") }
            event.set()
            try event.wait()
            log.note("3")
            // No resumed waiter is pending now, so this wait yields to none.
            let before = hub.statistics.switchCount
            try event.wait()
            #expect(hub.statistics.switchCount == before)
            try joinAll(waiters + [timer])
        }
        #expect(log == ["1", "2", "3", "timer"])
    }

    @Test("A set by a resumed waiter wakes greenlets that began to wait meanwhile")
    func setByWaiter() throws {
        let log = try logged { log, _ in
            let event = Event()
            let first = spawn {
                try event.wait()
                event.clear()
                log.note("first")
                try event.wait()
                log.note("first again")
            }
            try sleep()
            event.set()
            try sleep()
            log.note("\(event)")
            event.set()
            try first.join()
        }
        #expect(log == ["first", "<Event clear, 1 waiting>", "first again"])
    }

    @Test("wait(timeout:) returns false on expiry; a foreign Timeout passes through", arguments: bothLoops)
    func timeouts(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let event = Event()
            log.outcome("own") { try event.wait(timeout: .milliseconds(1)) }
            log.note("foreign: \(letsForeignTimeoutPass { try event.wait() })")
            log.note("foreign: \(letsForeignTimeoutPass { try event.wait(timeout: .seconds(60)) })")
            #expect(event.linkCount == 0 && hub.statistics.pendingTimers == 0)
        }
        #expect(log == ["own: false", "foreign: true", "foreign: true"])
    }

    @Test("A timeout of zero checks the event without a switch")
    func zeroTimeout() throws {
        try withHub { hub in
            let event = Event()
            let before = hub.statistics.switchCount
            try #expect(!event.wait(timeout: .zero))
            try #expect(!event.wait(timeout: .seconds(-1)))
            event.set()
            try #expect(event.wait(timeout: .zero))
            #expect(hub.statistics.switchCount == before)
        }
    }

    @Test("set, then kill: the wait succeeds, and the kill is raised at the next park")
    func setThenKill() throws {
        let log = try logged { log, _ in
            let event = Event()
            let waiter = spawn {
                log.outcome("wait") { try event.wait() }
                log.outcome("sleep") { try sleep() }
            }
            try sleep()
            event.set()
            try waiter.kill()
            log.note("\(event.linkCount)")
        }
        #expect(log == ["wait: true", "sleep: threw GreenletExit", "0"])
    }

    @Test("kill, then set: the waiter is killed, and no link remains")
    func killThenSet() throws {
        let log = try logged { log, _ in
            let event = Event()
            let waiter = spawn { log.outcome("wait") { try event.wait() } }
            try sleep()
            try waiter.kill(blocking: false)
            log.note("\(event.linkCount)")
            event.set()
            try waiter.join()
        }
        #expect(log == ["0", "wait: threw GreenletExit"])
    }

    @Test("With all greenlets parked forever on an event, main throws wouldBlockForever and the hub remains usable")
    func blocksForever() throws {
        try withHub { _ in
            let event = Event()
            let waiter = spawn { try event.wait() }
            let error = #expect(throws: HubError.self) { try event.wait() }
            #expect(error?.code == .wouldBlockForever)
            #expect(error?.message.contains("<MainGreenlet> parked for 0 s in a wait for <Event clear") == true)
            #expect(hubErrorCode { try waiter.join() } == .wouldBlockForever)
            event.set()
            try #expect(waiter.get())
        }
    }

    @Test("In a hub callback, waiting throws blockedInHub unless the event is set; setting an event works")
    func inHub() throws {
        let log = try logged { log, hub in
            let event = Event()
            hub.runCallback {
                #expect(hubErrorCode { try event.wait() } == .blockedInHub)
                #expect(hubErrorCode { try event.wait(timeout: .seconds(1)) } == .blockedInHub)
                try #expect(!event.wait(timeout: .zero))
                event.set()
                try #expect(event.wait())
            }
            log.note("\(try event.wait())")
        }
        #expect(log == ["true"])
    }

    @Test("A raw link is called once, on the hub, never inside rawLink, in order of registration")
    func rawLinks() throws {
        let log = try logged { log, hub in
            let event = Event()
            for number in 0..<3 { event.rawLink { log.note("\(number) \(AnyGreenlet.current.description)") } }
            let waiter = spawn {
                try event.wait()
                log.note("waiter")
            }
            try sleep()
            event.rawLink { log.note("3") }
            #expect(event.linkCount == 5)
            event.set()
            log.note("set \(event.linkCount)")
            try waiter.join()
            _ = try hub.join()
            event.rawLink { log.note("late") }
            log.note("linked")
            _ = try hub.join()
            event.clear()
            event.set()
            _ = try hub.join()
        }
        #expect(
            log == [
                "set 0", "0 <HubGreenlet>", "1 <HubGreenlet>", "2 <HubGreenlet>", "waiter", "3", "linked", "late",
            ])
    }

    @Test("A cancelled callback is not called, even when an earlier callback cancels it; cancelling twice is harmless")
    func unlink() throws {
        let log = try logged { log, hub in
            let event = Event()
            var later: Registration?
            let first = event.rawLink { later!.cancel() }
            let cancelled = event.rawLink { log.note("cancelled") }
            later = event.rawLink { log.note("later") }
            event.rawLink { throw Boom() }
            event.rawLink { try sleep() }
            event.rawLink { log.note("last") }
            cancelled.cancel()
            cancelled.cancel()
            #expect(event.linkCount == 5 && first.isActive && !cancelled.isActive)
            event.set()
            _ = try hub.join()
            first.cancel()
            let queued = event.rawLink { log.note("queued") }
            queued.cancel()
            _ = try hub.join()
        }
        let refusal = log.dropFirst().first ?? ""
        #expect(log.count == 3 && log[0] == "reported Boom of no greenlet" && log[2] == "last")
        #expect(refusal.hasPrefix("reported blockedInHub"))
    }

    @Test("Use on a thread other than the first throws wrongThread")
    func wrongThread() throws {
        try withHub { _ in
            let event = Event()
            event.set()
            let smuggled = Smuggled(event)
            for hasHub in [false, true] {
                try onFreshThread {
                    if hasHub { try sleep() }
                    #expect(hubErrorCode { try smuggled.value.wait() } == .wrongThread)
                    #expect(hubErrorCode { try smuggled.value.wait(timeout: .zero) } == .wrongThread)
                    #expect(hubErrorCode { _ = try wait([smuggled.value]) } == .wrongThread)
                }
            }
            try event.wait()
        }
    }

    @Test("set() on another thread stops the program with a message that says so")
    func setElsewhere() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            let event = Smuggled(Event())
            try withHub { _ in
                event.value.clear()
                try onFreshThread { event.value.set() }
            }
        }
        #expect(text(result.standardErrorContent).contains("wrongThread: a greenlet and the objects it waits for"))
    }

    @Test("An event is released with its last reference, and so are captures of its links; waiting makes no cycle")
    func life() throws {
        try withHub { hub in
            weak var seen: Event?
            weak var captured: Witness?
            do {
                let event = Event()
                let witness = Witness()
                (seen, captured) = (event, witness)
                event.rawLink { withExtendedLifetime(witness) {} }
                let waiter = spawn { try event.wait(timeout: .seconds(1)) }
                try waiter.join()
                let killed = spawn { try event.wait() }
                try sleep()
                try killed.kill()
            }
            #expect(seen == nil && captured == nil)
            do {
                let event = Event()
                seen = event
                let witness = Witness()
                captured = witness
                event.rawLink { withExtendedLifetime((witness, event)) {} }
                event.set()
            }
            _ = try hub.join()
            #expect(seen == nil && captured == nil)
        }
    }

    @Test("Waiting leaks no memory: a million waits on one event leave the hub unchanged")
    func steadyState() throws {
        try withHub { hub in
            let (ping, pong) = (Event(), Event())
            let partner = spawn {
                for _ in 0..<10_000 {
                    try ping.wait()
                    ping.clear()
                    pong.set()
                }
            }
            for _ in 0..<10_000 {
                ping.set()
                try pong.wait()
                pong.clear()
            }
            try partner.join()
            #expect(ping.linkCount == 0 && pong.linkCount == 0 && hub.statistics.pendingTimers == 0)
        }
    }

    @Test("The description counts waiters only up to a readable limit")
    func longLine() throws {
        try withHub { _ in
            let event = Event()
            let waiters = (0..<150).map { _ in spawn { try event.wait() } }
            try sleep()
            #expect("\(event)" == "<Event clear, 100 or more waiting>" && event.linkCount == 150)
            event.set()
            try joinAll(waiters)
            #expect("\(event)" == "<Event set>")
        }
    }

    @Test("An event may outlive its hub, and can then only be released")
    func outlivesHub() throws {
        let event = Smuggled(Event())
        try withHub(allowingLeftovers: true) { _ in
            spawn { try event.value.wait() }
            try sleep()
            #expect(event.value.linkCount == 1)
        }
        #expect(event.value.linkCount == 0)
        #expect(hubErrorCode { try event.value.wait() } == .destroyed)
    }
}
