import GeventTesting
import Glibc
import Testing

@testable import Gevent

@Suite("Scoped groups")
struct ScopedGroupTests {
    @Test("The scope returns the body's value once all its greenlets are over")
    func joins() throws {
        let log = try logged { log, hub in
            let value = try withGroup { group in
                for number in 0..<3 {
                    group.spawn {
                        try sleep(for: .seconds(3 - number))
                        log.note("\(number) ends")
                    }
                }
                group.spawn(after: .seconds(4)) { log.note("delayed ends") }
                log.note("body ends with \(group.count)")
                return 42
            }
            log.note("\(value)")
        }
        #expect(log == ["body ends with 4", "2 ends", "1 ends", "0 ends", "delayed ends", "42"])
    }

    @Test("Without greenlets, or with finished ones, the scope does not switch")
    func noSwitch() throws {
        let log = try logged { log, hub in
            spawn { log.note("other") }
            log.note("\(try withGroup { _ in 1 })")
            try sleep()
            try withGroup { group in
                let child = group.spawn { 2 }
                log.note("\(try child.get()) \(group.count)")
                spawn { log.note("other") }
            }
            log.note("end")
            try sleep()
        }
        #expect(log == ["1", "other", "2 0", "end", "other"])
    }

    @Test("Children can spawn siblings, also in their last moments, and the scope waits for them")
    func siblings() throws {
        let log = try logged { log, hub in
            try withGroup { group in
                func next(_ depth: Int) {
                    log.note("\(depth)")
                    if depth < 5 { group.spawn { next(depth + 1) } }
                }
                group.spawn { next(0) }
            }
            log.note("end")
        }
        #expect(log == ["0", "1", "2", "3", "4", "5", "end"])
    }

