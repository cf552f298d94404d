import Gevent
import GeventTesting
import Testing

/// All properties of a greenlet, as a list of those that are true or set.
private func state<Output>(_ greenlet: Greenlet<Output>) -> String {
    var words: [String] = []
    if greenlet.isStarted { words.append("started") }
    if greenlet.isActive { words.append("active") }
    if greenlet.isDead { words.append("dead") }
    if greenlet.isReady { words.append("ready") }
    if greenlet.isSuccessful { words.append("successful") }
    if let value = greenlet.value { words.append("value=\(value)") }
    if let error = greenlet.error { words.append("error=\(error)") }
    if let exit = greenlet.exit { words.append("exit=\(exit)") }
    switch greenlet.result {
    case nil: break
    case .success(let value): words.append("success(\(value))")
    case .failure(let error): words.append("failure(\(error))")
    }
    return words.joined(separator: " ")
}

@Suite("State of a greenlet")
struct GreenletStateTests {
    @Test("Before start: not active, not dead, not ready, not successful, no value, no error, no exit")
    func beforeStart() throws {
        let words = try withHub { _ in state(Greenlet { 1 }) }
        #expect(words == "")
    }

    @Test("After start, before running: active, not dead, not ready")
    func afterStart() throws {
        let words = try withHub { _ in
            let greenlets = [spawn { 1 }, spawn(after: .seconds(1)) { 1 }]
            let words = greenlets.map(state)
            try joinAll(greenlets)
            return words
        }
        #expect(words == ["started active", "started active"])
    }

    @Test("While it runs, and while it is parked: active, without a value")
    func whileRunning() throws {
        let log = try logged { log, _ in
            var greenlet: Greenlet<Int>?
            greenlet = Greenlet {
                log.note(state(greenlet!))
                try sleep(for: .seconds(1))
                return 1
            }
            greenlet!.start()
            try sleep()
            log.note(state(greenlet!))
            try greenlet!.join()
            greenlet = nil
        }
        #expect(log == ["started active", "started active"])
    }

    @Test("After success: not active, dead, ready, successful, value set")
    func afterSuccess() throws {
        let words = try withHub { _ in
            let greenlet = spawn { 42 }
            try greenlet.join()
            return state(greenlet)
        }
        #expect(words == "dead ready successful value=42 success(42)")
    }

