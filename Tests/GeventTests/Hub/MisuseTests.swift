import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Misuse")
struct MisuseTests {
    @Test("Using a greenlet on another thread throws wrongThread and does not hang")
    func wrongThread() throws {
        try withHub { _ in
            let live = spawn {
                try sleep(for: .seconds(1))
                return 1
            }
            let unstarted = Greenlet { 2 }
            let ended = spawn { 3 }
            try ended.join()
            let raw = spawnRaw { try sleep(for: .seconds(1)) }
            let greenlets = Smuggled((live: live, unstarted: unstarted, ended: ended, raw: raw))
            // Once on a thread without a hub, once on a thread with its own hub.
            for hasHub in [false, true] {
                try onFreshThread {
                    if hasHub { try sleep() }
                    for greenlet in [greenlets.value.live, greenlets.value.unstarted, greenlets.value.ended] {
                        #expect(hubErrorCode { try greenlet.join() } == .wrongThread)
                        #expect(hubErrorCode { try greenlet.join(timeout: .zero) } == .wrongThread)
                        #expect(hubErrorCode { _ = try greenlet.get() } == .wrongThread)
                        #expect(hubErrorCode { _ = try greenlet.get(blocking: false) } == .wrongThread)
                        #expect(hubErrorCode { _ = try greenlet.get(timeout: Timeout(nil)) } == .wrongThread)
                        #expect(hubErrorCode { try greenlet.kill() } == .wrongThread)
                        #expect(hubErrorCode { try greenlet.kill(blocking: false) } == .wrongThread)
                        #expect(hubErrorCode { try kill(greenlet) } == .wrongThread)
                        #expect(hubErrorCode { try killAll([greenlet]) } == .wrongThread)
                        #expect(hubErrorCode { try joinAll([greenlet]) } == .wrongThread)
                    }
                    #expect(hubErrorCode { try kill(greenlets.value.raw) } == .wrongThread)
                    #expect(hubErrorCode { try greenlets.value.raw.kill() } == .wrongThread)
                }
            }
            #expect(live.isActive && !unstarted.isStarted)
            try #expect(live.get() == 1)
            try sleep()
        }
    }

