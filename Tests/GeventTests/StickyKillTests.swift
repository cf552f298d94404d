import CGevent
import GeventTesting
import Testing

@testable import Gevent

@Suite("Sticky kills")
struct StickyKillTests {
    @Test("A sticky error is raised again at every later park, until the body ends")
    func everyPark() throws {
        let log = try logged { log, hub in
            let victim = spawn {
                for number in 0..<4 { log.outcome("\(number)") { try sleep(for: .seconds(1)) } }
                log.note("runs on")
            }
            try sleep()
            try victim.kill(sticky: true)
            log.note("\(victim.isSuccessful) \(victim.isDead)")
            log.outcome("the killer") { try sleep() }
        }
        #expect(
            log == [
                "0: threw GreenletExit", "1: threw GreenletExit", "2: threw GreenletExit", "3: threw GreenletExit",
                "runs on", "true true", "the killer: returned",
            ])
    }

    @Test("Every kind of wait throws a sticky error at once, and leaves nothing behind")
    func everyWait() throws {
        let log = try logged { log, hub in
            let pipe = try Pipe()
            let other = spawn { try sleep(for: .seconds(5)) }
            let unstarted = RawGreenlet {}
            let victim = spawn {
                log.outcome("first") { try sleep(for: .seconds(1)) }
                log.outcome("yield") { try sleep() }
                log.outcome("sleep") { try sleep(for: .seconds(1)) }
                log.outcome("join") { try other.join() }
                log.outcome("join with timeout") { try other.join(timeout: .seconds(1)) }
                log.outcome("get") { try other.get() }
                log.outcome("joinAll") { _ = try joinAll([other]) }
                log.outcome("kill") { try other.kill() }
                log.outcome("killAll") { try killAll([other]) }
                log.outcome("waitRead") { try waitRead(pipe.readEnd) }
                log.outcome("withTimeout") { try withTimeout(.seconds(1)) { _ in try sleep() } }
                log.outcome("withSilentTimeout") { _ = try withSilentTimeout(.seconds(1)) { try sleep() } }
                log.outcome("withGroup") {
                    try withGroup { group in _ = group.spawn { try sleep(for: .seconds(1)) } }
                }
                log.outcome("withGreenlet") { try withGreenlet(spawn { try sleep(for: .seconds(1)) }) { _ in } }
                log.outcome("switchTo") { try unstarted.switchTo() }
            }
            try sleep()
            try victim.kill(throwing: OwnExit(), sticky: true)
            _ = try hub.join()
        }
        let names = [
            "first", "yield", "sleep", "join", "join with timeout", "get", "joinAll", "kill", "killAll", "waitRead",
            "withTimeout", "withSilentTimeout", "withGroup", "withGreenlet", "switchTo",
        ]
        #expect(log == names.map { "\($0): threw OwnExit" })
    }

    @Test("What needs no wait still works under a sticky error")
    func withoutWaiting() throws {
        let log = try logged { log, hub in
            let over = spawn { 3 }
            let victim = spawn {
                log.outcome("sleep") { try sleep(for: .seconds(1)) }
                log.outcome("get") { try over.get() }
                log.outcome("empty group") { try withGroup { _ in 4 } }
                log.outcome("spawn") { spawn { log.note("spawned") }.isStarted }
            }
            try sleep()
            try victim.kill(sticky: true)
            _ = try hub.join()
        }
        #expect(log == ["sleep: threw GreenletExit", "get: 3", "empty group: 4", "spawn: true", "spawned"])
    }

    @Test("Sticky or not, a victim that has not run never runs; dead ones are left alone")
    func unstartedAndDead() throws {
        try withHub { _ in
            let unstarted = Greenlet { 1 }
            try unstarted.kill(sticky: true)
            #expect(unstarted.isDead && unstarted.exit is GreenletExit)
            let scheduled = spawn { 1 }
            try kill(scheduled, sticky: true)
            #expect(scheduled.isDead)
            let dead = spawn { 1 }
            try dead.join()
            try dead.kill(sticky: true)
            #expect(dead.value == 1)
        }
    }

    @Test("A victim that was woken already takes what it was woken for")
    func wokenVictim() throws {
        let log = try logged { log, hub in
            let joined = Greenlet { 1 }
            let victim = spawn {
                log.outcome("get") { try joined.get() }
                log.outcome("sleep") { try sleep() }
                log.outcome("sleep") { try sleep() }
            }
            try sleep()
            joined.start()
            // Main comes between the end of the joined one and the victim.
            try sleep()
            try victim.kill(blocking: false, sticky: true)
            _ = try hub.join()
        }
        #expect(log == ["get: 1", "sleep: threw GreenletExit", "sleep: threw GreenletExit"])
    }

    @Test("What was thrown before comes first; kills and timeouts that come later are never raised")
    func otherErrors() throws {
        let log = try logged { log, hub in
            let victim = spawn {
                for number in 0..<4 { log.outcome("\(number)") { try sleep(for: .seconds(5)) } }
            }
            try sleep()
            try kill(victim, throwing: Boom("earlier"))
            try kill(victim, throwing: OwnExit(), sticky: true)
            try kill(victim, throwing: Boom("later kill"))
            try kill(victim, throwing: Boom("later sticky kill"), sticky: true)
            try kill(victim)
            try victim.join()
        }
        #expect(log == ["0: threw earlier"] + (1..<4).map { "\($0): threw OwnExit" })
    }

    @Test("A Timeout that fires after a sticky error is never raised, and can be started again")
    func timeoutUnderSticky() throws {
        let log = try logged { log, hub in
            // Few handovers between two looks at the timers.
            hub.switchInterval = .zero
            let timeout = Timeout(.zero, throwing: Boom("timeout"))
            let victim = spawn {
                timeout.start()
                for number in 0..<3 { log.outcome("\(number)") { try sleep(for: .seconds(5)) } }
            }
            try sleep()
            // The victim is ready behind these, so the hub looks at its timers first.
            for _ in 0..<10 { spawn { log.note("pending \(timeout.isPending)") } }
            try kill(victim, sticky: true)
            try victim.join()
            timeout.start()
            log.outcome("main") { try sleep(for: .seconds(1)) }
        }
        #expect(log.contains("pending true") && log.contains("pending false"))
        #expect(
            log.filter { !$0.hasPrefix("pending") }
                == (0..<3).map { "\($0): threw GreenletExit" } + ["main: threw timeout"])
    }

    @Test("A sticky exit takes the place of a plain one that was not raised yet")
    func upgrade() throws {
        let log = try logged { log, hub in
            let victim = spawn {
                log.outcome("0") { try sleep(for: .seconds(1)) }
                log.outcome("1") { try sleep(for: .seconds(1)) }
            }
            try sleep()
            try kill(victim, throwing: GreenletExit())
            try kill(victim, throwing: OwnExit(), sticky: true)
            try victim.join()
        }
        #expect(log == ["0: threw OwnExit", "1: threw OwnExit"])
    }

    @Test("A sticky self-kill unwinds on the spot and stays")
    func selfKill() throws {
        let log = try logged { log, hub in
            var own: Greenlet<Void>?
            own = spawn {
                log.outcome("kill") { try own!.kill(sticky: true) }
                log.outcome("sleep") { try sleep() }
                log.outcome("non-blocking") { try own!.kill(blocking: false, sticky: true) }
                log.outcome("sleep") { try sleep() }
            }
            try own!.join()
            own = nil
        }
        #expect(
            log == [
                "kill: threw GreenletExit", "sleep: threw GreenletExit", "non-blocking: returned",
                "sleep: threw GreenletExit",
            ])
    }

    @Test("Raw greenlets, main and the members of killAll are killed stickily too")
    func everyVictim() throws {
        let log = try logged { log, hub in
            func stubborn(_ name: String) -> () -> Void {
                return { for number in 0..<2 { log.outcome("\(name) \(number)") { try sleep(for: .seconds(1)) } } }
            }
            let raw = spawnRaw(stubborn("raw"))
            let freely = spawnRaw(stubborn("freely"))
            let members = [spawn(stubborn("a")), spawn(stubborn("b"))]
            try sleep()
            try raw.kill(sticky: true)
            try kill(freely, sticky: true)
            try killAll(members, sticky: true)
            try kill(.current, throwing: OwnExit(), sticky: true)
            stubborn("main")()
            // Main has no end to wait for.
            AnyGreenlet.current.dropPendingErrors()
            log.outcome("main") { try sleep() }
        }
        #expect(
            log == ["raw", "freely", "a", "b"].flatMap { name in
                (0..<2).map { "\(name) \($0): threw GreenletExit" }
            } + ["main 0: threw OwnExit", "main 1: threw OwnExit", "main: returned"])
    }

    @Test("destroy() ends greenlets with a sticky error like others, and main's own goes with the hub")
    func destroy() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            let victim = spawn {
                for number in 0..<3 { log.outcome("\(number)") { try sleep(for: .seconds(1)) } }
            }
            try sleep()
            try kill(victim, throwing: OwnExit(), sticky: true)
            try kill(.current, sticky: true)
            try hub.destroy()
            log.note("\(victim.isDead)")
            try sleep()
            return log.entries
        }
        #expect(log == ["0: threw OwnExit", "1: threw OwnExit", "2: threw OwnExit", "true"])
    }

    @Test("The way in which yields are cheap is taken again once the victim is over")
    func attentionIsOver() throws {
        try withHub { hub in
            let before = hub.pointer.pointee.attention_count
            for ending in 0..<3 {
                let victim = spawn {
                    for _ in 0..<3 { try? sleep(for: .seconds(1)) }
                    if ending == 1 { throw GreenletExit() }
                }
                try sleep()
                try victim.kill(sticky: true)
                try sleep()
                #expect(hub.pointer.pointee.attention_count == before)
            }
        }
    }
}
