import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Links to greenlets")
struct LinksToGreenletsTests {
    @Test("The end of a greenlet is raised as LinkedExited at the linked greenlet's wait, with the outcome")
    func kinds() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in }
            func watch(_ name: String, _ greenlet: Greenlet<Int>, _ end: () throws -> Void = {}) throws {
                greenlet.name = name
                try greenlet.link(to: .current)
                do {
                    try end()
                    try sleep(for: .seconds(5))
                } catch let exited as LinkedExited {
                    log.note("\(exited) \(exited.outcome)")
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
                "<Greenlet<Int> \"exit\"> was killed: OwnExit",
                "<Greenlet<Int> \"error\"> failed: Boom",
                "<Greenlet<Int> \"victim\"> was killed: GreenletExit",
            ])
    }

    @Test("LinkedExited contains the greenlet, and rethrowControl rethrows it")
    func caughtAsBase() throws {
        try withHub { _ in
            let greenlet = spawnLinked { 1 }
            do {
                try sleep(for: .seconds(1))
                Issue.record("nothing was raised")
            } catch let exited as LinkedExited {
                #expect(exited.minimalID == greenlet.minimalID)
                #expect(exited.description == greenlet.description)
                #expect(throws: LinkedExited.self) { try rethrowControl(exited) }
            }
        }
    }

    @Test("link(to:) with a condition raises only on that kind of end; an exit counts as a value")
    func conditions() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in }
            func ends(_ name: String, _ make: @escaping () -> Greenlet<Void>) throws {
                for condition in [LinkCondition.exit, .value, .error] {
                    let receiver = spawn {
                        try make().link(to: .current, on: condition)
                        try sleep(for: .seconds(1))
                    }
                    try receiver.join()
                    let exited = receiver.error as? LinkedExited
                    log.note("\(name) \(condition): \(exited.map { "\($0.outcome)" } ?? "nothing")")
                }
            }
            try ends("success") { spawn {} }
            try ends("failure") { spawn { throw Boom() } }
            try ends("thrown exit") { spawn { throw GreenletExit() } }
        }
        #expect(
            log == [
                "success exit: completed", "success value: completed", "success error: nothing",
                "failure exit: failed: Boom", "failure value: nothing", "failure error: failed: Boom",
                "thrown exit exit: was killed: GreenletExit", "thrown exit value: was killed: GreenletExit",
                "thrown exit error: nothing",
            ])
    }

    @Test("spawnLinked raises in the spawner what the spawner requested, and nothing else")
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

    @Test("Linking the current greenlet to an ended one throws from the call itself; no link remains")
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

    @Test("Linking another greenlet to an ended one raises the error there, asynchronously")
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
            // Works for main too, from another greenlet.
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

    @Test("Delivery to a receiver that has not run yet kills it; a dead receiver is ignored")
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
            log.note("\(unstarted.isDead) \(unstarted.isStarted) \(unstarted.error is LinkedExited)")
            log.note("\(delayed.isDead) \(delayed.error is LinkedExited)")
            log.note("\(dead.value ?? 0)")
        }
        #expect(
            log == [
                "reported <Greenlet<Int> \"late\"> of <Greenlet<()> \"unstarted\">",
                "reported <Greenlet<Int> \"late\"> of <Greenlet<()> \"delayed\">", "true false true", "true true", "7",
            ])
    }

    @Test("Links to greenlets and closures are notified in order of registration")
    func order() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { error, greenlet in log.note(greenlet?.name ?? "no greenlet") }
            let source = Greenlet {}
            source.rawLink { _ in log.note("raw 1") }
            let receivers = (0..<20).map { number in
                let receiver = Greenlet {}
                receiver.name = "\(number)"
                receiver.rawLink { _ in log.note("notified \(number)") }
                return receiver
            }
            for receiver in receivers { try source.link(to: receiver) }
            source.rawLink { _ in
                log.note("raw 2")
                // All receivers have ended by now.
                log.note("\(receivers.allSatisfy(\.isDead))")
            }
            source.start()
            _ = try hub.join()
        }
        let last = log.firstIndex(of: "raw 2")
        #expect(log.first == "raw 1" && last != nil)
        #expect(log.filter { $0.hasPrefix("notified") } == (0..<20).map { "notified \($0)" })
        #expect(log.contains("true"))
    }

    @Test("A receiver that was already woken completes its wait; LinkedExited is raised at its next park")
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
            // The notification is a callback queued after the end of the joined greenlet and before the receiver.
            source.start()
            joined.start()
            _ = try hub.join()
        }
        #expect(log == ["get: 1", "sleep: threw <Greenlet<Int> \"source\">"])
    }

    @Test("Two links to one receiver raise one error each; cancelling prevents one")
    func twice() throws {
        let log = try logged { log, hub in
            let source = spawn { try sleep() }
            source.name = "source"
            try source.link(to: .current)
            try source.link(to: .current)
            let third = try source.link(to: .current)
            third.cancel()
            third.cancel()
            for _ in 0..<3 { log.outcome("sleep") { try sleep(for: .seconds(1)) } }
        }
        #expect(
            log == [
                "sleep: threw <Greenlet<()> \"source\">", "sleep: threw <Greenlet<()> \"source\">", "sleep: returned",
            ])
    }

    @Test("A link retains neither side, also when two greenlets are linked to each other")
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

    @Test("A receiver that has been released is ignored")
    func receiverIsReleased() throws {
        let log = try logged { log, hub in
            let source = spawn { try sleep(for: .seconds(1)) }
            try source.link(to: Greenlet {})
            source.rawLink { _ in log.note("notified") }
            _ = try hub.join()
        }
        #expect(log == ["notified"])
    }

    @Test("A greenlet linked to a hub that is destroyed leaves nothing behind")
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

    @Test("The hub cannot be linked to or killed, and a greenlet of another thread throws wrongThread")
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

    @Test("hasLinks reports registrations, not waiters; unlinkAll removes registrations, and no waiter")
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
            removed.cancel()
            log.note("\(greenlet.hasLinks)")
            greenlet.unlinkAll()
            greenlet.unlinkAll()
            token.cancel()
            log.note("\(greenlet.hasLinks)")
            let waitable = greenlet.rawLink { log.note("later") }
            log.note("\(greenlet.hasLinks) \(waitable.isActive)")
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

    @Test("unlinkAll during notification removes links that were not notified yet")
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
