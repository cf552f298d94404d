import Gevent
import GeventTesting
import Testing

@Suite("Kill")
struct KillTests {
    @Test(
        "kill() of a parked greenlet makes its parking call throw GreenletExit, and returns once it is dead",
        arguments: bothLoops)
    func killParked(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let pipe = try Pipe()
            let never = Greenlet {}
            let parks: [(String, () throws -> Void)] = [
                ("sleep", { try sleep(for: .seconds(1000)) }), ("join", { try never.join() }),
                ("join(timeout:)", { try never.join(timeout: .seconds(1000)) }),
                ("get", { try never.get() }), ("joinAll", { try joinAll([never]) }),
                ("waitRead", { try waitRead(pipe.readEnd) }),
            ]
            for (name, park) in parks {
                let victim = spawn { log.outcome(name, of: park) }
                try sleep()
                try victim.kill()
                log.note("\(victim.isDead)")
            }
        }
        #expect(
            log
                == ["sleep", "join", "join(timeout:)", "get", "joinAll", "waitRead"].flatMap {
                    ["\($0): threw GreenletExit", "true"]
                })
    }

    @Test(
        "kill() right after spawn: the body never runs, links run, it is ready and successful, and get() throws its exit"
    )
    func killRightAfterSpawn() throws {
        let log = try logged { log, hub in
            let kinds: [(String, () -> Greenlet<Void>)] = [
                ("made", { Greenlet { log.note("body") } }), ("spawned", { spawn { log.note("body") } }),
                ("delayed", { spawn(after: .seconds(1)) { log.note("body") } }),
            ]
            for (name, make) in kinds {
                let greenlet = make()
                greenlet.link { _ in log.note("\(name) link") }
                greenlet.rawLink { _ in log.note("\(name) raw link") }
                try greenlet.kill(throwing: OwnExit())
                #expect(greenlet.isReady && greenlet.isSuccessful && greenlet.isDead)
                #expect(greenlet.exit as? OwnExit == OwnExit())
                log.outcome(name) { try greenlet.get() }
                greenlet.start()
                _ = try hub.join()
            }
            log.note("\(hub.now.nanoseconds) \(hub.statistics.pendingTimers)")
        }
        #expect(
            log == ["made", "spawned", "delayed"].flatMap {
                ["\($0): threw OwnExit", "\($0) link", "\($0) raw link"]
            } + ["0 0"])
    }

    @Test("A greenlet killed between its wake-up from a start's delay and its first run never runs")
    func killAfterDelay() throws {
        let log = try logged { log, hub in
            let greenlet = spawn(after: .seconds(1)) { log.note("body") }
            // Same deadline, started earlier: when this one runs, the other has been woken.
            let killer = Greenlet { try greenlet.kill() }
            killer.start(after: .seconds(1))
            try sleep(for: .seconds(2))
            log.note("\(greenlet.isDead) \(killer.isSuccessful)")
        }
        // The first of the two to be started runs first, so the body runs here.
        #expect(log == ["body", "true true"])
        let reversed = try logged { log, hub in
            var greenlet: Greenlet<Void>?
            spawn(after: .seconds(1)) { try greenlet!.kill() }
            greenlet = spawn(after: .seconds(1)) { log.note("body") }
            try sleep(for: .seconds(2))
            log.note("\(greenlet!.isDead)")
            greenlet = nil
        }
        #expect(reversed == ["true"])
    }

    @Test("A second kill is harmless and leaves the outcome unchanged")
    func secondKill() throws {
        let log = try logged { log, _ in
            let parked = spawn { try sleep(for: .seconds(1)) }
            try sleep()
            let unstarted = spawn {}
            let finished = spawn {}
            try finished.join()
            for greenlet in [parked, unstarted, finished] {
                try greenlet.kill()
                try greenlet.kill(throwing: Boom())
                try Gevent.kill(greenlet, throwing: Boom())
                log.note("\(greenlet.isSuccessful) \(greenlet.exit.map { "\($0)" } ?? "no exit")")
            }
        }
        #expect(log == ["true GreenletExit", "true no exit", "true no exit"])
    }

    @Test("Two kills delivered before the victim has seen the first count as one")
    func twoKillsAreOne() throws {
        let log = try logged { log, _ in
            let victim = spawn {
                for round in 0..<2 { log.outcome("\(round)") { try sleep(for: .seconds(1)) } }
            }
            try sleep()
            try victim.kill(blocking: false)
            try victim.kill(blocking: false)
            try Gevent.kill(victim, throwing: OwnExit())
            try victim.join()
        }
        #expect(log == ["0: threw GreenletExit", "1: returned"])
    }

    @Test("Killed with an error that is not an exit: not successful, get() throws it, no value")
    func killWithError() throws {
        let log = try logged { log, hub in
            let error = BoomObject()
            let parked = spawn { () throws -> Int in
                try sleep(for: .seconds(1))
                return 1
            }
            try sleep()
            for (name, greenlet) in [("parked", parked), ("unstarted", Greenlet { 1 })] {
                greenlet.name = name
                try greenlet.kill(throwing: error)
                #expect(greenlet.isReady && !greenlet.isSuccessful && greenlet.value == nil && greenlet.exit == nil)
                #expect(greenlet.error as? BoomObject === error)
                let thrown = #expect(throws: BoomObject.self) { try greenlet.get() }
                #expect(thrown === error)
            }
            _ = try hub.join()
        }
        #expect(
            log == ["parked", "unstarted"].map { "reported GeventTests.BoomObject of <Greenlet<Int> \"\($0)\">" })
    }

    @Test("kill(blocking: false) takes effect only when the caller parks")
    func nonBlocking() throws {
        let log = try logged { log, _ in
            let victim = spawn { log.outcome("victim") { try sleep(for: .seconds(1)) } }
            try sleep()
            try victim.kill(blocking: false)
            log.note("\(victim.isActive)")
            try sleep()
            log.note("\(victim.isActive)")
            let other = spawn { log.outcome("other") { try sleep(for: .seconds(1)) } }
            try sleep()
            try Gevent.kill(other)
            log.note("\(other.isActive)")
            try sleep()
            log.note("\(other.isActive)")
        }
        #expect(
            log == [
                "true", "victim: threw GreenletExit", "false", "true", "other: threw GreenletExit", "false",
            ])
    }

    @Test("kill(timeout:) returns silently when the victim survives", arguments: bothLoops)
    func killTimeout(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let stubborn = spawn {
                do { try sleep(for: .seconds(1000)) } catch is GreenletExit {
                    log.note("caught")
                    try sleep(for: .milliseconds(20))
                }
                return "survived"
            }
            try sleep()
            try stubborn.kill(timeout: .milliseconds(1))
            log.note("\(stubborn.isActive)")
            log.outcome("get") { try stubborn.get() }
        }
        #expect(log == ["caught", "true", "get: survived"])
    }

    @Test("A blocking self-kill unwinds immediately; the code after it does not run")
    func selfKill() throws {
        let log = try logged { log, _ in
            var own: Greenlet<Void>?
            own = Greenlet {
                defer { log.note("deferred") }
                log.note("before")
                try own!.kill(throwing: OwnExit())
                log.note("after")
            }
            own!.start()
            try own!.join()
            log.note("\(own!.exit.map { "\($0)" } ?? "no exit")")
            own = nil
        }
        #expect(log == ["before", "deferred", "OwnExit"])
    }

    @Test("A non-blocking self-kill is raised at the next park, or never if the greenlet does not park")
    func nonBlockingSelfKill() throws {
        let log = try logged { log, _ in
            var own: Greenlet<Void>?
            own = Greenlet {
                try own!.kill(blocking: false)
                log.note("continues")
                log.outcome("sleep") { try sleep() }
                try Gevent.kill(own!)
                log.note("ends")
            }
            own!.start()
            try own!.join()
            log.note("\(own!.exit == nil)")
            own = nil
        }
        #expect(log == ["continues", "sleep: threw GreenletExit", "ends", "true"])
    }

    @Test("A victim that was already woken completes its wait; the kill is raised at its next park")
    func wokenThenKilled() throws {
        let log = try logged { log, _ in
            let source = spawn {
                try sleep()
                return 5
            }
            let victim = spawn {
                log.outcome("get") { try source.get() }
                log.outcome("next") { try sleep(for: .seconds(1)) }
            }
            // Queued after `source` and before the victim resumes, so the victim has been woken by then.
            let killer = spawn {
                try sleep()
                log.note("\(source.isReady)")
                try victim.kill()
            }
            try joinAll([victim, killer])
        }
        #expect(log == ["true", "get: 5", "next: threw GreenletExit"])
    }

    @Test("A victim killed before its wait completes stays killed, and no link remains")
    func killedThenWoken() throws {
        let log = try logged { log, hub in
            let source = spawn {
                try sleep(for: .seconds(1))
                return 5
            }
            let victim = spawn {
                log.outcome("get") { try source.get() }
                // A leftover link would end this wait when the source ends.
                try? sleep(for: .seconds(10))
                log.note("slept until \(hub.now.nanoseconds / 1_000_000_000)")
            }
            try sleep()
            try victim.kill(blocking: false)
            try joinAll([victim, source] as [JoinableGreenlet])
        }
        #expect(log == ["get: threw GreenletExit", "slept until 10"])
    }

    @Test("A greenlet that yielded resumes first; the kill is raised at its next park")
    func yieldedThenKilled() throws {
        let log = try logged { log, _ in
            let victim = spawn {
                log.outcome("yield") { try sleep() }
                log.outcome("next") { try sleep() }
            }
            try sleep()
            try victim.kill()
        }
        #expect(log == ["yield: returned", "next: threw GreenletExit"])
    }

    @Test("A kill may be too late: the body ends first")
    func tooLate() throws {
        let log = try logged { log, _ in
            let victim = spawn {
                try sleep()
                return "value"
            }
            try sleep()
            try victim.kill()
            log.outcome("get") { try victim.get() }
        }
        #expect(log == ["get: value"])
    }

    @Test("Cleanup code in a killed greenlet may park; kill waits for it", arguments: bothLoops)
    func cleanupMayPark(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let victim = spawn {
                defer {
                    log.outcome("in defer") { try sleep(for: .milliseconds(1)) }
                }
                do { try sleep(for: .seconds(1000)) } catch {
                    log.outcome("in catch") { try sleep(for: .milliseconds(1)) }
                    throw error
                }
            }
            try sleep()
            let before = hub.now
            try victim.kill()
            log.note("\(before.duration(to: hub.now) >= .milliseconds(2))")
            log.note("\(victim.isDead), \(victim.exit == nil ? "no exit" : "exit")")
        }
        #expect(log == ["in catch: returned", "in defer: returned", "true", "true, exit"])
    }

    @Test("A kill during the cleanup of an earlier kill is raised there")
    func killDuringCleanup() throws {
        let log = try logged { log, _ in
            let victim = spawn {
                log.outcome("first") { try sleep(for: .seconds(1)) }
                log.outcome("second") { try sleep(for: .seconds(1)) }
            }
            try sleep()
            try victim.kill(timeout: .nanoseconds(1))
            try victim.kill()
        }
        #expect(log == ["first: threw GreenletExit", "second: threw GreenletExit"])
    }

    @Test("A kill interrupts another greenlet's blocking kill")
    func killedKiller() throws {
        let log = try logged { log, hub in
            let victim = spawn {
                do { try sleep(for: .seconds(1000)) } catch { try sleep(for: .seconds(5)) }
            }
            try sleep()
            let killer = spawn { log.outcome("kill") { try victim.kill() } }
            try sleep()
            try killer.kill()
            log.note("\(victim.isActive)")
            try victim.join()
            log.note("\(hub.now.nanoseconds / 1_000_000_000)")
        }
        #expect(log == ["kill: threw GreenletExit", "true", "5"])
    }

    @Test("kill(main) raises the error in main, where it is parked or when it parks next", arguments: bothLoops)
    func killMain(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let main = AnyGreenlet.current
            spawn { try kill(main, throwing: Boom()) }
            log.outcome("parked") { try sleep(for: .seconds(1000)) }
            try kill(main)
            log.note("continues")
            log.outcome("next") { try sleep() }
            log.outcome("and then") { try sleep() }
        }
        #expect(log == ["parked: threw Boom", "continues", "next: threw GreenletExit", "and then: returned"])
    }

    @Test("A raw greenlet can be killed before it runs, while it is parked, and after its end")
    func killRaw() throws {
        let log = try logged { log, _ in
            let unstarted = spawnRaw { log.note("body") }
            try unstarted.kill()
            log.note("\(unstarted.isDead)")
            let parked = spawnRaw { log.outcome("parked") { try sleep(for: .seconds(1)) } }
            try sleep()
            try kill(parked)
            try sleep()
            log.note("\(parked.isDead)")
            try kill(parked)
        }
        #expect(log == ["true", "parked: threw GreenletExit", "true"])
    }

    @Test("An infinite loop of try? sleep() survives a kill: a documented limit")
    func swallowedKill() throws {
        let log = try logged { log, _ in
            let victim = spawn {
                for _ in 0..<3 { try? sleep(for: .seconds(1)) }
                return "swallowed"
            }
            try sleep()
            try victim.kill()
            log.outcome("get") { try victim.get() }
        }
        #expect(log == ["get: swallowed"])
    }
}

@Suite("Kills that coincide with other errors")
struct KillAndTimeoutTests {
    @Test("A kill is distinct from the exit of a timeout, which is withdrawn on cancel")
    func killBesideATimeoutsExit() throws {
        let log = try onFreshThread { () -> [String] in
            let loop = try VirtualLoop()
            let hub = try Hub.start(on: loop)
            let log = Log()
            let never = Greenlet {}
            let victim = spawn {
                let timeout = Timeout(.milliseconds(10), throwing: GreenletExit())
                timeout.start()
                // Its own timeout woke it. Before it runs, the other timeout fires and the kill is delivered.
                try never.join(timeout: .milliseconds(9))
                timeout.cancel()
                log.note("resumed")
                try sleep()
                log.note("survived the kill")
            }
            spawn {
                loop.advance(by: .milliseconds(20))
                try sleep()
            }
            try sleep(for: .milliseconds(5))
            try victim.kill()
            log.note("exit: \(victim.exit.map { "\($0)" } ?? "none")")
            hub.destroy()
            return log.entries
        }
        #expect(log == ["resumed", "exit: GreenletExit"])
    }
}
