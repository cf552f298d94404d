import GeventTesting
import Glibc
import Testing

@testable import Gevent

/// A program that waits in every way there is, and counts what it has open.
private final class Program: KillableProgram {
    /// What has been entered and not left.
    var open = 0
    var witnesses = 0
    /// Called before each wait.
    var beforeWait: () -> Void = {}
    var finished = false
    /// Starting a process takes a while, so not every test does.
    var callsSystem = false
    /// What was waited for: nobody may stand in their lines in the end.
    private var objects: [WaitableObject] = []
    private var queues: [QueueLines] = []
    private let hub: Hub

    init(_ hub: Hub) { self.hub = hub }

    /// A place in a line, or a permit.
    var somethingIsStillTaken: Bool {
        objects.contains { $0.linkCount > 0 }
            || objects.contains { ($0 as? Gevent.Semaphore)?.isLocked == true }
            || queues.contains { !$0.getters.isEmpty || !$0.putters.isEmpty || !$0.joiners.isEmpty }
    }

    private func scope(_ body: () throws -> Void) throws {
        open += 1
        witnesses += 1
        let witness = Witness { self.witnesses -= 1 }
        defer { open -= 1 }
        try withExtendedLifetime(witness, body)
    }

    private func wait(_ body: () throws -> Void) throws {
        beforeWait()
        try scope(body)
    }

    func run() throws {
        try scope {
            try wait { try sleep() }
            try wait { try sleep(for: .milliseconds(2)) }
            let child = spawn { try self.scope { try sleep(for: .milliseconds(2)) } }
            let sibling = spawn(after: .milliseconds(1)) { try self.scope { try sleep() } }
            // Whichever way this ends, the children go with it.
            defer { endAll([child, sibling]) }
            try wait { try child.join(timeout: .milliseconds(1)) }
            try wait { try child.get() }
            try wait { try joinAll([child, sibling]) }
            try wait { _ = try withSilentTimeout(.milliseconds(1)) { try sleep(for: .seconds(1)) } }
            try wait {
                try withTimeout(.seconds(1)) { _ in
                    try withTimeout(.milliseconds(500), timeoutValue: ()) { try sleep(for: .milliseconds(1)) }
                }
            }
            let pipe = try Pipe()
            let writer = spawn(after: .milliseconds(1)) { pipe.write() }
            defer { endAll([writer]) }
            try wait { try waitRead(pipe.readEnd, timeout: .seconds(1)) }
            pipe.fill()
            let drain = spawn(after: .milliseconds(1)) { while pipe.read() > 0 {} }
            defer { endAll([drain]) }
            try wait { try waitWrite(pipe.writeEnd) }
            let watched = try WatchedDescriptor(dup(pipe.readEnd))
            try wait { _ = try watched.waitReadable(timeout: .milliseconds(1)) }
            let stubborn = spawn {
                try self.scope {
                    do { try sleep(for: .seconds(1)) } catch is GreenletExit { try sleep(for: .milliseconds(1)) }
                }
            }
            defer { endAll([stubborn]) }
            try wait { try sleep() }
            try wait { try stubborn.kill() }
            let group = (0..<3).map { number in spawn { try self.scope { try sleep(for: .milliseconds(number)) } } }
            defer { endAll(group) }
            try wait { try joinAll(group, count: 1) }
            try wait { try killAll(group) }
            try waitForObjects()
            try waitForQueues()
            try switchByHand()
        }
        if callsSystem { try callTheSystem() }
        finished = true
    }

