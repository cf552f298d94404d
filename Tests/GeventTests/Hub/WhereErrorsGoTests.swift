import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// An error that stops the program.
private struct Interrupt: Error, CustomStringConvertible {
    var description: String { "Interrupt" }
}

private class Alarm: Error, @unchecked Sendable {}  // no stored properties
private final class LoudAlarm: Alarm, @unchecked Sendable {}  // no stored properties

/// An exit that stops the program.
private struct SystemExit: GreenletExitError, CustomStringConvertible {
    var description: String { "SystemExit" }
}

@Suite("Error routing")
struct WhereErrorsGoTests {
    @Test("A system error that ends a greenlet is raised in main and not reported; others keep running")
    func systemErrorOfAGreenlet() throws {
        let log = try logged { log, hub in
            hub.systemErrors = [Interrupt.self]
            let failing = spawn {
                try sleep(for: .seconds(1))
                throw Interrupt()
            }
            let other = spawn {
                try sleep(for: .seconds(2))
                log.note("other ends")
            }
            log.outcome("main") { try sleep(for: .seconds(5)) }
            log.note("\(failing.error is Interrupt) \(failing.isSuccessful)")
            log.outcome("get") { try failing.get() }
            log.outcome("main") { try other.join() }
        }
        #expect(
            log == [
                "main: threw Interrupt", "true false", "get: threw Interrupt", "other ends", "main: returned",
            ])
    }

    @Test("System errors of raw greenlets, hub callbacks, links and raw links are raised in main too")
    func systemErrorsElsewhere() throws {
        let log = try logged { log, hub in
            hub.systemErrors = [Interrupt.self]
            spawnRaw { throw Interrupt() }
            log.outcome("raw greenlet") { try sleep(for: .seconds(1)) }
            hub.runCallback { throw Interrupt() }
            log.outcome("callback") { try sleep(for: .seconds(1)) }
            spawn {}.rawLink { _ in throw Interrupt() }
            log.outcome("raw link") { try sleep(for: .seconds(1)) }
            spawn {}.link { _ in throw Interrupt() }
            log.outcome("link") { try sleep(for: .seconds(1)) }
            let unstarted = Greenlet {}
            try unstarted.kill(throwing: Interrupt())
            log.outcome("unstarted") { try sleep(for: .seconds(1)) }
            log.outcome("nothing") { try sleep(for: .seconds(1)) }
        }
        #expect(
            log == ["raw greenlet", "callback", "raw link", "link", "unstarted"].map { "\($0): threw Interrupt" }
                + ["nothing: returned"])
    }

    @Test("A system error reaches main in its join, its get, and hub.join; an exit can be one")
    func systemErrorWhereMainWaits() throws {
        let log = try logged { log, hub in
            hub.systemErrors = [Interrupt.self, SystemExit.self]
            func failing(_ error: any Error) { spawn(after: .seconds(1)) { throw error } }
            let sleeper = spawn { try sleep(for: .seconds(10)) }
            failing(Interrupt())
            log.outcome("join") { try sleeper.join() }
            failing(SystemExit())
            log.outcome("get") { try sleeper.get() }
            failing(Interrupt())
            log.outcome("hub.join") { _ = try hub.join() }
            log.note("\(sleeper.isDead)")
            try sleeper.kill()
        }
        #expect(
            log == ["join: threw Interrupt", "get: threw SystemExit", "hub.join: threw Interrupt", "false"])
    }

    @Test("A scope throws a system error of its greenlets; main gets it when it ends the greenlet around the scope")
    func systemErrorInAGroup() throws {
        let log = try logged { log, hub in
            hub.systemErrors = [Interrupt.self]
            spawn {
                log.outcome("scope") { try withGroup { group in _ = group.spawn { throw Interrupt() } } }
                try withGroup { group in group.spawn { throw Interrupt() } }
            }
            log.outcome("main") { try sleep(for: .seconds(1)) }
            log.outcome("main") { try sleep(for: .seconds(1)) }
        }
        #expect(log == ["scope: threw Interrupt", "main: threw Interrupt", "main: returned"])
    }

    @Test("A type includes its subclasses, and the list is read at each error")
    func subclasses() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { error, _ in log.note("reported \(type(of: error))") }
            hub.systemErrors = [Alarm.self]
            spawn { throw LoudAlarm() }
            do { try sleep(for: .seconds(1)) } catch { log.note("main \(type(of: error))") }
            hub.systemErrors = []
            spawn { throw LoudAlarm() }
            try sleep(for: .seconds(1))
            hub.quietErrors = [Alarm.self]
            spawn { throw LoudAlarm() }
            try sleep(for: .seconds(1))
        }
        #expect(log == ["main LoudAlarm", "reported LoudAlarm"])
    }

    @Test("Quiet errors are not reported, but still count as failures")
    func quietErrors() throws {
        let log = try logged { log, hub in
            hub.quietErrors = [Boom.self]
            let failing = spawn { throw Boom() }
            failing.linkError { _ in log.note("link") }
            spawnRaw { throw Boom() }
            hub.runCallback { throw Boom() }
            hub.runCallback { throw GreenletExit() }
            spawn {}.rawLink { _ in throw Boom() }
            hub.runCallback { throw Interrupt() }
            _ = try hub.join()
            log.note("\(failing.isSuccessful)")
            log.outcome("get") { try failing.get() }
        }
        #expect(log == ["reported Interrupt of no greenlet", "link", "false", "get: threw Boom"])
    }

    @Test("A greenlet can disable reports of its failure, which still counts as a failure and a system error")
    func reportsFailure() throws {
        let log = try logged { log, hub in
            hub.systemErrors = [Alarm.self]
            hub.errorHandler = { error, greenlet in log.note("reported \(error) of \(greenlet?.name ?? "no greenlet")")
            }
            let expected = spawn { throw Boom() }
            #expect(expected.reportsFailure)
            expected.reportsFailure = false
            expected.linkError { _ in log.note("link") }
            let raw = spawnRaw { throw Boom() }
            raw.reportsFailure = false
            let loud = spawn { throw Boom() }
            loud.name = "loud"
            _ = try hub.join()
            log.outcome("get") { try expected.get() }
            spawn { throw Alarm() }.reportsFailure = false
            do { try sleep(for: .seconds(1)) } catch is Alarm { log.note("alarm in main") }
            // The scope does not throw the second failure of a group.
            for reports in [false, true] {
                log.outcome("scope") {
                    try withGroup { group in
                        for name in ["first", "second"] {
                            let member = group.spawn {
                                do { try sleep() } catch { throw Boom() }
                                throw Boom()
                            }
                            member.name = name
                            member.reportsFailure = reports
                        }
                    }
                }
            }
        }
        #expect(
            log == [
                "reported Boom of loud", "link", "get: threw Boom", "alarm in main", "scope: threw Boom",
                "reported Boom of second", "scope: threw Boom",
            ])
    }

    @Test("errorOutput receives the reports; nil disables printing; failures of a handler are printed through it")
    func errorOutput() async throws {
        let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
            let lines = try withHub { hub in
                let log = Log()
                func fail(_ text: String) throws {
                    spawn { throw Boom(text) }.name = "worker"
                    _ = try hub.join()
                }
                hub.errorOutput = { log.note($0) }
                try fail("captured")
                hub.errorOutput = nil
                try fail("suppressed")
                hub.errorOutput = { log.note($0) }
                hub.errorHandler = { _, _ in throw Boom("handler") }
                try fail("unhandled")
                hub.errorOutput = nil
                try fail("lost")
                return log.entries
            }
            let wanted = ["captured", "unhandled", "handler"]
            let isRight =
                lines.count == 3 && zip(lines, wanted).allSatisfy { $0.hasSuffix("\n") && $0.contains("Boom: \($1)") }
            exit(isRight ? 0 : 1)
        }
        #expect(!text(result.standardErrorContent).contains("gevent:"))
    }

    @Test("A system error that ends a greenlet during the hub's destruction is reported: main can no longer get it")
    func systemErrorDuringDestroy() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            hub.systemErrors = [Interrupt.self]
            hub.errorHandler = { error, _ in log.note("reported \(error)") }
            spawn {
                do { try sleep(for: .seconds(1)) } catch { throw Interrupt() }
            }
            try sleep()
            hub.destroy()
            return log.entries
        }
        #expect(log == ["reported Interrupt"])
    }

    @Test("Hubs have names and numbers; a number is free again after its hub is destroyed")
    func hubIdentity() throws {
        try withHub { hub in
            #expect(hub.name == "Hub-\(hub.minimalID)")
            hub.name = "accounts"
            #expect(hub.name == "accounts")
            let outer = hub.minimalID
            let first = try withHub { inner in
                #expect(inner.minimalID != outer)
                return inner.minimalID
            }
            // No other thread makes hubs meanwhile: the suites run one after another.
            let second = try withHub { inner in inner.minimalID }
            #expect(first == second)
        }
    }

    @Test("A greenlet returns its hub until that is destroyed, and not on other threads")
    func hubOfAGreenlet() throws {
        try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            let greenlet = Greenlet {}
            #expect(greenlet.hub === hub && AnyGreenlet.current.hub === hub)
            let foreign = Smuggled(greenlet)
            try onFreshThread { #expect(foreign.value.hub == nil) }
            hub.destroy()
            #expect(greenlet.hub == nil)
            try sleep()
            #expect(greenlet.hub == nil && AnyGreenlet.current.hub === Hub.current)
        }
    }

    @Test("The version has three numbers")
    func versionIsSemantic() {
        let parts = Gevent.version.split(separator: ".")
        #expect(parts.count == 3 && parts.allSatisfy { Int($0) != nil })
    }
}
