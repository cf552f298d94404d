import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Event")
struct EventTests {
    @Test("Waiters wake in the order in which they came, when the setter parks and not before")
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

    @Test("set and clear without a switch wake all who waited, each with true, and nobody who comes later")
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
            // Due at once; fires when the hub next looks at its timers, which it does before it polls.
            let timer = spawn(after: .zero) { log.note("timer") }
            event.set()
            try event.wait()
            log.note("3")
            // Nobody is on the way any more, so this does not let anybody go first.
            let before = hub.statistics.switchCount
            try event.wait()
            #expect(hub.statistics.switchCount == before)
            try joinAll(waiters + [timer])
        }
        #expect(log == ["1", "2", "3", "timer"])
    }

    @Test("What is set while the wait goes on, by a waiter it has woken, wakes those who came meanwhile")
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

    @Test("wait(timeout:) gives false when the time is up; a foreign Timeout passes through", arguments: bothLoops)
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

    @Test("A timeout of zero only looks, without a switch")
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

    @Test("set and then kill: the waiter wakes normally, and is killed where it parks next")
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

    @Test("Kill and then set: the waiter is killed, and no link stays behind")
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

    @Test("With all greenlets parked forever on an event, main throws wouldBlockForever and the hub stays usable")
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

    @Test("Waiting in a hub callback is blockedInHub, but for an event that is set; setting one there works")
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

    @Test("A raw link is called once, on the hub, never inside rawLink, in the order of registration")
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

    @Test("An unlinked callback is not called, also when an earlier one unlinks it; unlinking twice is fine")
    func unlink() throws {
        let log = try logged { log, hub in
            let (event, other) = (Event(), Event())
            var later: WaitLink?
            let first = event.rawLink { event.unlink(later!) }
            let gone = event.rawLink { log.note("gone") }
            later = event.rawLink { log.note("later") }
            event.rawLink { throw Boom() }
            event.rawLink { try sleep() }
            event.rawLink { log.note("last") }
            event.unlink(gone)
            event.unlink(gone)
            other.unlink(first)
            #expect(event.linkCount == 5 && first.isPending && !gone.isPending)
            event.set()
            _ = try hub.join()
            event.unlink(first)
            let queued = event.rawLink { log.note("queued") }
            event.unlink(queued)
            _ = try hub.join()
        }
        let refusal = log.dropFirst().first ?? ""
        #expect(log.count == 3 && log[0] == "reported Boom of nobody" && log[2] == "last")
        #expect(refusal.hasPrefix("reported blockedInHub"))
    }

    @Test("Used from another thread than the first one, it is wrongThread")
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
        #expect(text(result.standardErrorContent).contains("wrongThread: a greenlet and what it waits for"))
    }

    @Test("An event goes with its last reference, and so does what its links captured; waiting makes no cycle")
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

    @Test("Waiting allocates nothing that stays: a million waits on one event leave the hub as it was")
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

    @Test("Its description counts those who wait no further than somebody would read")
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

    @Test("An event survives its hub, and can then only be let go")
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