    private func waitForObjects() throws {
        let (event, result, semaphore, waiter) = (Event(), AsyncResult<Witness>(), Semaphore(1), Waiter<Witness>())
        objects += [event, result, semaphore]
        witnesses += 2
        let givers = [
            spawn(after: .milliseconds(1)) { event.set() },
            spawn(after: .milliseconds(2)) { result.set(Witness { self.witnesses -= 1 }) },
            spawn(after: .milliseconds(3)) { waiter.resume(returning: Witness { self.witnesses -= 1 }) },
        ]
        defer {
            endAll(givers)
            // What was never given does not go, so it is taken off here; what was given goes.
            witnesses -= (result.isReady ? 0 : 1) + (waiter.isReady ? 0 : 1)
            result.setError(Boom())
            waiter.clear()
        }
        try wait { try event.wait() }
        try wait { _ = try result.get() }
        try wait { _ = try waiter.get() }
        let holder = spawn { try semaphore.withPermit { try self.scope { try sleep(for: .milliseconds(1)) } } }
        let watcher = spawn { try self.scope { try semaphore.wait() } }
        defer {
            endAll([holder])
            try? Gevent.kill(watcher)
        }
        try wait { try sleep() }
        try wait { try semaphore.withPermit { try self.wait { try sleep(for: .milliseconds(1)) } } }
        try wait { if try semaphore.acquire(timeout: .milliseconds(1)) { semaphore.release() } }
        let (late, never) = (Event(), Event())
        objects += [late, never]
        let setter = spawn(after: .milliseconds(2)) { late.set() }
        defer { endAll([setter]) }
        try wait { try Gevent.wait([late, never, semaphore, setter] as [any Waitable], timeout: .milliseconds(1)) }
        try wait {
            try iwait([late, never, setter] as [any Waitable], count: 2) { _ in
                try self.wait { try sleep(for: .milliseconds(1)) }
            }
        }
    }

    private func waitForQueues() throws {
        let (jobs, replies) = (Queue<Witness>(maxSize: 1), SimpleQueue<Int>(maxSize: 1))
        queues += [jobs, replies]
        let worker = spawn {
            try self.scope {
                while let job = try jobs.next() {
                    defer { jobs.taskDone() }
                    try sleep(for: .milliseconds(1))
                    withExtendedLifetime(job) {}
                    do { try replies.put(1) } catch is QueueShutDown {}
                }
            }
        }
        let reader = spawn { try self.scope { while try replies.next() != nil { try sleep(for: .milliseconds(1)) } } }
        defer {
            endAll([worker, reader])
            jobs.shutdown(immediate: true)
            replies.shutdown(immediate: true)
        }
        for _ in 0..<4 {
            try wait {
                witnesses += 1
                try jobs.put(Witness { self.witnesses -= 1 })
            }
        }
        try wait { try jobs.join() }
        try wait { do { _ = try jobs.peek(timeout: .milliseconds(1)) } catch is QueueEmpty {} }
        let late = Queue<Int>()
        queues.append(late)
        let putter = spawn(after: .milliseconds(1)) { try late.put(1) }
        defer { endAll([putter]) }
        try wait { _ = try late.peek() }
    }

    private func switchByHand() throws {
        let coroutine = RawGreenlet { try self.scope { try sleep(for: .milliseconds(1)) } }
        defer { try? Gevent.kill(coroutine) }
        try wait { try coroutine.switchTo() }
    }

    /// What comes from outside: files, processes, signals, and the hub's own leisure.
    private func callTheSystem() throws {
        try wait { try idle() }
        try wait { try sleep(for: .milliseconds(1), referenced: true) }
        let file = try FileWatch(path: "/tmp/gevent-kill-everywhere-\(getpid())")
        try wait { _ = try file.wait(timeout: .milliseconds(1)) }
        let child = try shell("exec sleep 1000")
        defer {
            Glibc.kill(child, SIGKILL)
            var status: CInt = 0
            waitpid(child, &status, 0)
        }
        let watch = try ChildWatch(pid: child, referenced: false)
        defer { try? watch.cancel() }
        try wait { _ = try watch.wait(timeout: .milliseconds(1)) }
        try wait { try Gevent.wait([watch, Event()] as [any Waitable], timeout: .milliseconds(1)) }
        try waitForProcesses()
        let registration = try onSignal(SIGWINCH) {}
        defer { registration.cancel() }
        var ticks = 0
        let timer = every(.milliseconds(1)) { ticks += 1 }
        defer { timer.cancel() }
        try wait { try sleep(for: .milliseconds(2)) }
    }

    /// A child that runs until somebody ends it: in time, or when the victim goes.
    private func waitForProcesses() throws {
        let child = try shell("exec sleep 1000")
        var isOver = false
        defer {
            if !isOver {
                Glibc.kill(child, SIGKILL)
                var status: CInt = 0
                waitpid(child, &status, 0)
            }
        }
        // The one takes the way over the signal, the other over a descriptor if there are any of that kind.
        let stopper = spawn(after: .milliseconds(1)) { _ = Glibc.kill(child, SIGSTOP) }
        defer { endAll([stopper]) }
        try wait { _ = try waitPID(child, options: .stopped) }
        let ender = spawn(after: .milliseconds(1)) { _ = Glibc.kill(child, SIGKILL) }
        defer { endAll([ender]) }
        try wait {
            _ = try waitPID(child)
            isOver = true
        }
    }

