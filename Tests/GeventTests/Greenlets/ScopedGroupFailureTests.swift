import Gevent
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Failures in scoped groups")
struct ScopedGroupFailureTests {
    @Test("The earliest failure ends the siblings with GreenletExit; the scope throws it, and it is not reported")
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

    @Test("A failing greenlet interrupts the body's wait; the body may clean up, and the scope throws the failure")
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

    @Test("A body that never waits again does not get the interruption, nor does code after the scope")
    func interruptionIsWithdrawn() throws {
        let log = try logged { log, hub in
            log.outcome("scope") {
                try withGroup { group in
                    let other = spawn { 1 }
                    // This greenlet ends and wakes the body before the child fails, so the interruption finds the body
                    // ready.
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
        "get() of a failed greenlet, and of one ended because of it, in the body: one error, thrown and not reported")
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

    @Test("When the body throws, its greenlets are ended and joined, and the scope throws the body's error")
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

    @Test("Failures after the thrown one are reported")
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

    @Test("An exit is not a failure; a kill with another error is")
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
}
