import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Scoped groups")
struct ScopedGroupTests {
    @Test("The scope returns the body's value once all its greenlets have ended")
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

    @Test("Children can spawn siblings up to their last statement, and the scope waits for them")
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

    @Test("killAll ends the current members; the group stays usable")
    func killAllMembers() throws {
        let log = try logged { log, hub in
            try withGroup { group in
                for number in 0..<3 {
                    group.spawn { log.outcome("\(number)") { try sleep(for: .seconds(9)) } }
                }
                group.spawn(after: .seconds(1)) { log.note("never") }
                try sleep()
                group.spawn { log.note("never") }
                try group.killAll(throwing: OwnExit(), blocking: false)
                log.note("\(group.count)")
                group.spawn { log.note("later") }
            }
            log.outcome("with an error") {
                try withGroup { group in
                    group.spawn { log.outcome("child") { try sleep(for: .seconds(9)) } }
                    group.spawn { try sleep(for: .seconds(9)) }
                    try sleep()
                    try group.killAll(throwing: Boom(), blocking: false, sticky: true)
                }
            }
        }
        #expect(
            log == [
                "3", "0: threw OwnExit", "1: threw OwnExit", "2: threw OwnExit", "later", "child: threw Boom",
                "with an error: threw Boom",
            ])
    }

    @Test("killAll of a group waits for the members and throws a Timeout if one survives, like the function")
    func killAllWaits() throws {
        let log = try logged { log, hub in
            log.outcome("scope") {
                try withGroup { group in
                    let stubborn = group.spawn {
                        try? sleep(for: .seconds(1))
                        try? sleep(for: .seconds(3))
                        log.note("stubborn ends")
                    }
                    try sleep()
                    log.outcome("timeout") { try group.killAll(timeout: .seconds(1)) }
                    #expect(!stubborn.isReady)
                    try group.killAll()
                    log.note("\(group.count) left")
                    let member = group.spawn { log.outcome("member") { try group.killAll() } }
                    let other = group.spawn { try sleep(for: .seconds(9)) }
                    try joinAll([member, other])
                }
            }
            log.outcome("late") {
                try withGroup { group in
                    group.spawn { try sleep(for: .seconds(9)) }
                    hub.runCallback { log.note("\(hubErrorCode { try group.killAll() } == .blockedInHub)") }
                    try sleep()
                    try sleep()
                }
            }
        }
        #expect(
            log == [
                "timeout: threw 1 second", "stubborn ends", "0 left", "member: threw GreenletExit", "scope: returned",
                "true", "late: returned",
            ])
    }

    @Test("A greenlet spawned into an ending group ends at once, with an exit, and never runs")
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

    @Test("Scopes nest: a failure ends scopes from the inside out, and each error is thrown by its own scope")
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

    @Test(
        "If nothing can wake a scope's greenlets, main is notified, they are ended, and main throws wouldBlockForever")
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
            // Main's deadlock is not pending for later.
            log.outcome("afterwards") { try sleep(for: .seconds(1)) }
        }
        #expect(
            log == [
                "child: threw GreenletExit", "wouldBlockForever", "child: threw GreenletExit",
                "cleanup: threw GreenletExit", "cleanup that waits forever: threw Boom", "afterwards: returned",
            ])
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

    @Test("A hub destroyed inside or around the scope leaves nothing behind")
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
                    hub.destroy()
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

    @Test("Group, greenlets and captures are released after the scope, however it ended")
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
                    if ending == 4 { try group.killAll(blocking: false, sticky: true) }
                }
                #expect(weakGroup == nil && witnesses == 0)
                // A greenlet ended before it ran stays in the ready queue until the hub reaches it.
                try sleep()
                #expect(weakChild == nil)
            }
        }
    }
}