    @Test("After an error: ready, not successful, no value; the error is the thrown instance")
    func afterError() throws {
        let log = try logged { log, _ in
            let thrown = BoomObject()
            let greenlet = spawn { () throws -> Int in throw thrown }
            greenlet.name = "g"
            try greenlet.join()
            #expect(greenlet.error as? BoomObject === thrown)
            #expect(throws: BoomObject.self) { try greenlet.get() }
            #expect(greenlet.isReady && !greenlet.isSuccessful && greenlet.value == nil && greenlet.exit == nil)
            let other = spawn { () throws -> Int in throw Boom() }
            other.name = "other"
            try other.join()
            log.note(state(other))
        }
        #expect(
            log == [
                "reported GeventTests.BoomObject of <Greenlet<Int> \"g\">",
                "reported Boom of <Greenlet<Int> \"other\">",
                "dead ready error=Boom failure(Boom)",
            ])
    }

    @Test("get() twice returns the same value, or throws the same error")
    func getTwice() throws {
        try withHub { hub in
            hub.errorHandler = { _, _ in }
            let witness = spawn { Witness() }
            try #expect(witness.get() === witness.get())
            let thrown = BoomObject()
            let failing = spawn { throw thrown }
            for _ in 0..<2 {
                let error = #expect(throws: BoomObject.self) { try failing.get() }
                #expect(error === thrown)
            }
        }
    }

    @Test("A nil value differs from no value")
    func nilValue() throws {
        try withHub { _ in
            let greenlet = spawn { Int?.none }
            #expect(greenlet.value == nil)
            #expect(greenlet.result == nil)
            try #expect(greenlet.get() == nil)
            #expect(greenlet.value == .some(.none))
            #expect(greenlet.isReady && greenlet.result != nil)
        }
    }

    @Test("A body that throws an exit is successful; exit is that error, and nothing is reported")
    func bodyThrowsExit() throws {
        let log = try logged { log, hub in
            for exit in [GreenletExit(), OwnExit()] as [any GreenletExitError] {
                let greenlet = spawn { () throws -> Int in throw exit }
                try greenlet.join()
                log.note(state(greenlet))
                log.outcome("get") { try greenlet.get() }
            }
            _ = try hub.join()
        }
        #expect(
            log == [
                "dead ready successful exit=GreenletExit failure(GreenletExit)", "get: threw GreenletExit",
                "dead ready successful exit=OwnExit failure(OwnExit)", "get: threw OwnExit",
            ])
    }

    @Test("Killed before it ran: dead, ready and successful, whether or not it was started")
    func killedUnstarted() throws {
        let log = try logged { log, _ in
            let made = Greenlet { 1 }
            try made.kill()
            log.note(state(made))
            let spawned = spawn { 1 }
            try spawned.kill()
            log.note(state(spawned))
            let delayed = spawn(after: .seconds(1)) { 1 }
            try delayed.kill()
            log.note(state(delayed))
        }
        #expect(
            log == [
                "dead ready successful exit=GreenletExit failure(GreenletExit)",
                "dead ready successful exit=GreenletExit failure(GreenletExit)",
                "dead ready successful exit=GreenletExit failure(GreenletExit)",
            ])
    }

    @Test("isDead is false for the running greenlet, from its first instruction to its last")
    func runningIsNotDead() throws {
        let log = try logged { log, _ in
            let greenlet = spawn {
                defer { log.note("\(AnyGreenlet.current.isDead)") }
                log.note("\(AnyGreenlet.current.isDead)")
                try sleep()
            }
            try greenlet.join()
            log.note("\(greenlet.isDead)")
        }
        #expect(log == ["false", "false", "true"])
    }

    // MARK: Lifetime

    @Test("Captures of the closure are released as soon as the body ends, even if the greenlet lives on")
    func capturesAreReleased() throws {
        let log = try logged { log, _ in
            func start(_ end: @escaping () throws -> Void) -> Greenlet<Void> {
                let witness = Witness { log.note("released") }
                return spawn {
                    try withExtendedLifetime(witness) { try end() }
                }
            }
            let ends: [(String, () throws -> Void)] = [
                ("returns", {}), ("parks", { try sleep(for: .seconds(1)) }), ("exits", { throw GreenletExit() }),
            ]
            for (name, end) in ends {
                let greenlet = start(end)
                try greenlet.join()
                log.note(name)
                #expect(greenlet.isDead)
            }
        }
        #expect(log == ["released", "returns", "released", "parks", "released", "exits"])
    }

    @Test("Captures of the closure are released before links and joiners are notified")
    func capturesAreReleasedFirst() throws {
        let log = try logged { log, hub in
            func start() -> Greenlet<Void> {
                let witness = Witness { log.note("released") }
                return spawn { withExtendedLifetime(witness) { log.note("body") } }
            }
            let greenlet = start()
            greenlet.rawLink { _ in log.note("raw link") }
            greenlet.link { _ in log.note("link") }
            try greenlet.join()
            _ = try hub.join()
        }
        #expect(log == ["body", "released", "raw link", "link"])
    }

    @Test("Captures of the closure are released when the greenlet is killed before it ran")
    func capturesOfTheUnstartedAreReleased() throws {
        let log = try logged { log, _ in
            func make() -> Greenlet<Void> {
                let witness = Witness { log.note("released") }
                return Greenlet { withExtendedLifetime(witness) {} }
            }
            let greenlets = [make(), make(), make()]
            greenlets[1].start()
            greenlets[2].start(after: .seconds(1))
            for greenlet in greenlets {
                try greenlet.kill()
                log.note("killed")
            }
        }
        #expect(log == ["released", "killed", "released", "killed", "released", "killed"])
    }

    @Test("Objects on a killed greenlet's stack are released when it unwinds")
    func stackIsUnwound() throws {
        let log = try logged { log, _ in
            let greenlet = spawn {
                let witness = Witness { log.note("released") }
                defer { log.note("deferred") }
                try withExtendedLifetime(witness) { try sleep(for: .seconds(1)) }
            }
            try sleep()
            try greenlet.kill()
            log.note("killed")
        }
        #expect(log == ["deferred", "released", "killed"])
    }

    @Test("A finished greenlet is released with its last reference; so is an unstarted one")
    func greenletsAreReleased() throws {
        final class Counted: Greenlet<Int> {
            let witness: Witness
            init(_ witness: Witness) {
                self.witness = witness
                super.init()
            }
            override func run() throws -> Int {
                try sleep()
                return 1
            }
        }
        let log = try logged { log, _ in
            do {
                let greenlet = Counted(Witness { log.note("finished one") })
                greenlet.start()
                _ = try greenlet.get()
            }
            log.note("1")
            do { _ = Counted(Witness { log.note("unstarted one") }) }
            log.note("2")
            do {
                let greenlet = Counted(Witness { log.note("killed one") })
                greenlet.start()
                try sleep()
                try greenlet.kill()
            }
            log.note("3")
            do {
                let greenlet = Counted(Witness { log.note("linked one") })
                greenlet.link { _ in log.note("never") }
            }
            log.note("4")
        }
        #expect(log == ["finished one", "1", "unstarted one", "2", "killed one", "3", "linked one", "4"])
    }

    @Test("Main and the hub are identified, and main is reachable from anywhere on its thread")
    func mainAndHub() throws {
        let log = try logged { log, hub in
            func note(_ place: String) {
                let current = AnyGreenlet.current
                log.note("\(place) \(current.isMain) \(current.isHub) \(current === hub.mainGreenlet)")
            }
            note("main")
            hub.runCallback { note("hub") }
            spawn { note("greenlet") }
            spawnRaw {
                note("raw")
                try kill(hub.mainGreenlet, throwing: Boom())
            }
            log.outcome("sleep") { try sleep(for: .seconds(1)) }
        }
        #expect(
            log == [
                "main true false true", "hub false true false", "greenlet false false false", "raw false false false",
                "sleep: threw Boom",
            ])
    }

    @Test("A parked greenlet without references lives on until it ends")
    func theHubHoldsTheParked() throws {
        let log = try logged { log, hub in
            weak var seen: Greenlet<Void>?
            do {
                let greenlet = spawn {
                    let witness = Witness { log.note("unwound") }
                    try withExtendedLifetime(witness) { try sleep(for: .seconds(1)) }
                }
                seen = greenlet
                try sleep()
            }
            log.note(seen == nil ? "released" : "parked")
            _ = try hub.join()
            log.note(seen == nil ? "released" : "parked")
        }
        #expect(log == ["parked", "unwound", "released"])
    }

    // MARK: Identity

    @Test("Greenlets of every kind have identity and can be stored in sets")
    func identity() throws {
        try withHub { _ in
            let (one, other, raw) = (Greenlet { 1 }, Greenlet { 1 }, spawnRaw {})
            let main = AnyGreenlet.current
            #expect(one == one && one != other)
            let set: Set<AnyGreenlet> = [one, other, raw, main, one]
            #expect(set.count == 4)
            #expect(set.contains(one) && set.contains(raw) && set.contains(AnyGreenlet.current))
            #expect(!set.contains(Greenlet { 1 }))
            try sleep()
        }
    }

    // MARK: Names

    @Test("The description shows the name once it is set or the identifier was read")
    func descriptions() throws {
        final class Fetcher: Greenlet<Void> {}
        final class Talkative: Greenlet<Void> {
            override var description: String { "a talkative one" }
        }
        try withHub { _ in
            let greenlet = Greenlet { 1 }
            #expect(greenlet.description.hasPrefix("<Greenlet<Int> at 0x"))
            #expect(greenlet.description == greenlet.description)
            #expect(greenlet.name == "Greenlet-\(greenlet.minimalID)")
            #expect(greenlet.description == "<Greenlet<Int> \"Greenlet-\(greenlet.minimalID)\">")
            greenlet.name = "worker"
            #expect(greenlet.name == "worker")
            #expect(greenlet.description == "<Greenlet<Int> \"worker\">")
            let fetcher = Fetcher()
            fetcher.name = "fetcher"
            #expect(fetcher.description == "<Fetcher \"fetcher\">")
            #expect(Talkative().description == "a talkative one")
        }
    }

    @Test("The description of an unnamed greenlet contains its address")
    func address() throws {
        try withHub { _ in
            let greenlet = Greenlet { 1 }
            let address = String(UInt(bitPattern: ObjectIdentifier(greenlet)), radix: 16)
            #expect(greenlet.description == "<Greenlet<Int> at 0x\(address)>")
        }
    }

    @Test("The description works at any point of the greenlet's life")
    func descriptionAnytime() throws {
        try withHub { _ in
            let greenlet = Greenlet { try sleep() }
            greenlet.name = "g"
            var descriptions = [greenlet.description]
            greenlet.start()
            descriptions.append(greenlet.description)
            try sleep()
            descriptions.append(greenlet.description)
            try greenlet.join()
            descriptions.append(greenlet.description)
            #expect(descriptions == Array(repeating: "<Greenlet<()> \"g\">", count: 4))
        }
    }

    @Test("A greenlet's last release runs on the hub: it cannot wait, and affects no other greenlet")
    func lastReleaseCannotPark() throws {
        final class Remains {
            let log: Log
            init(_ log: Log) { self.log = log }
            deinit {
                log.note("current: \(AnyGreenlet.current)")
                do {
                    try sleep(for: .seconds(1))
                } catch {
                    log.note("sleep: \((error as? HubError)?.code.rawValue ?? "\(error)")")
                }
            }
        }
        let log = try logged { log, _ in
            // The greenlet has no other reference, so its value is released with it, on its own stack.
            spawn { Remains(log) }
            try sleep()
            // On the same stack.
            try spawn {
                try sleep(for: .seconds(1))
                log.note("the next one sleeps")
            }.join()
        }
        #expect(log == ["current: <HubGreenlet>", "sleep: blockedInHub", "the next one sleeps"])
    }
}
