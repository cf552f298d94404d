import Gevent
import GeventTesting
import Glibc
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Destroying a hub")
struct HubDestroyTests {
    @Test("destroy() twice is harmless, and the next use makes a new hub")
    func destroyTwice() throws {
        try onFreshThread {
            let hub = try Hub.start()
            hub.destroy()
            hub.destroy()
            #expect(!Hub.exists)
            try #expect(spawn { 1 }.get() == 1)
            #expect(Hub.current !== hub)
            Hub.current.destroy()
        }
    }

    @Test("destroy() unwinds every parked greenlet, ends the unstarted, and notifies their links")
    func destroyUnwinds() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            let pipe = try Pipe()
            let never = Greenlet {}
            let parks: [(String, () throws -> Void)] = [
                ("sleep", { try sleep(for: .seconds(1)) }), ("join", { try never.join() }),
                ("read", { try waitRead(pipe.readEnd) }), ("yield", { while true { try sleep() } }),
            ]
            let greenlets = parks.map { name, park in spawn { log.outcome(name, of: park) } }
            greenlets[0].rawLink { _ in log.note("raw link") }
            greenlets[1].link { _ in log.note("link") }
            try sleep()
            let unstarted = spawn { log.note("never") }
            let delayed = spawn(after: .seconds(1)) { log.note("never") }
            unstarted.rawLink { _ in log.note("unstarted's link") }
            hub.destroy()
            log.note("\((greenlets + [unstarted, delayed]).allSatisfy(\.isDead)) \(unstarted.exit != nil)")
            return log.entries
        }
        #expect(
            log.sorted() == [
                "join: threw GreenletExit", "link", "raw link", "read: threw GreenletExit",
                "sleep: threw GreenletExit", "true true", "unstarted's link", "yield: threw GreenletExit",
            ])
    }

    @Test("During destroy(), waits in cleanup code are interrupted until the greenlet ends")
    func destroyInterruptsCleanup() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            spawn {
                for round in 0..<3 { log.outcome("\(round)") { try sleep(for: .seconds(1000)) } }
                log.note("ends at \(hub.now.nanoseconds)")
            }
            try sleep()
            hub.destroy()
            return log.entries
        }
        #expect(
            log == ["0: threw GreenletExit", "1: threw GreenletExit", "2: threw GreenletExit", "ends at 0"])
    }

    @Test("destroy() unwinds everything even with an error pending in main")
    func destroyWithPendingError() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            let main = AnyGreenlet.current
            spawn {
                defer { log.note("unwound") }
                do { try sleep(for: .seconds(1)) } catch {
                    try kill(main, throwing: Boom())
                    try sleep(for: .seconds(1))
                }
            }
            try sleep()
            try kill(main)
            hub.destroy()
            return log.entries
        }
        #expect(log == ["unwound"])
    }

    @Test(
        "A greenlet that catches every error is abandoned; destroy() returns, and its Timeout is not pending",
        .disabled(if: isSanitized, "what it held is lost, as documented"))
    func abandoned() throws {
        try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            let timeout = Timeout(.seconds(1_000_000))
            let sleeper = spawn {
                timeout.start()
                while true { try? sleep(for: .seconds(1)) }
            }
            let spinner = spawn {
                while true {
                    try? sleep()
                    _ = AnyGreenlet.current
                }
            }
            try sleep()
            hub.destroy()
            #expect(sleeper.isDead && spinner.isDead)
            #expect(!timeout.isPending)
            // It can be used in the thread's next hub like any other.
            timeout.cancel()
            try #expect(withTimeout(.seconds(1)) { _ in 1 } == 1)
            timeout.start()
            timeout.cancel()
            Hub.current.destroy()
        }
    }

    @Test("destroy() delivers pending reports and pending notifications of links")
    func destroyReports() throws {
        struct Oops: Error {}
        let log = try onFreshThread { () -> [String] in
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            hub.errorHandler = { error, _ in log.note("reported \(error)") }
            let failing = spawn { throw Oops() }
            failing.rawLink { _ in log.note("linked") }
            hub.runCallback { log.note("ran") }
            try sleep()
            spawn { throw Oops() }
            hub.runCallback { log.note("never") }
            try sleep()
            hub.destroy()
            return log.entries
        }
        #expect(log.filter { $0 == "reported Oops()" }.count == 2)
        #expect(log.contains("linked"))
    }

    @Test("destroy() inside a timeout that has fired but was not raised yet")
    func destroyUnderFiredTimeout() throws {
        try onFreshThread {
            let loop = try VirtualLoop()
            let hub = try Hub.start(on: loop)
            try withTimeout(.milliseconds(5)) { _ in
                loop.advance(by: .milliseconds(10))
                // The hub checks its timers while main is in the ready queue.
                hub.runCallback {}
                try sleep()
                hub.destroy()
            }
        }
    }

    @Test("A job dropped with its hub may post from the deinit of its captures")
    func droppedJobsPost() throws {
        final class Replier: Sendable {
            let handle: HubHandle
            init(_ handle: HubHandle) { self.handle = handle }
            deinit { handle.post {} }
        }
        try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            let replier = Replier(hub.handle)
            hub.handle.post { _ = replier }
            hub.destroy()
        }
    }

    @Test("destroy() in another greenlet, or on another thread, stops the program with a message that says so")
    func destroyAway() async throws {
        let inGreenlet = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { hub in try spawn { hub.destroy() }.join() }
        }
        #expect(text(inGreenlet.standardErrorContent).contains("a hub is destroyed from its main greenlet"))
        let elsewhere = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { hub in
                let hub = Smuggled(hub)
                try onFreshThread { hub.value.destroy() }
            }
        }
        #expect(text(elsewhere.standardErrorContent).contains("wrongThread"))
    }

    @Test("destroy() works in a defer, also when an error leaves the scope")
    func destroyInDefer() throws {
        let log = try onFreshThread {
            let log = Log()
            func run() throws {
                let hub = try Hub.start(on: VirtualLoop())
                defer { hub.destroy() }
                spawn {
                    defer { log.note("unwound") }
                    try sleep(for: .seconds(1))
                }
                try sleep()
                throw Boom()
            }
            log.outcome("run") { try run() }
            log.note("\(Hub.exists)")
            return log.entries
        }
        #expect(log == ["unwound", "run: threw Boom", "false"])
    }

    @Test("A thread that ends destroys its hub: greenlets unwind, descriptors are closed")
    func threadExit() throws {
        let unwound = Counter()
        let before = openDescriptorCount()
        try onFreshThread {
            spawn {
                defer { unwound.add() }
                try sleep(for: .seconds(1000))
            }
            try sleep()
        }
        #expect(unwound.count == 1)
        #expect(openDescriptorCount() == before)
    }

    @Test("Make-and-destroy in ten threads leaks no greenlet, no descriptor and no hub")
    func makeAndDestroy() throws {
        let before = openDescriptorCount()
        for _ in 0..<10 {
            let isReleased = try onFreshThread {
                weak var hub: Hub?
                weak var greenlet: Greenlet<Void>?
                try makeAndDestroyOne {
                    hub = $0
                    greenlet = $1
                }
                return hub == nil && greenlet == nil
            }
            #expect(isReleased)
        }
        #expect(openDescriptorCount() == before)
    }

    @Test("Objects of a destroyed hub are refused in the thread's next hub")
    func afterDestroy() throws {
        try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            let greenlet = Greenlet {}
            let ended = spawn { 1 }
            try ended.join()
            let pipe = try Pipe()
            let watched = try WatchedDescriptor(dup(pipe.readEnd))
            hub.destroy()
            // The next hub often reuses the last one's memory.
            let next = try Hub.start(on: VirtualLoop())
            #expect(hubErrorCode { try greenlet.join() } == .destroyed)
            #expect(hubErrorCode { try greenlet.kill() } == .destroyed)
            #expect(hubErrorCode { _ = try ended.get() } == .destroyed)
            #expect(ended.value == 1)
            #expect(hubErrorCode { _ = try watched.waitReadable() } == .destroyed)
            #expect(hubErrorCode { try watched.close() } == .destroyed)
            #expect(hubErrorCode { _ = try hub.join() } == .destroyed)
            #expect(hub.statistics == HubStatistics())
            next.destroy()
        }
    }
}

private func makeAndDestroyOne(_ see: (Hub, Greenlet<Void>) -> Void) throws {
    let hub = try Hub.start()
    let greenlet = spawn { try sleep(for: .seconds(1000)) }
    see(hub, greenlet)
    try sleep()
    hub.destroy()
}
