import Gevent
import GeventTesting
import Glibc
import Testing

@Suite("Errors")
struct ErrorTests {
    @Test("An uncaught error is reported once to the error handler with its greenlet; others keep running")
    func reportedOnce() throws {
        let log = try logged { log, hub in
            let failing = spawn {
                try sleep()
                throw Boom()
            }
            failing.name = "failing"
            let other = spawn {
                for _ in 0..<3 { try sleep() }
                log.note("other ends")
            }
            try joinAll([failing, other])
            log.outcome("get") { try failing.get() }
            log.outcome("get") { try failing.get() }
            _ = try hub.join()
        }
        #expect(
            log == ["reported Boom of <Greenlet<()> \"failing\">", "other ends", "get: threw Boom", "get: threw Boom"])
    }

    @Test("The error is reported even if another greenlet joins and catches it, with or without links")
    func reportedEvenIfCaught() throws {
        let log = try logged { log, hub in
            let failing = spawn { throw Boom() }
            failing.name = "failing"
            failing.linkError { _ in log.note("link") }
            log.outcome("get") { try failing.get() }
            _ = try hub.join()
        }
        #expect(log.sorted() == ["get: threw Boom", "link", "reported Boom of <Greenlet<()> \"failing\">"])
    }

    @Test("A raw greenlet's error is reported; its exit is not")
    func rawErrors() throws {
        let log = try logged { log, hub in
            let raw = spawnRaw { throw Boom() }
            raw.name = "raw"
            spawnRaw { throw GreenletExit() }
            _ = try hub.join()
        }
        #expect(log == ["reported Boom of <RawGreenlet \"raw\">"])
    }

    @Test("An uncaught Timeout is reported like any error")
    func uncaughtTimeout() throws {
        let log = try logged { log, hub in
            let greenlet = spawn {
                Timeout(.seconds(1)).start()
                try sleep(for: .seconds(5))
            }
            greenlet.name = "late"
            try greenlet.join()
            _ = try hub.join()
            log.note("\(greenlet.isSuccessful)")
        }
        #expect(log == ["reported 1 second of <Greenlet<()> \"late\">", "false"])
    }

    @Test(
        "An error in a hub callback is reported, the loop keeps running, and later sleeps keep their length",
        arguments: bothLoops)
    func callbackError(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            hub.runCallback { throw Boom() }
            hub.runCallback { log.note("next callback") }
            try sleep()
            let before = hub.now
            try sleep(for: .milliseconds(2))
            log.note("\(before.duration(to: hub.now) >= .milliseconds(2))")
        }
        #expect(log == ["reported Boom of no greenlet", "next callback", "true"])
    }

    @Test("An error handler that fails neither stops the hub nor loses the outcome; both errors are printed")
    func failingHandler() async throws {
        let result = try await #require(
            processExitsWith: .success, observing: [\.standardErrorContent]
        ) {
            let outcome = try withHub { hub in
                hub.errorHandler = { _, _ in throw Boom("handler failure") }
                let greenlet = spawn { () throws -> Int in throw Boom("body failure") }
                try greenlet.join()
                try sleep(for: .seconds(1))
                return "\(greenlet.error ?? Boom("lost")) \(try spawn { 1 }.get())"
            }
            exit(outcome == "body failure 1" ? 0 : 1)
        }
        let output = text(result.standardErrorContent)
        #expect(output.contains("Boom: body failure"))
        #expect(output.contains("Boom: handler failure"))
    }

    @Test("An error handler that parks is stopped by blockedInHub, and the hub keeps running")
    func parkingHandler() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in
                log.note("\(hubErrorCode { try sleep() } == .blockedInHub)")
            }
            spawn { throw Boom() }
            _ = try hub.join()
            log.note("\(try spawn { 1 }.get())")
        }
        #expect(log == ["true", "1"])
    }

    @Test("A description that tries to park while its error is printed gets an error, and the error is printed")
    func parkingDescription() throws {
        final class Sleepy: Greenlet<Void> {
            override func run() throws { throw Boom() }
            override var description: String {
                "sleepy, \(hubErrorCode { try sleep(for: .seconds(1)) }?.rawValue ?? "slept")"
            }
        }
        let log = try withHub { hub in
            let log = Log()
            hub.errorOutput = { log.note(String($0.prefix { !$0.isNewline })) }
            let sleepy = Sleepy()
            sleepy.start()
            try sleepy.join()
            try hub.join()
            log.note("\(hub.now.nanoseconds)")
            return log.entries
        }
        #expect(log == ["gevent: sleepy, blockedInHub failed with Boom: Boom", "0"])
    }

    @Test("The error handler is read at each error")
    func handlerIsLookedUp() throws {
        let log = try logged { log, hub in
            for name in ["first", "second"] {
                hub.errorHandler = { error, _ in log.note("\(name) \(error)") }
                spawn { throw Boom() }
                _ = try hub.join()
            }
        }
        #expect(log == ["first Boom", "second Boom"])
    }

    @Test("Without a handler the error, the greenlet and its spawn site are printed to standard error")
    func printedReport() async throws {
        let result = try await #require(
            processExitsWith: .success, observing: [\.standardErrorContent]
        ) {
            try withHub { hub in
                let greenlet = spawn { throw Boom("it went wrong") }
                greenlet.name = "worker"
                hub.runCallback { throw Boom("callback failure") }
                _ = try hub.join()
            }
            exit(0)
        }
        let output = text(result.standardErrorContent)
        #expect(output.contains("gevent: <Greenlet<()> \"worker\"> failed with Boom: it went wrong\n    spawned at "))
        #expect(output.contains("gevent: a hub callback failed with Boom: callback failure"))
    }

    @Test("Errors of greenlets that end during the hub's destruction are reported too")
    func reportedDuringDestroy() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            hub.errorHandler = { error, greenlet in log.note("reported \(error) of \(greenlet?.name ?? "no greenlet")")
            }
            let greenlet = spawn {
                do { try sleep(for: .seconds(1)) } catch { throw Boom("cleanup failed") }
            }
            greenlet.name = "worker"
            try sleep()
            hub.destroy()
            return log.entries
        }
        #expect(log == ["reported cleanup failed of worker"])
    }

    @Test("rethrowControl rethrows kills and timeouts from a catch-all, and nothing else")
    func rethrow() throws {
        let log = try logged { log, _ in
            func guarded(_ error: any Error) throws -> String {
                do { throw error } catch {
                    try rethrowControl(error)
                    return "handled \(error)"
                }
            }
            for error in [Boom(), GreenletExit(), OwnExit(), Timeout(.seconds(1))] as [any Error] {
                log.outcome("guarded") { try guarded(error) }
            }
            try withTimeout(.seconds(1)) { timeout in log.outcome("guarded") { try guarded(timeout) } }
        }
        #expect(
            log == [
                "guarded: handled Boom", "guarded: threw GreenletExit", "guarded: threw OwnExit",
                "guarded: handled 1 second", "guarded: threw 1 second",
            ])
    }
}