    @Test("The first failure, in time, ends the siblings by GreenletExit and is thrown on, not reported")
    func firstFailure() throws {
        let log = try logged { log, hub in
            let start = hub.now
            var children: [Greenlet<Void>] = []
            log.outcome("scope") {
                try withGroup { group in
                    children.append(
                        group.spawn {
                            log.outcome("parked") { try sleep(for: .seconds(9)) }
                            log.note("cleanup")
                            try sleep(for: .seconds(1))
                        })
                    children.append(
                        group.spawn {
                            try sleep(for: .seconds(2))
                            throw Boom("second")
                        })
                    children.append(
                        group.spawn {
                            try sleep(for: .seconds(1))
                            throw Boom("first")
                        })
                    children.append(group.spawn(after: .seconds(5)) { log.note("never") })
                }
            }
            log.note("\(children.map(\.isDead)) \(children.map(\.isSuccessful))")
            log.note("\(start.duration(to: hub.now))")
            _ = try hub.join()
        }
        #expect(
            log == [
                "parked: threw GreenletExit", "cleanup", "scope: threw first",
                "[true, true, true, true] [true, true, false, true]", "2.0 seconds",
            ])
    }

    @Test("A failing greenlet interrupts the body where it waits; the body may clean up, and the failure is thrown on")
    func interruptsBody() throws {
        let log = try logged { log, hub in
            log.outcome("scope") {
                try withGroup { group in
                    group.spawn { throw Boom() }
                    do {
                        try sleep(for: .seconds(9))
                    } catch {
                        log.note("body: \(error), a control error: \(error is any ControlError)")
                        try sleep(for: .seconds(1))
                        log.note("cleaned up")
                        throw error
                    }
                }
            }
            log.outcome("swallowed") {
                try withGroup { group in
                    group.spawn { throw Boom() }
                    try? sleep(for: .seconds(9))
                    log.note("went on")
                }
            }
            log.outcome("afterwards") { try sleep(for: .seconds(1)) }
        }
        #expect(
            log == [
                "body: a greenlet of the group failed, a control error: true", "cleaned up", "scope: threw Boom",
                "went on", "swallowed: threw Boom", "afterwards: returned",
            ])
    }

    @Test("A body that never waits again does not see the interruption, and neither does what comes after the scope")
    func interruptionIsTakenBack() throws {
        let log = try logged { log, hub in
            log.outcome("scope") {
                try withGroup { group in
                    let other = spawn { 1 }
                    // Ends, and wakes the body, before the child fails: the interruption finds it ready.
                    group.spawn { throw Boom() }
                    log.outcome("join") { try other.join() }
                    log.note("body ends")
                }
            }
            log.outcome("afterwards") { try sleep(for: .seconds(1)) }
        }
        #expect(log == ["join: returned", "body ends", "scope: threw Boom", "afterwards: returned"])
    }

    @Test(
        "get() of a failed greenlet, and of one ended for it, inside the body: one error, thrown on, nothing reported")
    func getInBody() throws {
        let log = try logged { log, hub in
            log.outcome("the failed one") {
                try withGroup { group in
                    let failing = group.spawn { () throws -> Int in throw Boom() }
                    _ = try failing.get()
                }
            }
            log.outcome("the failed one, later") {
                try withGroup { group in
                    let failing = group.spawn { () throws -> Int in throw Boom() }
                    try? sleep(for: .seconds(1))
                    _ = try failing.get()
                }
            }
            log.outcome("a sibling") {
                try withGroup { group in
                    group.spawn { throw Boom() }
                    let sibling = group.spawn { try sleep(for: .seconds(5)) }
                    try? sleep(for: .seconds(1))
                    try sibling.get()
                }
            }
            _ = try hub.join()
        }
        #expect(log == ["the failed one", "the failed one, later", "a sibling"].map { "\($0): threw Boom" })
    }

    @Test("When the body throws, its greenlets are ended and waited for, and its error is thrown on")
    func bodyThrows() throws {
        let log = try logged { log, hub in
            log.outcome("scope") {
                try withGroup { group in
                    group.spawn {
                        log.outcome("child") { try sleep(for: .seconds(9)) }
                        try sleep(for: .seconds(1))
                        log.note("child ends")
                    }
                    group.spawn(after: .seconds(3)) { log.note("never") }
                    try sleep()
                    group.spawn { log.note("never") }
                    throw Boom()
                }
            }
        }
        #expect(log == ["child: threw GreenletExit", "child ends", "scope: threw Boom"])
    }

    @Test("Failures after the one that is thrown on are reported")
    func laterFailures() throws {
        let log = try logged { log, hub in
            log.outcome("a child's first") {
                try withGroup { group in
                    group.spawn { do { try sleep(for: .seconds(9)) } catch { throw Boom("cleanup") } }.name = "late"
                    group.spawn { throw Boom("first") }
                }
            }
            _ = try hub.join()
            log.outcome("the body's first") {
                try withGroup { group in
                    group.spawn { do { try sleep(for: .seconds(9)) } catch { throw Boom("cleanup") } }.name = "late"
                    try sleep()
                    throw Boom("body")
                }
            }
            _ = try hub.join()
            AnyGreenlet.current.name = "main"
            log.outcome("the body's second") {
                try withGroup { group in
                    group.spawn { throw Boom("first") }
                    do { try sleep(for: .seconds(9)) } catch { throw Boom("body") }
                }
            }
            _ = try hub.join()
        }
        #expect(
            log.sorted() == [
                "a child's first: threw first", "reported body of <MainGreenlet \"main\">",
                "reported cleanup of <Greenlet<()> \"late\">", "reported cleanup of <Greenlet<()> \"late\">",
                "the body's first: threw body", "the body's second: threw first",
            ])
    }

    @Test("A silent death is no failure; killed with another error is one")
    func exitsAndKills() throws {
        let log = try logged { log, hub in
            log.outcome("exits") {
                try withGroup { group in
                    group.spawn { throw OwnExit() }
                    let killed = group.spawn { try sleep(for: .seconds(9)) }
                    try sleep()
                    try killed.kill()
                    try group.spawn { 1 }.kill()
                    group.spawn { log.note("others run on") }
                }
            }
            log.outcome("kill with an error") {
                try withGroup { group in
                    let killed = group.spawn { try sleep(for: .seconds(9)) }
                    try sleep()
                    try killed.kill(throwing: Boom("kill"))
                    log.note("never")
                }
            }
            log.outcome("unstarted") {
                try withGroup { group in
                    try group.spawn {}.kill(throwing: Boom("unstarted"))
                }
            }
        }
        #expect(
            log == ["others run on", "exits: returned", "kill with an error: threw kill", "unstarted: threw unstarted"])
    }

    @Test("A kill of the caller ends the greenlets, in the body and in the final wait alike")
    func callerIsKilled() throws {
        let log = try logged { log, hub in
            for place in ["body", "final wait"] {
                let caller = spawn {
                    log.outcome(place) {
                        try withGroup { group in
                            group.spawn { log.outcome("child") { try sleep(for: .seconds(9)) } }
                            if place == "body" { try sleep(for: .seconds(9)) }
                        }
                    }
                }
                try sleep(for: .seconds(1))
                try caller.kill(throwing: OwnExit())
            }
        }
        #expect(
            log == [
                "child: threw GreenletExit", "body: threw OwnExit", "child: threw GreenletExit",
                "final wait: threw OwnExit",
            ])
    }

    @Test(
        "A kill and a failure at the same time: the kill is thrown on and the failure reported",
        arguments: [true, false])
    func killAndFailure(killComesFirst: Bool) throws {
        let log = try logged { log, hub in
            var caller: Greenlet<Void>?
            caller = spawn {
                log.outcome("scope") {
                    try withGroup { group in
                        let child = group.spawn { try sleep(for: .seconds(9)) }
                        child.name = "child"
                        try sleep()
                        hub.runCallback {
                            if killComesFirst { try kill(caller!) }
                            try kill(child, throwing: Boom())
                            if !killComesFirst { try kill(caller!) }
                        }
                        try sleep(for: .seconds(9))
                    }
                }
                log.outcome("afterwards") { try sleep() }
            }
            try caller!.join()
            caller = nil
            _ = try hub.join()
        }
        #expect(
            log.sorted() == [
                "afterwards: returned", "reported Boom of <Greenlet<()> \"child\">", "scope: threw GreenletExit",
            ])
    }

    @Test("A second kill does not end the wait for greenlets that are ending: it hurries them and is raised afterwards")
    func secondKill() throws {
        let log = try logged { log, hub in
            let start = hub.now
            let caller = spawn {
                log.outcome("scope") {
                    try withGroup { group in
                        group.spawn {
                            log.outcome("child") { try sleep(for: .seconds(9)) }
                            log.outcome("cleanup") { try sleep(for: .seconds(99)) }
                            log.outcome("more cleanup") { try sleep(for: .seconds(1)) }
                        }
                        try sleep(for: .seconds(9))
                    }
                }
                log.outcome("afterwards") { try sleep() }
                log.outcome("then") { try sleep() }
            }
            try sleep()
            try sleep()
            try kill(caller, throwing: OwnExit())
            try sleep(for: .seconds(1))
            try kill(caller)
            try sleep()
            try caller.join()
            log.note("\(start.duration(to: hub.now) == .seconds(2))")
        }
        #expect(
            log == [
                "child: threw GreenletExit", "cleanup: threw GreenletExit", "more cleanup: returned",
                "scope: threw OwnExit", "afterwards: threw GreenletExit", "then: returned", "true",
            ])
    }

    @Test("A third kill hurries them once more, and the caller sees one of two kills it has not seen")
    func thirdKill() throws {
        let log = try logged { log, hub in
            let start = hub.now
            let caller = spawn {
                log.outcome("scope") {
                    try withGroup { group in
                        group.spawn { for number in 0..<4 { log.outcome("\(number)") { try sleep(for: .seconds(9)) } } }
                        try sleep(for: .seconds(9))
                    }
                }
                log.outcome("afterwards") { try sleep() }
                log.outcome("then") { try sleep() }
            }
            try sleep()
            try sleep()
            for _ in 0..<4 {
                try kill(caller)
                try sleep()
                try sleep()
                try sleep()
            }
            try caller.join()
            log.note("\(start.duration(to: hub.now) == .zero)")
        }
        #expect(
            log == (0..<4).map { "\($0): threw GreenletExit" } + [
                "scope: threw GreenletExit", "afterwards: threw GreenletExit", "then: returned", "true",
            ])
    }

    @Test("A sticky kill of the caller is sticky for its greenlets")
    func stickyKill() throws {
        let log = try logged { log, hub in
            for moment in ["in the body", "while they end"] {
                let caller = spawn {
                    log.outcome(moment) {
                        try withGroup { group in
                            group.spawn {
                                for number in 0..<3 { log.outcome("\(number)") { try sleep(for: .seconds(9)) } }
                            }
                            try sleep(for: .seconds(9))
                        }
                    }
                    log.outcome("afterwards") { try sleep() }
                }
                try sleep()
                try sleep()
                if moment == "while they end" {
                    try kill(caller)
                    try sleep()
                    try sleep()
                }
                try caller.kill(sticky: true)
            }
        }
        let children = (0..<3).map { "\($0): threw GreenletExit" }
        #expect(
            log == children + ["in the body: threw GreenletExit", "afterwards: threw GreenletExit"]
                + children + ["while they end: threw GreenletExit", "afterwards: threw GreenletExit"])
    }

    @Test(
        "A timeout around the scope ends it and passes through",
        arguments: bothLoops)
    func timeouts(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            log.outcome("value") {
                try withTimeout(.milliseconds(5), timeoutValue: "too late") {
                    try withGroup { group in
                        group.spawn { log.outcome("child") { try sleep(for: .seconds(9)) } }
                    }
                    return "in time"
                }
            }
            log.outcome("afterwards") { try sleep(for: .milliseconds(1)) }
        }
        #expect(
            log == [
                "child: threw GreenletExit", "value: too late", "afterwards: returned",
            ])
    }

    @Test("A second timeout does not end the wait for greenlets that are ending; its scope takes it back unseen")
    func secondTimeout() throws {
        let log = try logged { log, hub in
            log.outcome("nested") {
                try withTimeout(.milliseconds(20), timeoutValue: "outer") {
                    try withTimeout(.milliseconds(5), timeoutValue: "inner") {
                        try withGroup { group in
                            group.spawn {
                                log.outcome("child") { try sleep(for: .seconds(9)) }
                                log.outcome("cleanup") { try sleep(for: .seconds(9)) }
                            }
                            try sleep(for: .seconds(9))
                        }
                        return "in time"
                    }
                }
            }
            log.outcome("afterwards") { try sleep(for: .milliseconds(1)) }
        }
        #expect(
            log == [
                "child: threw GreenletExit", "cleanup: threw GreenletExit", "nested: inner", "afterwards: returned",
            ])
    }

    @Test("Scopes nest: a failure ends the inner one inside out, and each error is thrown by the scope it belongs to")
    func nesting() throws {
        let log = try logged { log, hub in
            log.outcome("outer") {
                try withGroup { outer in
                    outer.spawn {
                        try withGroup { inner in
                            inner.spawn { log.outcome("grandchild") { try sleep(for: .seconds(9)) } }
                        }
                    }
                    log.outcome("inner") {
                        try withGroup { inner in
                            inner.spawn { throw Boom("inner") }
                        }
                    }
                    outer.spawn { throw Boom("outer") }
                    log.outcome("interrupted") {
                        try withGroup { inner in
                            inner.spawn { log.outcome("nephew") { try sleep(for: .seconds(9)) } }
                            try sleep(for: .seconds(9))
                        }
                    }
                }
            }
        }
        #expect(
            log == [
                "inner: threw inner", "grandchild: threw GreenletExit", "nephew: threw GreenletExit",
                "interrupted: threw a greenlet of the group failed", "outer: threw outer",
            ]
        )
    }

    @Test("killAll ends who is there; the group goes on")
    func killAllMembers() throws {
        let log = try logged { log, hub in
            try withGroup { group in
                for number in 0..<3 {
                    group.spawn { log.outcome("\(number)") { try sleep(for: .seconds(9)) } }
                }
                group.spawn(after: .seconds(1)) { log.note("never") }
                try sleep()
                group.spawn { log.note("never") }
                group.killAll(throwing: OwnExit())
                log.note("\(group.count)")
                group.spawn { log.note("later") }
            }
            log.outcome("with an error") {
                try withGroup { group in
                    group.spawn { log.outcome("child") { try sleep(for: .seconds(9)) } }
                    group.spawn { try sleep(for: .seconds(9)) }
                    try sleep()
                    group.killAll(throwing: Boom(), sticky: true)
                }
            }
        }
        #expect(
            log == [
                "3", "0: threw OwnExit", "1: threw OwnExit", "2: threw OwnExit", "later", "child: threw Boom",
                "with an error: threw Boom",
            ])
    }

    @Test("Spawned into a group that is ending: over at once, with an exit, and never run")
    func spawnWhileEnding() throws {
        let log = try logged { log, hub in
            log.outcome("scope") {
                try withGroup { group in
                    group.spawn {
                        try? sleep(for: .seconds(9))
                        let late = group.spawn { log.note("never") }
                        let delayed = group.spawn(after: .seconds(1)) { log.note("never") }
                        log.note("\(late.isDead) \(late.isStarted) \(delayed.isDead) \(late.exit is GreenletExit)")
                    }
                    try sleep()
                    throw Boom()
                }
            }
        }
        #expect(log == ["true false true true", "scope: threw Boom"])
    }

    @Test("Spawning into a group whose scope is over stops the program with a message that says so")
    func spawnAfterwards() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let group = try withGroup { $0 }
                group.spawn {}
            }
        }
        #expect(text(result.standardErrorContent).contains("this group's scope is over"))
    }

    @Test("Spawning into a group on another thread stops the program with a message that says so")
    func spawnElsewhere() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                try withGroup { group in
                    let group = Smuggled(group)
                    try onFreshThread {
                        try sleep()
                        group.value.spawn {}
                    }
                }
            }
        }
        #expect(text(result.standardErrorContent).contains("wrongThread"))
    }

    @Test("In a hub callback a scope is blockedInHub, and its body does not run")
    func inTheHub() throws {
        try withHub { hub in
            var code: HubError.Code?
            hub.runCallback {
                code = hubErrorCode { try withGroup { _ in _ = Issue.record("the body ran") } }
            }
            try sleep()
            #expect(code == .blockedInHub)
        }
    }

    @Test("Greenlets of the scope that nobody can wake: main is told, they are ended, and main's error is the deadlock")
    func deadlock() throws {
        let log = try logged { log, hub in
            let never = Greenlet {}
            let code = hubErrorCode {
                try withGroup { group in
                    _ = group.spawn { log.outcome("child") { try never.join() } }
                }
            }
            log.note(code?.rawValue ?? "none")
            log.outcome("cleanup that waits forever") {
                try withGroup { group in
                    group.spawn {
                        log.outcome("child") { try never.join() }
                        log.outcome("cleanup") { try never.join() }
                    }
                    try sleep()
                    throw Boom()
                }
            }
            // That main was told is not left over for later.
            log.outcome("afterwards") { try sleep(for: .seconds(1)) }
        }
        #expect(
            log == [
                "child: threw GreenletExit", "wouldBlockForever", "child: threw GreenletExit",
                "cleanup: threw GreenletExit", "cleanup that waits forever: threw Boom", "afterwards: returned",
            ])
    }

    @Test("A hub destroyed inside the scope, or around it, leaves nothing behind")
    func destroyed() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            weak var outerGroup: GreenletGroup?
            spawn {
                log.outcome("around") {
                    try withGroup { group in
                        outerGroup = group
                        group.spawn { log.outcome("child") { try sleep(for: .seconds(9)) } }
                    }
                }
            }
            log.outcome("inside") {
                try withGroup { group in
                    group.spawn { log.outcome("own child") { try sleep(for: .seconds(9)) } }
                    try sleep()
                    try sleep()
                    try hub.destroy()
                    log.note("destroyed with \(group.count)")
                }
            }
            #expect(outerGroup == nil)
            return log.entries
        }
        #expect(
            log.sorted() == [
                "around: threw GreenletExit", "child: threw GreenletExit", "destroyed with 0", "inside: returned",
                "own child: threw GreenletExit",
            ])
    }

    @Test("Group, greenlets and what they captured are gone after the scope, whichever way it ended")
    func leaks() throws {
        try withHub { hub in
            hub.errorHandler = { _, _ in }
            for ending in 0..<5 {
                weak var weakGroup: GreenletGroup?
                weak var weakChild: Greenlet<Void>?
                var witnesses = 0
                try? withGroup { group in
                    weakGroup = group
                    for number in 0..<4 {
                        witnesses += 1
                        let witness = Witness { witnesses -= 1 }
                        let child = group.spawn {
                            withExtendedLifetime(witness) {}
                            if ending == 1 && number == 2 { throw Boom() }
                            try sleep(for: .seconds(number))
                            _ = group.count
                        }
                        weakChild = child
                    }
                    if ending == 2 { throw Boom() }
                    if ending == 3 { try withTimeout(.seconds(1)) { _ in try sleep(for: .seconds(9)) } }
                    if ending == 4 { group.killAll(sticky: true) }
                }
                #expect(weakGroup == nil && witnesses == 0)
                // One that was ended unstarted stands in the ready queue until its turn comes.
                try sleep()
                #expect(weakChild == nil)
            }
        }
    }

    @Test("The report of a deadlock names the group that main waits for")
    func reportNamesTheGroup() throws {
        let message = try withHub { hub in
            let never = Greenlet {}
            do {
                try withGroup { group in _ = group.spawn { try never.join() } }
                return ""
            } catch let error as HubError {
                return error.message
            }
        }
        #expect(message.contains("in a wait for the end of <GreenletGroup of 1>"))
    }

    @Test("withGreenlet joins at the end and does not throw the greenlet's failure")
    func withGreenletJoins() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { error, _ in log.note("reported \(error)") }
            let value = try withGreenlet(
                spawn {
                    try sleep(for: .seconds(1))
                    log.note("greenlet ends")
                }
            ) { greenlet in
                log.note("body \(greenlet.isActive)")
                return 5
            }
            log.note("\(value)")
            let failing = spawn { () throws -> Int in throw Boom() }
            log.outcome("failing") { try withGreenlet(failing) { _ in } }
            log.outcome("get") { try failing.get() }
        }
        #expect(
            log == ["body true", "greenlet ends", "5", "reported Boom", "failing: returned", "get: threw Boom"])
    }

    @Test("withGreenlet kills the greenlet with what its body throws, or what interrupts its wait, and throws that on")
    func withGreenletKills() throws {
        let log = try logged { log, hub in
            func watched() -> Greenlet<Void> {
                spawn {
                    do { try sleep(for: .seconds(9)) } catch {
                        log.note("greenlet: \(error)")
                        try sleep(for: .seconds(1))
                        throw error
                    }
                }
            }
            log.outcome("body throws") {
                try withGreenlet(watched()) { _ in
                    try sleep()
                    throw OwnExit()
                }
            }
            let greenlet = watched()
            let caller = spawn { log.outcome("killed") { try withGreenlet(greenlet) { _ in } } }
            try sleep()
            try caller.kill()
            log.note("\(greenlet.isDead)")
        }
        #expect(
            log == [
                "greenlet: OwnExit", "body throws: threw OwnExit", "greenlet: GreenletExit",
                "killed: threw GreenletExit",
                "true",
            ])
    }
}
