import CGevent
import Gevent
import GeventTesting
import Glibc
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Sticky kills")
struct StickyKillTests {
    @Test("A sticky error is raised again at every later park, until the body ends")
    func everyPark() throws {
        let log = try logged { log, hub in
            let victim = spawn {
                for number in 0..<4 { log.outcome("\(number)") { try sleep(for: .seconds(1)) } }
                log.note("runs on")
            }
            try sleep()
            try victim.kill(sticky: true)
            log.note("\(victim.isSuccessful) \(victim.isDead)")
            log.outcome("the killer") { try sleep() }
        }
        #expect(
            log == [
                "0: threw GreenletExit", "1: threw GreenletExit", "2: threw GreenletExit", "3: threw GreenletExit",
                "runs on", "true true", "the killer: returned",
            ])
    }

    @Test("Every kind of wait throws a sticky error at once, and leaves nothing behind")
    func everyWait() throws {
        try Self.expectThrownAtEvery { _ in
            let (readable, full) = (try Pipe(), try Pipe())
            full.fill()
            let watched = try WatchedDescriptor(dup(readable.readEnd))
            let other = spawn { try sleep(for: .seconds(5)) }
            let unstarted = RawGreenlet {}
            return [
                ("yield", { try sleep() }),
                ("sleep", { try sleep(for: .seconds(1)) }),
                ("sleep, not referenced", { try sleep(for: .seconds(1), referenced: false) }),
                ("idle", { try idle() }),
                ("join", { try other.join() }),
                ("join with timeout", { try other.join(timeout: .seconds(1)) }),
                ("get", { try other.get() }),
                ("joinAll", { try joinAll([other]) }),
                ("kill", { try other.kill() }),
                ("killAll", { try killAll([other]) }),
                ("waitRead", { try waitRead(readable.readEnd) }),
                ("waitWrite", { try waitWrite(full.writeEnd) }),
                ("waitReadable", { _ = try watched.waitReadable() }),
                ("withTimeout", { try withTimeout(.seconds(1)) { _ in try sleep() } }),
                ("withSilentTimeout", { _ = try withSilentTimeout(.seconds(1)) { try sleep() } }),
                ("withGroup", { try withGroup { group in _ = group.spawn { try sleep(for: .seconds(1)) } } }),
                ("withGreenlet", { try withGreenlet(spawn { try sleep(for: .seconds(1)) }) { _ in } }),
                ("switchTo", { try unstarted.switchTo() }),
            ]
        }
    }

    @Test("So does every wait for an event, a result, a permit, an element or several objects")
    func everyObject() throws {
        try Self.expectThrownAtEvery { _ in
            let (event, result, semaphore, waiter) = (Event(), AsyncResult<Int>(), Gevent.Semaphore(0), Waiter<Int>())
            let (empty, full, simple) = (Queue<Int>(), Queue<Int>(maxSize: 1), SimpleQueue<Int>())
            try full.put(1)
            let several: [any Waitable] = [event, result, semaphore]
            return [
                ("Event.wait", { try event.wait() }),
                ("AsyncResult.get", { _ = try result.get() }),
                ("AsyncResult.wait", { try result.wait() }),
                ("Semaphore.acquire", { try semaphore.acquire() }),
                ("Semaphore.wait", { try semaphore.wait() }),
                ("Semaphore.withPermit", { try semaphore.withPermit {} }),
                ("Waiter.get", { _ = try waiter.get() }),
                ("Queue.put", { try full.put(2) }),
                ("Queue.get", { _ = try empty.get() }),
                ("Queue.peek", { _ = try empty.peek() }),
                ("Queue.next", { _ = try empty.next() }),
                ("SimpleQueue.next", { _ = try simple.next() }),
                ("Queue.join", { try full.join() }),
                ("wait(several)", { try Gevent.wait(several) }),
                ("iwait(several)", { try iwait(several) { _, _ in } }),
            ]
        }
    }

    @Test("So does every wait for an external event: the end of a process, the change of a file")
    func everyOutsideEvent() throws {
        // Uses its own process group, so that a wait for any child of the group sees no other.
        let child = try shell("exec setsid sleep 1000")
        defer {
            kill(child, SIGKILL)
            var status: CInt = 0
            Glibc.waitpid(child, &status, 0)
        }
        try #require(block { getpgid(child) == child })
        try Self.expectThrownAtEvery { atEnd in
            let file = try FileWatch(path: "/tmp/gevent-sticky-\(getpid())")
            var watch: ChildWatch?
            atEnd {
                try watch?.cancel()
                try file.cancel()
            }
            return [
                ("FileWatch.wait", { _ = try file.wait() }),
                ("waitPID of one", { _ = try waitPID(child) }),
                ("waitPID of any", { _ = try waitPID(-child) }),
                ("waitPID by signal", { _ = try waitPID(child, options: .stopped) }),
                (
                    "ChildWatch.wait",
                    {
                        watch = try ChildWatch(pid: child, referenced: false)
                        _ = try watch?.wait()
                    }
                ),
            ]
        }
    }

    /// Runs the waits one after another in a greenlet with a sticky kill, and requires that each throws its error.
    /// `prepare` receives a closure that sets the last action.
    private static func expectThrownAtEvery(
        _ prepare: @escaping @Sendable ((@escaping () throws -> Void) -> Void) throws -> [(String, () throws -> Void)]
    ) throws {
        let (log, names) = try withHub { hub in
            let log = Log()
            hub.errorHandler = { error, _ in log.note("reported \(error)") }
            var cleanup: () throws -> Void = {}
            let waits = try prepare { cleanup = $0 }
            let victim = spawn {
                log.outcome("first") { try sleep(for: .seconds(1)) }
                for (name, wait) in waits { log.outcome(name, of: wait) }
            }
            try sleep()
            let before = hub.now
            try victim.kill(throwing: OwnExit(), sticky: true)
            #expect(hub.now == before, "something waited")
            try cleanup()
            _ = try hub.join()
            return (log.entries, ["first"] + waits.map(\.0))
        }
        #expect(log == names.map { "\($0): threw OwnExit" })
    }

    @Test("Calls that need no wait still work under a sticky error")
    func withoutWaiting() throws {
        let log = try logged { log, hub in
            let over = spawn { 3 }
            let victim = spawn {
                log.outcome("sleep") { try sleep(for: .seconds(1)) }
                log.outcome("get") { try over.get() }
                log.outcome("empty group") { try withGroup { _ in 4 } }
                log.outcome("spawn") { spawn { log.note("spawned") }.isStarted }
            }
            try sleep()
            try victim.kill(sticky: true)
            _ = try hub.join()
        }
        #expect(log == ["sleep: threw GreenletExit", "get: 3", "empty group: 4", "spawn: true", "spawned"])
    }

    @Test("Sticky or not, a victim that has not run never runs; dead greenlets are unaffected")
    func unstartedAndDead() throws {
        try withHub { _ in
            let unstarted = Greenlet { 1 }
            try unstarted.kill(sticky: true)
            #expect(unstarted.isDead && unstarted.exit is GreenletExit)
            let scheduled = spawn { 1 }
            try kill(scheduled, sticky: true)
            #expect(scheduled.isDead)
            let dead = spawn { 1 }
            try dead.join()
            try dead.kill(sticky: true)
            #expect(dead.value == 1)
        }
    }

    @Test("A victim that was already woken completes its wait")
    func wokenVictim() throws {
        let log = try logged { log, hub in
            let joined = Greenlet { 1 }
            let victim = spawn {
                log.outcome("get") { try joined.get() }
                log.outcome("sleep") { try sleep() }
                log.outcome("sleep") { try sleep() }
            }
            try sleep()
            joined.start()
            // Main runs between the end of the joined greenlet and the victim.
            try sleep()
            try victim.kill(blocking: false, sticky: true)
            _ = try hub.join()
        }
        #expect(log == ["get: 1", "sleep: threw GreenletExit", "sleep: threw GreenletExit"])
    }

    @Test("Errors pending before it are raised first; later kills and timeouts are never raised")
    func otherErrors() throws {
        let log = try logged { log, hub in
            let victim = spawn {
                for number in 0..<4 { log.outcome("\(number)") { try sleep(for: .seconds(5)) } }
            }
            try sleep()
            try kill(victim, throwing: Boom("earlier"))
            try kill(victim, throwing: OwnExit(), sticky: true)
            try kill(victim, throwing: Boom("later kill"))
            try kill(victim, throwing: Boom("later sticky kill"), sticky: true)
            try kill(victim)
            try victim.join()
        }
        #expect(log == ["0: threw earlier"] + (1..<4).map { "\($0): threw OwnExit" })
    }

    @Test("A Timeout that fires after a sticky error is never raised, and can be started again")
    func timeoutUnderSticky() throws {
        let log = try logged { log, hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            let timeout = Timeout(.zero, throwing: Boom("timeout"))
            let victim = spawn {
                timeout.start()
                for number in 0..<3 { log.outcome("\(number)") { try sleep(for: .seconds(5)) } }
            }
            try sleep()
            // The victim is queued behind these, so the hub checks its timers first.
            for _ in 0..<10 {
                spawn {
                    log.note("pending \(timeout.isPending)")
                    loop.advance(by: .milliseconds(2))
                }
            }
            try kill(victim, sticky: true)
            try victim.join()
            timeout.start()
            log.outcome("main") { try sleep(for: .seconds(1)) }
        }
        #expect(log.contains("pending true") && log.contains("pending false"))
        #expect(
            log.filter { !$0.hasPrefix("pending") }
                == (0..<3).map { "\($0): threw GreenletExit" } + ["main: threw timeout"])
    }

    @Test("A sticky exit replaces a plain exit that was not raised yet")
    func upgrade() throws {
        let log = try logged { log, hub in
            let victim = spawn {
                log.outcome("0") { try sleep(for: .seconds(1)) }
                log.outcome("1") { try sleep(for: .seconds(1)) }
            }
            try sleep()
            try kill(victim, throwing: GreenletExit())
            try kill(victim, throwing: OwnExit(), sticky: true)
            try victim.join()
        }
        #expect(log == ["0: threw OwnExit", "1: threw OwnExit"])
    }

    @Test("A sticky self-kill unwinds immediately and remains")
    func selfKill() throws {
        let log = try logged { log, hub in
            var own: Greenlet<Void>?
            own = spawn {
                log.outcome("kill") { try own!.kill(sticky: true) }
                log.outcome("sleep") { try sleep() }
                log.outcome("non-blocking") { try own!.kill(blocking: false, sticky: true) }
                log.outcome("sleep") { try sleep() }
            }
            try own!.join()
            own = nil
        }
        #expect(
            log == [
                "kill: threw GreenletExit", "sleep: threw GreenletExit", "non-blocking: returned",
                "sleep: threw GreenletExit",
            ])
    }

    @Test("Raw greenlets, main and the members of killAll can be killed stickily too")
    func everyVictim() throws {
        let log = try logged { log, hub in
            func stubborn(_ name: String) -> () -> Void {
                return { for number in 0..<2 { log.outcome("\(name) \(number)") { try sleep(for: .seconds(1)) } } }
            }
            let raw = spawnRaw(stubborn("raw"))
            let freely = spawnRaw(stubborn("freely"))
            let members = [spawn(stubborn("a")), spawn(stubborn("b"))]
            try sleep()
            try raw.kill(sticky: true)
            try kill(freely, sticky: true)
            try killAll(members, sticky: true)
            try kill(.current, throwing: OwnExit(), sticky: true)
            stubborn("main")()
            // Main never ends, so there is nothing to wait for.
            AnyGreenlet.current.dropPendingErrors()
            log.outcome("main") { try sleep() }
        }
        #expect(
            log == ["raw", "freely", "a", "b"].flatMap { name in
                (0..<2).map { "\(name) \($0): threw GreenletExit" }
            } + ["main 0: threw OwnExit", "main 1: threw OwnExit", "main: returned"])
    }

    @Test("destroy() ends greenlets with a sticky error like others, and main's own is dropped with the hub")
    func destroy() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            let victim = spawn {
                for number in 0..<3 { log.outcome("\(number)") { try sleep(for: .seconds(1)) } }
            }
            try sleep()
            try kill(victim, throwing: OwnExit(), sticky: true)
            try kill(.current, sticky: true)
            hub.destroy()
            log.note("\(victim.isDead)")
            try sleep()
            return log.entries
        }
        #expect(log == ["0: threw OwnExit", "1: threw OwnExit", "2: threw OwnExit", "true"])
    }

    @Test("Yields use the fast path again once the victim has ended")
    func fastPathIsRestored() throws {
        try withHub { hub in
            let before = hub.pointer.pointee.slow_path_reasons
            for ending in 0..<3 {
                let victim = spawn {
                    for _ in 0..<3 { try? sleep(for: .seconds(1)) }
                    if ending == 1 { throw GreenletExit() }
                }
                try sleep()
                try victim.kill(sticky: true)
                try sleep()
                #expect(hub.pointer.pointee.slow_path_reasons == before)
            }
        }
    }
}