    @Test("start() on another thread stops the program with a message that says so")
    func startElsewhere() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let greenlet = Smuggled(Greenlet {})
                try onFreshThread { greenlet.value.start() }
            }
        }
        #expect(text(result.standardErrorContent).contains("wrongThread: a greenlet and the objects it waits for"))
    }

    @Test("link() on another thread stops the program with a message that says so")
    func linkElsewhere() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let greenlet = Smuggled(Greenlet {})
                try onFreshThread {
                    try sleep()
                    greenlet.value.link { _ in }
                }
            }
        }
        #expect(text(result.standardErrorContent).contains("wrongThread"))
    }

    @Test("A Timeout cancelled on another thread stops the program with a message that says so")
    func cancelElsewhere() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let timeout = Timeout.startNew(.seconds(1))
                try onFreshThread { timeout.cancel() }
            }
        }
        #expect(text(result.standardErrorContent).contains("wrongThread"))
    }

    @Test("runCallback on another thread stops the program with a message that says so")
    func callbackElsewhere() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { hub in
                let hub = Smuggled(hub)
                try onFreshThread { _ = hub.value.runCallback {} }
            }
        }
        #expect(text(result.standardErrorContent).contains("wrongThread"))
    }

    @Test("Joining a hub on another thread, or using its descriptor there, throws wrongThread")
    func hubElsewhere() throws {
        try withHub { hub in
            let pipe = try Pipe()
            let things = Smuggled((hub: hub, watched: try WatchedDescriptor(dup(pipe.readEnd))))
            try onFreshThread {
                #expect(hubErrorCode { _ = try things.value.hub.join() } == .wrongThread)
                #expect(hubErrorCode { _ = try things.value.watched.waitReadable() } == .wrongThread)
                #expect(hubErrorCode { try things.value.watched.close() } == .wrongThread)
                #expect(hubErrorCode { _ = try things.value.watched.detach() } == .wrongThread)
            }
        }
    }

    @Test("A subclass without an override of run() reports that")
    func withoutRun() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            final class Empty: Greenlet<Int> {}
            try withHub { _ in
                let greenlet = Empty()
                greenlet.start()
                try greenlet.join()
            }
        }
        #expect(text(result.standardErrorContent).contains("Empty was made without a body and does not override run()"))
    }

    @Test("A hub cannot exist in a task, even if a synchronous helper hides the call")
    func inATask() async {
        func helper() -> [HubError.Code?] {
            [
                hubErrorCode { try sleep(for: .milliseconds(1)) }, hubErrorCode { try Hub.start() },
                hubErrorCode { try Hub.start(on: VirtualLoop()) },
                hubErrorCode { try withTimeout(.seconds(1)) { _ in } },
                hubErrorCode { try withTimeout(.seconds(1), timeoutValue: ()) {} },
                hubErrorCode { try withSilentTimeout(.seconds(1)) {} },
            ]
        }
        let codes = await Task.detached { helper() }.value
        #expect(codes == Array(repeating: .wrongThread, count: 6))
        #expect(!Hub.exists)
    }

    // MARK: Settings

    @Test("An unknown GEVENT_LOOP throws an error that lists the linked loops")
    func unknownLoop() async throws {
        let result = try await #require(processExitsWith: .exitCode(3), observing: [\.standardErrorContent]) {
            try onFreshThread {
                setenv("GEVENT_LOOP", "nonsense", 1)
                for start in [{ _ = try Hub.start() }, { try sleep() }, { try joinAll([Greenlet<Void>]()) }] {
                    do {
                        try start()
                        exit(0)
                    } catch let error as ConfigurationError {
                        guard error.code == .noSuchLoop, !Hub.exists else { exit(1) }
                        printToStandardError("\(error)\n")
                    }
                }
                exit(3)
            }
        }
        let output = text(result.standardErrorContent)
        #expect(output.contains("GEVENT_LOOP=\"nonsense\": no loop of that name is linked into this program"))
        #expect(output.contains("linked: epoll"))
    }

    @Test("A function that cannot throw stops the program with the same message")
    func unknownLoopInSpawn() async throws {
        let result = try await #require(processExitsWith: .exitCode(78), observing: [\.standardErrorContent]) {
            try onFreshThread {
                setenv("GEVENT_LOOP", "eploll", 1)
                spawn {}
            }
        }
        let output = text(result.standardErrorContent)
        #expect(output.contains("GEVENT_LOOP=\"eploll\": no loop of that name"))
        #expect(output.contains("Did you mean \"epoll\"?"))
        #expect(output.hasPrefix("gevent: ") && output.split(separator: "\n").count == 1)
    }

    @Test(
        "A function that cannot throw, called by a helper in a task, stops the program with one line that states the reason"
    )
    func unthrowableInATask() async throws {
        let result = try await #require(processExitsWith: .exitCode(70), observing: [\.standardErrorContent]) {
            func helper() { spawn {} }
            await Task.detached { helper() }.value
        }
        let output = text(result.standardErrorContent)
        #expect(output.hasPrefix("gevent: wrongThread: there can be no hub here: this is a task"))
        #expect(output.split(separator: "\n").count == 1)
    }

    @Test("A list of loops selects the first usable one")
    func listOfLoops() async {
        await #expect(processExitsWith: .success) {
            try onFreshThread {
                setenv("GEVENT_LOOP", "nonsense, EPOLL", 1)
                try Hub.start()
                exit(Hub.current.loopName == "epoll" ? 0 : 1)
            }
        }
    }

    @Test("A linked loop that fails to start throws an error with the reason, or is skipped in a list")
    func brokenLoop() async throws {
        let result = try await #require(processExitsWith: .exitCode(3), observing: [\.standardErrorContent]) {
            try onFreshThread {
                LoopBackend.register(
                    LoopBackend(name: "broken") { (_) throws(LoopError) in
                        throw LoopError(.unsupported, operation: "broken_init", message: "not on this kernel")
                    })
                setenv("GEVENT_LOOP", "epoll", 1)
                // Settings made in code override the environment.
                try Gevent.configuration.set(.loop, to: "broken")
                do {
                    try Hub.start()
                    exit(1)
                } catch let error as ConfigurationError {
                    guard error.code == .loopFailed, !Hub.exists else { exit(2) }
                    printToStandardError("\(error)\n")
                }
                exit(3)
            }
        }
        #expect(
            text(result.standardErrorContent).hasPrefix(
                "GEVENT_LOOP=\"broken\" (set in code): broken could not be started: broken_init: not on this kernel "
                    + "(linked: epoll,"))
        await #expect(processExitsWith: .success) {
            try onFreshThread {
                LoopBackend.register(
                    LoopBackend(name: "broken") { (_) throws(LoopError) in
                        throw LoopError(.unsupported, operation: "broken_init", message: "not on this kernel")
                    })
                setenv("GEVENT_LOOP", "broken,epoll", 1)
                let hub = try Hub.start()
                exit(hub.loopName == "epoll" && hub.loopReason.contains("broken could not be started") ? 0 : 1)
            }
        }
    }

    @Test("After the first hub is made, selecting another loop throws")
    func loopTooLate() async throws {
        let result = try await #require(processExitsWith: .exitCode(3), observing: [\.standardErrorContent]) {
            try onFreshThread {
                setenv("GEVENT_LOOP", "epoll", 1)
                try Hub.start()
                do {
                    try Gevent.configuration.set(.loop, to: "libuv")
                } catch let error as ConfigurationError where error.code == .tooLate {
                    printToStandardError("\(error)\n")
                    exit(3)
                }
                exit(1)
            }
        }
        #expect(text(result.standardErrorContent).hasPrefix("GEVENT_LOOP cannot be changed to \"libuv\" any more"))
    }

    @Test("An invalid value of another setting throws too, and so does a change after the first hub")
    func otherSettings() async {
        await #expect(processExitsWith: .success) {
            try onFreshThread {
                setenv("GEVENT_STACK_SIZE", "huge", 1)
                do {
                    try Hub.start()
                    exit(1)
                } catch let error as ConfigurationError {
                    if error.setting != "GEVENT_STACK_SIZE" { exit(2) }
                }
                // Code may correct an invalid value from the environment.
                try Gevent.configuration.set(.stackSize, to: 128 << 10)
                try Hub.start()
                // Rounded up, never down.
                guard (128 << 10..<160 << 10).contains(RuntimeFacts.current.stackSize) else { exit(3) }
                do {
                    try Gevent.configuration.set(.stackSize, to: 64 << 10)
                    exit(4)
                } catch let error as ConfigurationError {
                    exit(error.code == .tooLate ? 0 : 5)
                }
            }
        }
    }
}
