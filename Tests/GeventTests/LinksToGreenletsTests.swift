import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Links to greenlets")
struct LinksToGreenletsTests {
    @Test("The end of a greenlet is raised as LinkedExited where the linked one waits, of the kind that fits")
    func kinds() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in }
            func watch(_ name: String, _ greenlet: Greenlet<Int>, _ end: () throws -> Void = {}) throws {
                greenlet.name = name
                try greenlet.link(to: .current)
                do {
                    try end()
                    try sleep(for: .seconds(5))
                } catch let killed as LinkedKilled {
                    log.note(
                        "\(killed) killed by \(killed.exit), completed: \((killed as LinkedExited) is LinkedCompleted)")
                } catch let completed as LinkedCompleted {
                    log.note("\(completed) completed")
                } catch let failed as LinkedFailed {
                    log.note("\(failed) failed with \(failed.error)")
                }
            }
            try watch("value", spawn { 1 })
            try watch("exit", spawn { throw OwnExit() })
            try watch("error", spawn { throw Boom() })
            let sleeper = spawn { () throws -> Int in
                try sleep(for: .seconds(9))
                return 1
            }
            try sleep()
            try watch("victim", sleeper) { try sleeper.kill() }
        }
        #expect(
            log == [
                "<Greenlet<Int> \"value\"> completed",
                "<Greenlet<Int> \"exit\"> killed by OwnExit, completed: true",
                "<Greenlet<Int> \"error\"> failed with Boom",
                "<Greenlet<Int> \"victim\"> killed by GreenletExit, completed: true",
            ])
    }

    @Test("All kinds are caught as LinkedExited, which names the greenlet and passes through rethrowControl")
    func caughtAsBase() throws {
        try withHub { _ in
            let greenlet = spawnLinked { 1 }
            do {
                try sleep(for: .seconds(1))
                Issue.record("nothing was raised")
            } catch let exited as LinkedExited {
                #expect(exited.minimalID == greenlet.minimalID)
                #expect(exited.description == greenlet.description)
                #expect(throws: LinkedCompleted.self) { try rethrowControl(exited) }
            }
        }
    }

    @Test("link(to:) on a condition is raised only on that end; silent death counts as a value")
    func conditions() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in }
            func ends(_ name: String, _ make: @escaping () -> Greenlet<Void>) throws {
                for condition in [GreenletLink.Condition.exit, .value, .error] {
                    let receiver = spawn {
                        try make().link(to: .current, on: condition)
                        try sleep(for: .seconds(1))
                    }
                    try receiver.join()
                    log.note("\(name) \(condition): \(receiver.error.map { "\(type(of: $0))" } ?? "nothing")")
                }
            }
            try ends("success") { spawn {} }
            try ends("failure") { spawn { throw Boom() } }
            try ends("silent death") { spawn { throw GreenletExit() } }
        }
        #expect(
            log == [
                "success exit: LinkedCompleted", "success value: LinkedCompleted", "success error: nothing",
                "failure exit: LinkedFailed", "failure value: nothing", "failure error: LinkedFailed",
                "silent death exit: LinkedKilled", "silent death value: LinkedKilled", "silent death error: nothing",
            ])
    }

    @Test("spawnLinked raises in the spawner what it asked for, and nothing else")
    func spawnLinkedConditions() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in }
            log.outcome("exit, value") {
                spawnLinked { 1 }
                try sleep(for: .seconds(1))
            }
            log.outcome("value, value") {
                Greenlet.spawnLinked(on: .value) { 1 }.name = "child"
                try sleep(for: .seconds(1))
            }
            log.outcome("error, value") {
                spawnLinked(on: .error) { 1 }
                try sleep(for: .seconds(1))
            }
            log.outcome("error, error") {
                spawnLinked(on: .error) { throw Boom() }.name = "failing"
                try sleep(for: .seconds(1))
            }
            log.outcome("value, error") {
                spawnLinked(on: .value) { throw Boom() }
                try sleep(for: .seconds(1))
            }
        }
        #expect(log.count == 5)
        #expect(log[0].hasPrefix("exit, value: threw <Greenlet<Int> \"Greenlet-"))
        #expect(log[1] == "value, value: threw <Greenlet<Int> \"child\">")
        #expect(log[2] == "error, value: returned")
        #expect(log[3] == "error, error: threw <Greenlet<()> \"failing\">")
        #expect(log[4] == "value, error: returned")
    }

    @Test("Linked to the current greenlet after the end, the call itself throws; no link stays behind")
    func synchronous() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { 1 }
            greenlet.name = "ended"
            try greenlet.join()
            log.outcome("exit") { _ = try greenlet.link(to: .current) }
            log.outcome("value") { _ = try greenlet.link(to: .current, on: .value) }
            log.outcome("error") { _ = try greenlet.link(to: .current, on: .error) }
            log.outcome("sleep") { try sleep(for: .seconds(1)) }
            log.note("\(greenlet.hasLinks)")
        }
        #expect(
            log == [
                "exit: threw <Greenlet<Int> \"ended\">", "value: threw <Greenlet<Int> \"ended\">", "error: returned",
                "sleep: returned", "false",
            ])
    }

    @Test("Linked to another greenlet after the end, it is raised there, asynchronously")
    func asynchronousForOthers() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in }
            let ended = spawn { 1 }
            ended.name = "ended"
            try ended.join()
            let receiver = spawn { log.outcome("receiver") { try sleep(for: .seconds(1)) } }
            try sleep()
            log.outcome("link") { _ = try ended.link(to: receiver) }
            try receiver.join()
            // Also to main, from elsewhere.
            let main = AnyGreenlet.current
            spawn { log.outcome("link to main") { _ = try ended.link(to: main) } }
            log.outcome("main") { try sleep(for: .seconds(1)) }
        }
        #expect(
            log == [
                "link: returned", "receiver: threw <Greenlet<Int> \"ended\">", "link to main: returned",
                "main: threw <Greenlet<Int> \"ended\">",
            ])
    }

    @Test("Delivery to a receiver that has not run yet kills it before it runs; a dead receiver is ignored")
    func unstartedAndDead() throws {
        let log = try logged { log, hub in
            let unstarted = Greenlet { log.note("never") }
            let delayed = spawn(after: .seconds(1)) { log.note("never") }
            let dead = spawn { 7 }
            unstarted.name = "unstarted"
            delayed.name = "delayed"
            try dead.join()
            let late = Greenlet { 0 }
            try late.link(to: unstarted)
            try late.link(to: delayed)
            try late.link(to: dead)
            late.name = "late"
            late.start()
            _ = try hub.join()
            log.note("\(unstarted.isDead) \(unstarted.isStarted) \(unstarted.error is LinkedCompleted)")
            log.note("\(delayed.isDead) \(delayed.error is LinkedCompleted)")
            log.note("\(dead.value ?? 0)")
        }
        #expect(
            log == [
                "reported <Greenlet<Int> \"late\"> of <Greenlet<()> \"unstarted\">",
                "reported <Greenlet<Int> \"late\"> of <Greenlet<()> \"delayed\">", "true false true", "true true", "7",
            ])
    }

    @Test("Links to greenlets and closures are told in registration order")
    func order() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { error, greenlet in log.note(greenlet?.name ?? "nobody") }
            let source = Greenlet {}
            source.rawLink { _ in log.note("raw 1") }
            let receivers = (0..<20).map { number in
                let receiver = Greenlet {}
                receiver.name = "\(number)"
                receiver.rawLink { _ in log.note("told \(number)") }
                return receiver
            }
            for receiver in receivers { try source.link(to: receiver) }
            source.rawLink { _ in
                log.note("raw 2")
                // All receivers have been ended by now.
                log.note("\(receivers.allSatisfy(\.isDead))")
            }
            source.start()
            _ = try hub.join()
        }
        let last = log.firstIndex(of: "raw 2")
        #expect(log.first == "raw 1" && last != nil)
        #expect(log.filter { $0.hasPrefix("told") } == (0..<20).map { "told \($0)" })
        #expect(log.contains("true"))
    }

    @Test("A receiver that was woken already takes what it was woken for; LinkedExited comes at its next park")
    func wokenReceiver() throws {
        let log = try logged { log, hub in
            let source = Greenlet { 2 }
            let joined = Greenlet { 1 }
            let receiver = spawn {
                log.outcome("get") { try joined.get() }
                log.outcome("sleep") { try sleep() }
            }
            source.name = "source"
            try source.link(to: receiver)
            try sleep()
            // The link is told by a callback that comes behind the end of the joined one and before the receiver.
            source.start()
            joined.start()
            _ = try hub.join()
        }
        #expect(log == ["get: 1", "sleep: threw <Greenlet<Int> \"source\">"])
    }

    @Test("Two links to one receiver raise one error each; unlink takes one back")
    func twice() throws {
        let log = try logged { log, hub in
            let source = spawn { try sleep() }
            source.name = "source"
            try source.link(to: .current)
            try source.link(to: .current)
            let third = try source.link(to: .current)
            source.unlink(third)
            source.unlink(third)
            for _ in 0..<3 { log.outcome("sleep") { try sleep(for: .seconds(1)) } }
        }
        #expect(
            log == [
                "sleep: threw <Greenlet<()> \"source\">", "sleep: threw <Greenlet<()> \"source\">", "sleep: returned",
            ])
    }

    @Test("A link keeps neither side alive, also when two greenlets are linked to each other")
    func leaks() throws {
        try withHub { hub in
            weak var weakSource: Greenlet<Void>?
            weak var weakReceiver: Greenlet<Void>?
            do {
                let source = Greenlet {}
                let receiver = Greenlet {}
                try source.link(to: receiver)
                try receiver.link(to: source)
                try source.link(to: source)
                weakSource = source
                weakReceiver = receiver
            }
            #expect(weakSource == nil && weakReceiver == nil)
            do {
                let source = spawn { try sleep(for: .seconds(1)) }
                let receiver = spawn { try sleep(for: .seconds(2)) }
                try source.link(to: receiver, on: .error)
                weakSource = source
                weakReceiver = receiver
            }
            #expect(weakSource != nil && weakReceiver != nil)
            _ = try hub.join()
            #expect(weakSource == nil && weakReceiver == nil)
        }
    }

    @Test("A receiver that is gone by then is ignored")
    func receiverIsGone() throws {
        let log = try logged { log, hub in
            let source = spawn { try sleep(for: .seconds(1)) }
            try source.link(to: Greenlet {})
            source.rawLink { _ in log.note("told") }
            _ = try hub.join()
        }
        #expect(log == ["told"])
    }

    @Test("A greenlet linked to a hub that is destroyed meanwhile leaves nothing behind")
    func destroyed() throws {
        try onFreshThread {
            weak var witness: Greenlet<Void>?
            do {
                let hub = try Hub.start(on: VirtualLoop())
                let greenlet = spawnLinked { try sleep(for: .seconds(1)) }
                witness = greenlet
                try sleep()
                hub.destroy()
                #expect(greenlet.isDead)
                #expect(greenlet.hub == nil)
            }
            #expect(witness == nil)
        }
    }

    @Test("The hub cannot be linked to or killed, and a foreign greenlet is wrongThread")
    func misuse() throws {
        try withHub { hub in
            let greenlet = spawn { try sleep(for: .seconds(1)) }
            var codes: [HubError.Code?] = []
            hub.runCallback {
                codes.append(hubErrorCode { try greenlet.link(to: .current) })
                codes.append(hubErrorCode { try kill(AnyGreenlet.current) })
                codes.append(hubErrorCode { try killAll([AnyGreenlet.current]) })
            }
            try sleep()
            #expect(codes == [.invalidSwitch, .invalidSwitch, .invalidSwitch])
            let foreign = Smuggled(greenlet)
            try onFreshThread {
                #expect(hubErrorCode { try foreign.value.link(to: .current) } == .wrongThread)
                let own = spawn {}
                #expect(hubErrorCode { try own.link(to: foreign.value) } == .wrongThread)
            }
            #expect(!greenlet.hasLinks)
            try greenlet.kill()
        }
    }

    @Test("spawnLinked in a hub callback stops the program with a message that says so")
    func spawnLinkedInCallback() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { hub in
                hub.runCallback { spawnLinked {} }
                try sleep()
            }
        }
        #expect(text(result.standardErrorContent).contains("nothing can be thrown into the hub"))
    }

    @Test("hasLinks tells of registrations, not of those who wait; unlinkAll removes them, and nobody else")
    func hasLinksAndUnlinkAll() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { try sleep(for: .seconds(1)) }
            log.note("\(greenlet.hasLinks)")
            let joiner = spawn {
                try greenlet.join()
                log.note("joined")
            }
            try sleep()
            log.note("\(greenlet.hasLinks)")
            let witness = Witness { log.note("released") }
            let token = greenlet.link { _ in withExtendedLifetime(witness) { log.note("never") } }
            greenlet.linkValue { _ in log.note("never") }
            greenlet.linkError { _ in log.note("never") }
            greenlet.rawLink { _ in log.note("never") }
            greenlet.rawLink { log.note("never") }
            try greenlet.link(to: .current)
            let removed = greenlet.link { _ in log.note("never") }
            greenlet.unlink(removed)
            log.note("\(greenlet.hasLinks)")
            greenlet.unlinkAll()
            greenlet.unlinkAll()
            greenlet.unlink(token)
            log.note("\(greenlet.hasLinks)")
            let waitable = greenlet.rawLink { log.note("later") }
            log.note("\(greenlet.hasLinks) \(waitable.isPending)")
            try joiner.join()
            _ = try hub.join()
            log.note("\(greenlet.hasLinks)")
        }
        #expect(
            log.filter { $0 != "released" } == [
                "false", "false", "true", "false", "true true", "joined", "later", "false",
            ])
        #expect(log.contains("released"))
    }

    @Test("unlinkAll during notification removes what has not been told")
    func unlinkAllDuringNotification() throws {
        let log = try logged { log, hub in
            let greenlet = spawn {}
            greenlet.rawLink { ended in
                log.note("first")
                ended.unlinkAll()
            }
            greenlet.rawLink { _ in log.note("never") }
            _ = try hub.join()
            log.note("\(greenlet.hasLinks)")
        }
        #expect(log == ["first", "false"])
    }
}