    /// Cleanup that must not be interrupted half-way: it does not wait.
    private func endAll(_ greenlets: [Greenlet<Void>]) {
        for greenlet in greenlets { try? Gevent.kill(greenlet) }
    }
}

@Suite("Killed at every possible point")
struct KillEverywhereTests {
    /// Runs the program, kills it as `arrange` says, and returns how it ended. What is left behind is an error of
    /// `withHub`, or of the checks here.
    private static func run(
        on loop: TestLoop = .virtual, _ arrange: @escaping @Sendable (Hub, Program, Greenlet<Void>) -> Void
    ) throws -> KilledRun {
        let before = openDescriptorCount()
        let outcome = try withHub(on: loop) { hub in
            let program = Program(hub)
            let victim = Greenlet { try program.run() }
            arrange(hub, program, victim)
            victim.start()
            try victim.join()
            #expect(victim.isDead && (victim.isSuccessful || victim.error is Boom))
            _ = try hub.join()
            #expect(program.open == 0)
            #expect(program.witnesses == 0)
            #expect(!program.somethingIsStillTaken)
            let statistics = hub.statistics
            #expect(statistics.liveGreenlets == 0 && statistics.pendingTimers == 0)
            #expect(statistics.descriptorWaiters == 0 && statistics.readyCount == 0)
            program.beforeWait = {}
            return KilledRun(victim, finished: program.finished)
        }
        #expect(openDescriptorCount() == before)
        return outcome
    }

    /// Runs the program undisturbed, and returns how many waits it has.
    private static func waitCount(on loop: TestLoop = .virtual) throws -> Int {
        let waits = Counter()
        let undisturbed = try run(on: loop) { _, program, _ in
            program.callsSystem = true
            program.beforeWait = { waits.add() }
        }
        try #require(undisturbed.isFinished)
        return waits.count
    }

    @Test(
        "Killed while parked at the n-th wait, for every n, it ends by the kill and leaves nothing behind",
        arguments: bothLoops)
    func atEveryWait(loop: TestLoop) throws {
        try requireTheKillAtEvery("wait", of: Self.waitCount(on: loop)) { target in
            try Self.run(on: loop) { hub, program, victim in
                var waits = 0
                program.callsSystem = true
                program.beforeWait = {
                    // Runs when the victim has parked: callbacks take their turn after it.
                    if waits == target { hub.runCallback { try kill(victim) } }
                    waits += 1
                }
            }
        }
    }

    @Test("Killed just before the n-th wait, for every n, it ends by the kill and leaves nothing behind")
    func beforeEveryWait() throws {
        try requireTheKillAtEvery("wait", of: Self.waitCount()) { target in
            try Self.run { _, program, victim in
                var waits = 0
                program.callsSystem = true
                program.beforeWait = {
                    if waits == target { try? kill(victim) }
                    waits += 1
                }
            }
        }
    }

    @Test("Killed after the n-th round of the hub, for every n, it ends by the kill and leaves nothing behind")
    func afterEveryRound() throws {
        try requireTheKillAfterEveryRound { try Self.run($0) }
    }

    @Test("Hit by a foreign Timeout after every fraction of its time, it leaves nothing behind")
    func timeoutAtEveryMoment() throws {
        for microseconds in stride(from: 0, through: 20_000, by: 125) {
            _ = try Self.run { hub, program, victim in
                hub.errorHandler = { _, _ in }
                var isFirst = true
                program.beforeWait = {
                    if isFirst { Timeout(.microseconds(microseconds), throwing: Boom()).start() }
                    isFirst = false
                }
            }
        }
    }

    @Test("A hub destroyed in the middle of it leaves nothing behind")
    func destroyedInTheMiddle() throws {
        for round in 0..<60 {
            let before = openDescriptorCount()
            let left = try onFreshThread {
                let hub = try Hub.start(on: VirtualLoop())
                hub.errorHandler = { _, _ in }
                let program = Program(hub)
                let victim = spawn { try program.run() }
                if round > 0 { try sleep(for: .microseconds(round * 250)) }
                try hub.destroy()
                #expect(victim.isDead)
                return [program.open, program.witnesses]
            }
            #expect(left == [0, 0])
            #expect(openDescriptorCount() == before)
        }
    }
}
