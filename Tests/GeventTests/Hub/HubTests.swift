import CGevent
import Gevent
import GeventTesting
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Hub")
struct HubTests {
    // MARK: Blocking forever

    @Test(
        "With all greenlets parked forever, main throws wouldBlockForever, also when it joins or gets one of them",
        arguments: bothLoops)
    func wouldBlockForever(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let never = Greenlet {}
            let parked = (0..<3).map { _ in
                spawn {
                    try never.join()
                    return 1
                }
            }
            log.note("\(hubErrorCode { try never.join() } == .wouldBlockForever)")
            log.note("\(hubErrorCode { try parked[0].join() } == .wouldBlockForever)")
            log.note("\(hubErrorCode { _ = try parked[1].get() } == .wouldBlockForever)")
            log.note("\(hubErrorCode { try joinAll(parked) } == .wouldBlockForever)")
            // A timer prevents the deadlock.
            try parked[0].join(timeout: .milliseconds(1))
            // The hub remains usable, and the parked greenlets are unaffected.
            log.note("\(try spawn { 7 }.get())")
            try sleep(for: .milliseconds(1))
            never.start()
            log.note("\(try joinAll(parked).compactMap(\.value))")
        }
        #expect(log == ["true", "true", "true", "true", "7", "[1, 1, 1]"])
    }

    @Test("wouldBlockForever is thrown to main only: a greenlet that joins an unstarted one stays parked")
    func onlyMainThrows() throws {
        let log = try logged { log, _ in
            let never = Greenlet {}
            let waiter = spawn { log.outcome("waiter") { try never.join() } }
            log.note("\(hubErrorCode { try waiter.join() } == .wouldBlockForever)")
            log.note("\(waiter.isActive)")
            try waiter.kill()
        }
        #expect(log == ["true", "true", "waiter: threw GreenletExit"])
    }

    @Test("The error reports every parked greenlet: its wait, the duration and the spawn site")
    func deadlockReport() throws {
        let message = try withHub { hub in
            let never = Greenlet {}
            never.name = "never"
            let joiner = spawn { try never.join() }
            joiner.name = "joiner"
            let group = spawn { _ = try joinAll([never]) }
            group.name = "group"
            try sleep(for: .seconds(5))
            var message = ""
            do { try joiner.join() } catch let error as HubError { message = error.description }
            try killAll([joiner, group])
            return message
        }
        #expect(message.hasPrefix("wouldBlockForever: nothing is ready"))
        #expect(message.contains("Parked greenlets: 3"))
        #expect(message.contains("<MainGreenlet> parked for 0 s in join of <Greenlet<()> \"joiner\">"))
        #expect(message.contains("<Greenlet<()> \"joiner\"> parked for 5 s in join of <Greenlet<()> \"never\">"))
        #expect(message.contains("<Greenlet<()> \"group\"> parked for 5 s in joinAll"))
        #expect(message.contains("spawned at"))
        #expect(message.contains("HubTests"))
    }

    @Test("The parked duration is correct in a hub without timers too")
    func parkedSince() throws {
        let message = try withHub { hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            let never = Greenlet {}
            var waiter: Greenlet<Void>?
            loop.advance(by: .seconds(10))
            let box = Smuggled(hub.hold())
            let handle = hub.handle
            let thread = TestThread { handle.post { box.value.cancel() } }
            // The hub polls at least once.
            _ = try hub.join()
            thread.join()
            waiter = spawn { try never.join() }
            var message = ""
            do { try waiter!.join() } catch let error as HubError { message = error.description }
            try waiter!.kill()
            waiter = nil
            return message
        }
        #expect(message.contains("<MainGreenlet> parked for 0 s"))
    }

    @Test(
        "Descriptor waits and pending referenced Timeouts count as work; the hub waits for them", arguments: bothLoops)
    func workThatCounts(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let pipe = try Pipe()
            let reader = spawn { try waitRead(pipe.readEnd) }
            try sleep()
            // Another thread writes: this thread has nothing ready and no timer.
            let end = pipe.writeEnd
            try onFreshThread {
                var byte: UInt8 = 1
                _ = write(end, &byte, 1)
            }
            try reader.join()
            log.note("read")
            let never = Greenlet {}
            Timeout(.milliseconds(1)).start()
            log.outcome("join") { try never.join() }
        }
        #expect(log == ["read", "join: threw 0.001 seconds"])
    }

    // MARK: hub.join

    @Test(
        "hub.join() runs until no work remains; it is repeatable, and the hub is usable in between",
        arguments: bothLoops)
    func hubJoin(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            log.note("\(try hub.join())")
            for round in 0..<2 {
                spawn {
                    try sleep(for: .milliseconds(1))
                    spawn(after: .milliseconds(1)) { log.note("\(round)") }
                }
                log.note("\(try hub.join())")
                log.note("\(try hub.join())")
                log.note("\(try spawn { "used" }.get())")
            }
        }
        #expect(log == ["true"] + (0..<2).flatMap { ["\($0)", "true", "true", "used"] })
    }

    @Test("hub.join() returns when only greenlets that can never wake remain, and those are unaffected")
    func hubJoinWithParked() throws {
        let log = try logged { log, hub in
            let never = Greenlet {}
            let parked = spawn { log.outcome("parked") { try never.join() } }
            log.note("\(try hub.join())")
            log.note("\(parked.isActive)")
            never.start()
            log.note("\(try hub.join())")
        }
        #expect(log == ["true", "true", "parked: returned", "true"])
    }

    @Test(
        "hub.join(timeout:) is false when work remains; the worker is unaffected, and the timer keeps nothing waiting",
        arguments: bothLoops)
    func hubJoinTimeout(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let worker = spawn {
                try sleep(for: .milliseconds(20))
                return 1
            }
            log.note("\(try hub.join(timeout: .milliseconds(1))) \(worker.isActive)")
            log.note("\(try hub.join(timeout: .seconds(1000))) \(worker.value ?? 0)")
            log.note("\(try hub.join(timeout: .seconds(1000)))")
        }
        #expect(log == ["false true", "true 1", "true"])
    }

    @Test("hub.join() outside main throws")
    func hubJoinAway() throws {
        let log = try logged { log, hub in
            try spawn { log.note("\(hubErrorCode { _ = try hub.join() } == .invalidSwitch)") }.join()
            hub.runCallback { log.note("\(hubErrorCode { _ = try hub.join() } == .invalidSwitch)") }
            try sleep()
        }
        #expect(log == ["true", "true"])
    }

    @Test("An error thrown into main ends hub.join()")
    func hubJoinInterrupted() throws {
        let log = try logged { log, hub in
            let main = AnyGreenlet.current
            spawn(after: .seconds(1)) { try kill(main, throwing: Boom()) }
            let worker = spawn { try sleep(for: .seconds(5)) }
            log.outcome("join") { try hub.join() }
            log.outcome("timeout") { try withTimeout(.seconds(1)) { _ in try hub.join() } }
            log.note("\(worker.isActive)")
            log.outcome("join") { try hub.join() }
            // It no longer waits: a deadlock is an error again.
            log.note("\(hubErrorCode { try Greenlet {}.join() } == .wouldBlockForever)")
        }
        #expect(log == ["join: threw Boom", "timeout: threw 1 second", "true", "join: true", "true"])
    }

    // MARK: Callbacks

    @Test(
        "A new hub runs a queued callback and returns; without work it returns at once; both are repeatable",
        arguments: bothLoops)
    func freshHub(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            for round in 0..<2 {
                hub.runCallback { log.note("\(round)") }
                log.note("\(try hub.join())")
                log.note("\(try hub.join())")
            }
        }
        #expect(log == ["0", "true", "true", "1", "true", "true"])
    }

    @Test("A callback is active until it has run or is cancelled; a cancelled callback is not called")
    func callbackToken() throws {
        let log = try logged { log, hub in
            let kept = hub.runCallback { log.note("kept") }
            let stopped = hub.runCallback { log.note("stopped") }
            #expect(kept.isActive && stopped.isActive)
            stopped.cancel()
            stopped.cancel()
            #expect(kept.isActive && !stopped.isActive)
            try sleep()
            #expect(!kept.isActive)
            kept.cancel()
            var own: Registration?
            own = hub.runCallback { log.note("\(own?.isActive ?? true)") }
            try sleep()
            own = nil
        }
        #expect(log == ["kept", "false"])
    }

    @Test("Captures of a callback are released once it has run or is cancelled")
    func callbackCaptures() throws {
        let log = try logged { log, hub in
            func body(_ name: String) -> () -> Void {
                let witness = Witness { log.note("\(name) released") }
                return { withExtendedLifetime(witness) { log.note(name) } }
            }
            let ran = hub.runCallback(body("ran"))
            let stopped = hub.runCallback(body("stopped"))
            stopped.cancel()
            try sleep()
            log.note("end")
            withExtendedLifetime((ran, stopped)) {}
        }
        #expect(log == ["stopped released", "ran", "ran released", "end"])
    }

    @Test("Parking in a hub callback throws blockedInHub, which is reported; the hub survives")
    func parkingInCallback() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { error, greenlet in
                log.note("\((error as? HubError)?.code.rawValue ?? "\(error)") \(greenlet == nil)")
            }
            let pipe = try Pipe()
            pipe.fill()
            let other = try Pipe()
            let live = spawn { try sleep(for: .seconds(1)) }
            let ways: [() throws -> Void] = [
                { try sleep() }, { try sleep(for: .seconds(1)) }, { try live.join() }, { _ = try live.get() },
                { try joinAll([live]) }, { try waitRead(other.readEnd) }, { try waitWrite(pipe.writeEnd) },
                { try live.join(timeout: .seconds(1)) }, { try idle() },
                { try sleep(for: .seconds(1), referenced: false) },
                { try withGroup { group in _ = group.spawn {} } }, { try live.kill() },
            ]
            for way in ways { hub.runCallback { try way() } }
            try sleep()
            log.note("\(ways.count)")
            try live.join()
            log.note("\(try spawn { 1 }.get())")
        }
        #expect(log == Array(repeating: "blockedInHub true", count: 12) + ["12", "1"])
    }

    @Test("In a hub callback, waits for objects, processes and files throw blockedInHub; a queue throws its own errors")
    func waitingInCallback() throws {
        let child = try shell("exec sleep 1000")
        defer {
            kill(child, SIGKILL)
            var status: CInt = 0
            Glibc.waitpid(child, &status, 0)
        }
        let log = try logged { log, hub in
            hub.errorHandler = { error, greenlet in
                log.note("\((error as? HubError)?.code.rawValue ?? "\(error)") \(greenlet == nil)")
            }
            let (event, result, semaphore, waiter) = (Event(), AsyncResult<Int>(), Gevent.Semaphore(0), Waiter<Int>())
            let full = Queue<Int>(maxSize: 1)
            try full.put(1)
            let file = try FileWatch(path: "/tmp/gevent-callback-\(getpid())")
            var watch: ChildWatch?
            let ways: [() throws -> Void] = [
                { try event.wait() }, { _ = try result.get() }, { try result.wait() }, { try semaphore.acquire() },
                { try semaphore.wait() }, { _ = try waiter.get() }, { try full.join() },
                { try Gevent.wait([event, semaphore] as [any Waitable]) },
                { try iwait([event, semaphore] as [any Waitable]) { _, _ in } }, { _ = try file.wait() },
                { _ = try waitPID(child) }, { _ = try waitPID(child, options: .stopped) },
                {
                    watch = try ChildWatch(pid: child, referenced: false)
                    _ = try watch?.wait()
                },
            ]
            for way in ways { hub.runCallback { try way() } }
            hub.runCallback { try full.put(2) }
            hub.runCallback { _ = try Queue<Int>().get() }
            try sleep()
            log.note("\(ways.count)")
            // No waiter is registered: the permit and the element are still available.
            semaphore.release()
            log.note("\(try semaphore.acquire(timeout: .zero)) \(try full.get()) \(full.count)")
            try watch?.cancel()
            try file.cancel()
        }
        #expect(
            log == Array(repeating: "blockedInHub true", count: 13) + [
                "the queue is full true", "the queue is empty true", "13", "true 1 0",
            ])
    }

    // MARK: Other threads

    @Test("handle.post from another thread wakes an idle hub", arguments: bothLoops)
    func postWakes(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let hold = hub.hold()
            let handle = hub.handle
            let box = Smuggled((log: log, hold: hold))
            let thread = TestThread {
                // Usually long enough for the hub to reach its poll. In either case no post may be lost.
                Glibc.usleep(2000)
                handle.post {
                    box.value.log.note("posted in \(AnyGreenlet.current)")
                    box.value.hold.cancel()
                }
            }
            log.note("\(try hub.join())")
            thread.join()
        }
        #expect(log == ["posted in <HubGreenlet>", "true"])
    }

    @Test(
        "Posts of one thread arrive in order, none is lost, and each wakes the hub if needed",
        arguments: bothLoops)
    func manyPosts(loop: TestLoop) throws {
        let count = 5000
        let threads = 3
        let received = try withHub(on: loop) { hub in
            let log = PostLog()
            let box = Smuggled(log)
            let hold = hub.hold()
            let handle = hub.handle
            let posters = (0..<threads).map { thread in
                TestThread {
                    for number in 0..<count {
                        handle.post { box.value.entries[thread, default: []].append(number) }
                        if number.isMultiple(of: 512) { Glibc.usleep(100) }
                    }
                    handle.post { box.value.finish(of: threads) }
                }
            }
            log.hold = hold
            // Only posts can end this loop: the hub sleeps whenever there is none.
            _ = try hub.join()
            for poster in posters { poster.join() }
            return log.entries
        }
        #expect(received.count == threads)
        for thread in 0..<threads { #expect(received[thread] == Array(0..<count)) }
    }

    @Test("A post runs in order with the ready queue, may spawn, and may not park")
    func postedJobs() throws {
        let log = try logged { log, hub in
            let box = Smuggled(log)
            #expect(
                hub.handle.post {
                    box.value.note("job")
                    spawn { box.value.note("spawned by the job") }
                    box.value.note("\(hubErrorCode { try sleep() } == .blockedInHub)")
                })
            try sleep()
            try sleep()
        }
        #expect(log == ["job", "true", "spawned by the job"])
    }

    @Test("A job posted by a job runs in the next iteration, so endless posting stops nothing")
    func postsThatPost() throws {
        let log = try logged { log, hub in
            let rounds = Counter()
            let handle = hub.handle
            @Sendable func again() {
                if rounds.add() < 1000 { handle.post { again() } }
            }
            again()
            let sleeper = spawn {
                try sleep(for: .milliseconds(1))
                log.note("slept")
            }
            try sleeper.join()
            _ = try hub.join()
            log.note("\(rounds.count)")
        }
        #expect(log == ["slept", "1000"])
    }

    @Test("A post to a destroyed hub is refused; jobs that have not run are released")
    func postAfterDestroy() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            let handle = hub.handle
            do {
                let box = Smuggled(Witness { log.note("released") })
                handle.post { withExtendedLifetime(box) {} }
            }
            hub.destroy()
            log.note("\(handle.post {})")
            return log.entries
        }
        #expect(log == ["released", "false"])
    }

    @Test("A hold keeps the hub waiting for posts until it is cancelled or dropped")
    func hold() throws {
        let log = try logged { log, hub in
            let never = Greenlet {}
            let hold = hub.hold()
            hold.cancel()
            hold.cancel()
            log.note("\(hubErrorCode { try never.join() } == .wouldBlockForever)")
            do { _ = hub.hold() }
            log.note("\(hubErrorCode { try never.join() } == .wouldBlockForever)")
            let both = [hub.hold(), hub.hold()]
            both[0].cancel()
            #expect(hub.holdCount == 1)
            both[1].cancel()
            #expect(hub.holdCount == 0)
        }
        #expect(log == ["true", "true"])
    }

    @Test("Every thread gets its own hub, made on first use")
    func perThread() throws {
        let serials = Mutex<[UInt32]>([])
        for _ in 0..<4 {
            try onFreshThread {
                #expect(!Hub.exists)
                let greenlet = spawn { Hub.current.pointer.pointee.serial }
                #expect(Hub.exists)
                let serial = try greenlet.get()
                #expect(Hub.current === Hub.current)
                #expect(Hub.current.pointer.pointee.serial == serial)
                serials.withLock { $0.append(serial) }
            }
        }
        #expect(Set(serials.withLock { $0 }).count == 4)
    }

    @Test("Hubs of many threads run at the same time")
    func sideBySide() throws {
        let total = Counter()
        let threads = (0..<8).map { _ in
            TestThread {
                // A failure changes the total.
                try? withHub { _ in
                    let greenlets = (0..<100).map { number in
                        spawn {
                            for _ in 0..<10 { try sleep() }
                            try sleep(for: .microseconds(number))
                            return number
                        }
                    }
                    for greenlet in greenlets { total.add(try greenlet.get()) }
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(total.count == 8 * 4950)
    }

    // MARK: Properties

    @Test("start(on:) throws if the thread has a hub")
    func startTwice() throws {
        try withHub { hub in
            #expect(hubErrorCode { try Hub.start(on: VirtualLoop()) } == .concurrentUse)
            try #expect(Hub.start() === hub)
            #expect(hub.loopName == "virtual")
            #expect(hub.loopReason == "virtual time for a test")
        }
    }

    @Test("Statistics count switches, live and peak greenlets, timers and descriptor waiters")
    func statistics() throws {
        try withHub { hub in
            #expect(hub.statistics.liveGreenlets == 0)
            let pipe = try Pipe()
            let sleepers = (0..<5).map { _ in spawn { try sleep(for: .seconds(1)) } }
            let reader = spawn { try waitRead(pipe.readEnd) }
            #expect(hub.statistics.readyCount == 6)
            #expect(hub.statistics.liveGreenlets == 0)
            let before = hub.statistics.switchCount
            try sleep()
            #expect(hub.statistics.switchCount > before)
            #expect(hub.statistics.liveGreenlets == 6)
            #expect(hub.statistics.pendingTimers == 5)
            #expect(hub.statistics.descriptorWaiters == 1)
            try joinAll(sleepers)
            try reader.kill()
            #expect(hub.statistics.liveGreenlets == 0)
            #expect(hub.statistics.peakLiveGreenlets == 6)
            #expect(hub.statistics.pendingTimers == 0)
            #expect(hub.statistics.descriptorWaiters == 0)
            #expect(hub.statistics.idleStacks > 0)
        }
    }

    @Test("withHub reports what a body leaves behind")
    func leftovers() throws {
        let leftovers = #expect(throws: HubLeftovers.self) {
            try withHub { _ in
                spawn { try sleep(for: .seconds(1)) }
                spawn(after: .seconds(2)) {}
            }
        }
        #expect(leftovers?.greenlets == 1)
        #expect(leftovers?.timers == 2)
    }
}

/// Filled by jobs, on one hub's thread only.
private final class PostLog {
    var entries: [Int: [Int]] = [:]
    var hold: Registration?
    private var finished = 0

    func finish(of all: Int) {
        finished += 1
        if finished == all { hold?.cancel() }
    }
}
