import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Direct switches")
struct SwitchingTests {
    @Test("switchTo starts a raw greenlet at once, before ready greenlets, and returns when it ends")
    func startAndEnd() throws {
        let log = try logged { log, hub in
            spawn { log.note("other") }
            let raw = RawGreenlet { log.note("raw runs") }
            log.note("\(raw.isStarted) \(raw.isDead)")
            log.outcome("switch") { try raw.switchTo() }
            log.note("\(raw.isStarted) \(raw.isDead)")
        }
        // A joiner is always queued at the back of the ready queue.
        #expect(log == ["false false", "raw runs", "other", "switch: returned", "false true"])
    }

    @Test("Two raw greenlets hand control to each other, ahead of everything that is ready")
    func pair() throws {
        let log = try logged { log, hub in
            var ping: RawGreenlet?
            var pong: RawGreenlet?
            ping = RawGreenlet {
                for number in 0..<3 {
                    log.note("ping \(number)")
                    try pong!.switchTo()
                }
            }
            pong = RawGreenlet {
                for number in 0..<3 {
                    log.note("pong \(number)")
                    try ping!.switchTo()
                }
            }
            spawn { log.note("other") }
            try ping!.switchTo()
            log.note("main")
            _ = try hub.join()
            log.note("\(ping!.isDead) \(pong!.isDead)")
            (ping, pong) = (nil, nil)
        }
        #expect(
            log == [
                "ping 0", "pong 0", "ping 1", "pong 1", "ping 2", "pong 2", "other", "main", "true true",
            ])
    }

    @Test("Main and raw greenlets hand control back and forth, and pass values in variables")
    func generator() throws {
        let log = try logged { log, hub in
            let main = AnyGreenlet.current
            var value: Int?
            let generator = RawGreenlet {
                for number in 1...3 {
                    value = number * number
                    try main.switchTo()
                }
                value = nil
            }
            repeat {
                try generator.switchTo()
                log.note("\(value ?? 0)")
            } while value != nil
            log.note("\(generator.isDead)")
        }
        #expect(log == ["1", "4", "9", "0", "true"])
    }

    @Test("A switch into a greenlet in another wait throws invalidSwitch and does not disturb it")
    func strayIntoWaiting() throws {
        let log = try logged { log, hub in
            let pipe = try Pipe()
            let target = Greenlet { 5 }
            let waits: [(String, () throws -> Void)] = [
                ("sleep", { try sleep(for: .seconds(1)) }),
                ("join", { try target.join() }),
                ("get", { try log.note("\(target.get())") }),
                ("joinAll", { _ = try joinAll([target]) }),
                ("waitRead", { try waitRead(pipe.readEnd) }),
                ("withGroup", { try withGroup { group in _ = group.spawn { try target.join() } } }),
            ]
            let waiting = waits.flatMap { name, wait in
                let body = {
                    try wait()
                    log.note("\(name) done")
                }
                return [spawn(body), spawnRaw(body)] as [AnyGreenlet]
            }
            // A descriptor allows only one waiter in each direction.
            try kill(waiting[9])
            try sleep(for: .milliseconds(1))
            for greenlet in waiting where !greenlet.isDead {
                #expect(hubErrorCode { try greenlet.switchTo() } == .invalidSwitch)
            }
            let main = AnyGreenlet.current
            spawn { #expect(hubErrorCode { try main.switchTo() } == .invalidSwitch) }
            try sleep(for: .milliseconds(1))
            target.start()
            pipe.write()
            _ = try hub.join()
        }
        #expect(
            log.sorted()
                == [
                    "5", "5", "get done", "get done", "join done", "join done", "joinAll done", "joinAll done",
                    "sleep done", "sleep done", "waitRead done", "withGroup done", "withGroup done",
                ])
    }

    @Test("So does a switch into a greenlet that is ready, started in the usual way, never started, or ended")
    func strayIntoOthers() throws {
        let log = try logged { log, hub in
            let yielding = spawnRaw {
                try sleep()
                try sleep()
                log.note("yielded")
            }
            try sleep()
            let scheduled = spawnRaw { log.note("scheduled") }
            let delayed = spawn(after: .seconds(1)) { log.note("delayed") }
            let unstarted = Greenlet {}
            let over = spawn {}
            let root = hub.hubGreenlet
            for (name, greenlet) in [
                ("yielding", yielding), ("scheduled", scheduled), ("delayed", delayed), ("unstarted", unstarted),
                ("hub", root),
            ] as [(String, AnyGreenlet)] {
                log.note("\(name) \(hubErrorCode { try greenlet.switchTo() } == .invalidSwitch)")
            }
            try over.join()
            log.note("over \(hubErrorCode { try over.switchTo() } == .invalidSwitch)")
            log.outcome("current") { try AnyGreenlet.current.switchTo() }
            _ = try hub.join()
        }
        #expect(log.prefix(5) == ["yielding true", "scheduled true", "delayed true", "unstarted true", "hub true"])
        #expect(log.dropFirst(5).sorted() == ["current: returned", "delayed", "over true", "scheduled", "yielded"])
    }

    @Test("A greenlet parked in a switch can be killed and timed out there, and the hub runs others meanwhile")
    func interrupted() throws {
        let log = try logged { log, hub in
            let endless = RawGreenlet { try sleep(for: .seconds(100)) }
            log.outcome("timeout") { try withTimeout(.seconds(1)) { _ in try endless.switchTo() } }
            let second = RawGreenlet { try sleep(for: .seconds(100)) }
            let victim = spawn { log.outcome("kill") { try second.switchTo() } }
            try sleep(for: .seconds(1))
            try victim.kill()
            try kill(endless)
            try kill(second)
            try sleep()
            log.note("\(endless.isDead) \(second.isDead)")
        }
        #expect(log == ["timeout: threw 1 second", "kill: threw GreenletExit", "true true"])
    }

    @Test("With no greenlet left to switch back, main would block forever, and the report states its wait")
    func deadlock() throws {
        try withHub { hub in
            let never = Greenlet {}
            let raw = RawGreenlet { try never.join() }
            raw.name = "raw"
            do {
                try raw.switchTo()
                Issue.record("no greenlet switched back")
            } catch let error as HubError {
                #expect(error.code == .wouldBlockForever)
                #expect(error.message.contains("in a switch to <RawGreenlet \"raw\">"))
            }
            try kill(raw)
        }
    }

    @Test("Endless switching delays neither timers nor descriptors", arguments: [TestLoop.configured])
    func fairness(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let pipe = try Pipe()
            var ping: RawGreenlet?
            var pong: RawGreenlet?
            ping = RawGreenlet { while true { try pong!.switchTo() } }
            pong = RawGreenlet { while true { try ping!.switchTo() } }
            let reader = spawn { try waitRead(pipe.readEnd) }
            spawn(after: .milliseconds(2)) { pipe.write() }
            let starter = spawn { try ping!.switchTo() }
            try reader.join()
            try killAll([starter, ping!, pong!] as [AnyGreenlet])
            (ping, pong) = (nil, nil)
        }
    }

    @Test("In a hub callback a switch throws blockedInHub; on another thread it throws wrongThread")
    func misuse() throws {
        try withHub { hub in
            let raw = RawGreenlet {}
            var codes: [HubError.Code?] = []
            hub.runCallback {
                codes.append(hubErrorCode { try raw.switchTo() })
                codes.append(hubErrorCode { try AnyGreenlet.current.throwInto(Boom()) })
            }
            try sleep()
            #expect(codes == [.blockedInHub, .invalidSwitch])
            let foreign = Smuggled(raw)
            try onFreshThread {
                #expect(hubErrorCode { try foreign.value.switchTo() } == .wrongThread)
                #expect(hubErrorCode { try foreign.value.throwInto(Boom()) } == .wrongThread)
            }
            #expect(!raw.isStarted)
        }
    }

    @Test("throwInto on a greenlet that never ran cancels its start, records the outcome and notifies its links")
    func throwIntoUnstarted() throws {
        let log = try logged { log, hub in
            let created = Greenlet { log.note("never") }
            let scheduled = spawn { log.note("never") }
            let delayed = spawn(after: .seconds(1)) { log.note("never") }
            let raw = RawGreenlet { log.note("never") }
            for (name, greenlet) in [("created", created), ("scheduled", scheduled), ("delayed", delayed)] {
                greenlet.name = name
                greenlet.rawLink { log.note("\(name) linked: \($0.error ?? OwnExit())") }
                try greenlet.throwInto(Boom())
                log.note("\(greenlet.isDead) \(greenlet.isSuccessful)")
            }
            try raw.throwInto(GreenletExit())
            log.note("\(raw.isDead) \(raw.isStarted) \(hub.statistics.pendingTimers)")
            created.start()
            _ = try hub.join()
        }
        #expect(
            log == [
                "reported Boom of <Greenlet<()> \"created\">", "true false",
                "reported Boom of <Greenlet<()> \"scheduled\">", "true false",
                "reported Boom of <Greenlet<()> \"delayed\">", "true false", "true false 0",
                "created linked: Boom", "scheduled linked: Boom", "delayed linked: Boom",
            ])
    }

    @Test("throwInto raises the error at the greenlet's wait, at once; the caller resumes when the greenlet ends")
    func throwIntoParked() throws {
        let log = try logged { log, hub in
            let sleeper = spawn {
                log.outcome("sleeper") { try sleep(for: .seconds(9)) }
                try sleep(for: .seconds(1))
                log.note("sleeper ends")
            }
            let raw = RawGreenlet { [main = AnyGreenlet.current] in
                log.outcome("raw") { try main.switchTo() }
            }
            try sleep()
            try raw.switchTo()
            spawn { log.note("other") }
            log.outcome("into raw") { try raw.throwInto(Boom("switched out")) }
            spawn { log.note("other") }
            log.outcome("into sleeper") { try sleeper.throwInto(Boom("asleep")) }
            log.outcome("into oneself") { try AnyGreenlet.current.throwInto(OwnExit()) }
            log.note("\(hubErrorCode { try sleeper.throwInto(Boom()) } == .invalidSwitch)")
            let ready = spawn {
                try sleep()
                log.note("undisturbed")
            }
            try sleep()
            log.note("\(hubErrorCode { try ready.throwInto(Boom()) } == .invalidSwitch)")
            try ready.join()
        }
        #expect(
            log == [
                "raw: threw switched out", "other", "into raw: returned", "sleeper: threw asleep", "other",
                "sleeper ends", "into sleeper: returned", "into oneself: threw OwnExit", "true", "true", "undisturbed",
            ])
    }

    @Test("Raw greenlets never switched to, or still parked in a switch, leave nothing behind")
    func leaks() throws {
        try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            var witnesses = 0
            weak var weakRaw: RawGreenlet?
            do {
                witnesses += 1
                let witness = Witness { witnesses -= 1 }
                let raw = RawGreenlet { withExtendedLifetime(witness) {} }
                weakRaw = raw
            }
            #expect(witnesses == 0 && weakRaw == nil)
            do {
                witnesses += 1
                let witness = Witness { witnesses -= 1 }
                let inner = RawGreenlet {
                    try withExtendedLifetime(witness) { try sleep(for: .seconds(9)) }
                }
                let outer = RawGreenlet { try inner.switchTo() }
                weakRaw = outer
                spawn { try outer.switchTo() }
                try sleep()
                #expect(hub.statistics.liveGreenlets == 3)
            }
            hub.destroy()
            #expect(witnesses == 0 && weakRaw == nil)
        }
    }
}
