import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A failure is reported as its greenlet ends, so no kind of process exit loses the report.
@Suite("Immediate reports")
struct ReportedAtOnceTests {
    @Test("A failure is reported before anything else runs, even that of a greenlet that never ran")
    func beforeAnythingElse() throws {
        let log = try logged { log, _ in
            let failing = spawn { throw Boom() }
            failing.name = "failing"
            failing.link { _ in log.note("link") }
            spawn { log.note("next") }
            try sleep()
            log.note("main")
            let unstarted = Greenlet {}
            unstarted.name = "unstarted"
            unstarted.rawLink { _ in log.note("raw link") }
            try unstarted.kill(throwing: Boom())
            log.note("killed")
            try sleep()
            spawnRaw { throw Boom() }.name = "raw"
            spawn { log.note("last") }
            try sleep()
        }
        #expect(
            log == [
                "reported Boom of <Greenlet<()> \"failing\">", "next", "main",
                "reported Boom of <Greenlet<()> \"unstarted\">", "killed", "link", "raw link",
                "reported Boom of <RawGreenlet \"raw\">", "last",
            ])
    }

    @Test("The handler runs on the hub, where it cannot park, however the greenlet ended")
    func onTheHub() throws {
        let log = try withHub { hub in
            let log = Log()
            hub.errorHandler = { error, greenlet in
                let parking = hubErrorCode { try sleep() }?.rawValue ?? "parked"
                log.note("\(error) of \(greenlet?.name ?? "no greenlet"): \(AnyGreenlet.current), \(parking)")
                // Links made now follow those made before.
                (greenlet as? Greenlet<Void>)?.link { _ in log.note("late link") }
                spawn { log.note("spawned by the handler") }
            }
            func unstarted(_ name: String) -> Greenlet<Void> {
                let greenlet = Greenlet {}
                greenlet.name = name
                greenlet.link { _ in log.note("early link") }
                return greenlet
            }
            // Ended by main before the hub has run at all, by a greenlet, and in a callback.
            try unstarted("a").kill(throwing: Boom())
            try hub.join()
            try spawn { try unstarted("b").kill(throwing: Boom()) }.join()
            try hub.join()
            hub.runCallback { try unstarted("c").kill(throwing: Boom(), blocking: false) }
            try hub.join()
            let own = spawn { throw Boom() }
            own.name = "d"
            own.link { _ in log.note("early link") }
            try hub.join()
            return log.entries
        }
        #expect(
            log
                == ["a", "b", "c", "d"].flatMap {
                    [
                        "Boom of \($0): <HubGreenlet>, blockedInHub", "spawned by the handler", "early link",
                        "late link",
                    ]
                })
    }

    @Test("A dump in the handler shows the live greenlets, without the failed one")
    func dumpInTheHandler() throws {
        let log = try withHub { hub in
            let log = Log()
            hub.errorHandler = { _, greenlet in
                let dump = dumpGreenlets()
                log.note("\(dump.contains("failing")) \(dump.contains("sleeping")) \(greenlet?.isDead == true)")
            }
            let sleeping = spawn { try sleep(for: .seconds(1)) }
            sleeping.name = "sleeping"
            try sleep()
            spawn { throw Boom() }.name = "failing"
            try sleep()
            try sleeping.join()
            return log.entries
        }
        #expect(log == ["false true true"])
    }

    @Test("A kill from the error handler reaches the greenlet that was running at the report")
    func handlerKillsTheKiller() throws {
        let log = try withHub { hub in
            let log = Log()
            let killer = Greenlet {
                let unstarted = Greenlet {}
                try unstarted.kill(throwing: Boom())
                log.note("continues")
                try sleep(for: .seconds(1))
                log.note("never")
            }
            hub.errorHandler = { error, _ in
                log.note("reported \(error)")
                try kill(killer)
            }
            killer.start()
            try killer.join()
            log.note("\(killer.exit.map { "\($0)" } ?? "none")")
            return log.entries
        }
        #expect(log == ["reported Boom", "continues", "GreenletExit"])
    }

    @Test("A handler whose kill makes another greenlet fail is called for that failure too")
    func nested() throws {
        let log = try withHub { hub in
            let log = Log()
            let second = Greenlet {}
            second.name = "second"
            hub.errorHandler = { error, greenlet in
                log.note("begin \(greenlet?.name ?? "no greenlet")")
                try second.kill(throwing: Boom(), blocking: false)
                log.note("end \(greenlet?.name ?? "no greenlet")")
            }
            spawn { throw Boom() }.name = "first"
            try hub.join()
            return log.entries
        }
        #expect(log == ["begin first", "begin second", "end second", "end first"])
    }

    @Test("A scope's failures that it does not throw are reported before it ends")
    func inAGroup() throws {
        let log = try logged { log, _ in
            log.outcome("group") {
                try withGroup { group in
                    group.spawn {
                        do { try sleep(for: .seconds(2)) } catch { throw Boom("second") }
                    }
                    group.spawn {
                        try sleep(for: .seconds(1))
                        throw Boom("first")
                    }
                    log.outcome("body") { try sleep(for: .seconds(5)) }
                    throw Boom("third")
                }
            }
        }
        #expect(
            log.filter { !$0.hasPrefix("body") }.map { $0.split(separator: " of ")[0] } == [
                "reported second", "reported third", "group: threw first",
            ])
    }

    @Test(
        "exit() right after a failure, in main, in the next greenlet, or after a kill, loses no report",
        arguments: ["main", "greenlet", "kill"])
    func processExits(_ way: String) async throws {
        let result: ExitTest.Result
        switch way {
        case "main":
            result = try await #require(processExitsWith: .exitCode(3), observing: [\.standardErrorContent]) {
                try withHub(on: .configured) { _ in
                    spawn { throw Boom("went wrong") }
                    try sleep()
                    exit(3)
                }
            }
        case "greenlet":
            result = try await #require(processExitsWith: .exitCode(3), observing: [\.standardErrorContent]) {
                try withHub(on: .configured) { _ in
                    spawn { throw Boom("went wrong") }
                    spawn { exit(3) }
                    try sleep()
                }
            }
        default:
            result = try await #require(processExitsWith: .exitCode(3), observing: [\.standardErrorContent]) {
                try withHub(on: .configured) { _ in
                    try Greenlet {}.kill(throwing: Boom("went wrong"))
                    exit(3)
                }
            }
        }
        #expect(text(result.standardErrorContent).contains("failed with Boom: went wrong"))
    }
}
