import Gevent
import Glibc
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A program whose one greenlet waits in every possible way, and counts what it has open.
final class WaitingProgram: KillableProgram {
    /// The number of scopes entered and not yet left.
    var open = 0
    var witnesses = 0
    /// Called before each wait.
    var beforeWait: () -> Void = {}
    var finished = false
    /// Starting a process is slow, so only some tests do.
    var callsSystem = false
    /// The objects it waits for: at the end they must have no waiters.
    private var objects: [_WaitableObject] = []
    private var queues: [_QueueBase] = []
    private let living: LivingObjects

    init(_ living: LivingObjects) { self.living = living }

    /// An object that must be released by the end.
    private func made<Object: AnyObject>(_ object: Object) -> Object {
        living.watch(object)
        return object
    }

    /// A registered wait, or a permit.
    var somethingIsStillTaken: Bool {
        objects.contains { $0.linkCount > 0 }
            || objects.contains { ($0 as? Gevent.Semaphore)?.isLocked == true }
            || queues.contains { !$0.getters.isEmpty || !$0.putters.isEmpty || !$0.joiners.isEmpty }
    }

    private func scope(_ body: () throws -> Void) throws {
        open += 1
        let witness = makeWitness()
        defer { open -= 1 }
        try withExtendedLifetime(witness, body)
    }

    private func makeWitness() -> Witness {
        witnesses += 1
        return Witness { self.witnesses -= 1 }
    }

    private func wait(_ body: () throws -> Void) throws {
        beforeWait()
        try scope(body)
    }

    /// A wait that its own limit ends, unless the machine is busy for longer than that.
    private func waitInVain(_ body: () throws -> Void) throws {
        do { try wait(body) } catch let timeout as Timeout where timeout.duration == .milliseconds(1) {}
    }

    func run() throws {
        try scope {
            try waitForTime()
            try waitForGreenlets()
            try waitForMany()
            try waitForDescriptors()
            try endOthers()
            try waitForObjects()
            try waitForPermits()
            try waitForAnyOf()
            try takeFromAny()
            try waitForQueues()
            try switchByHand()
        }
        if callsSystem { try callTheSystem() }
        finished = true
    }

    /// Cleanup that must not be interrupted half-way: it does not wait.
    private func endAll(_ greenlets: [Greenlet<Void>]) {
        for greenlet in greenlets { try? Gevent.kill(greenlet) }
    }

    private func later(_ milliseconds: Int, _ body: @escaping () throws -> Void) -> Greenlet<Void> {
        spawn(after: .milliseconds(milliseconds)) { try self.scope(body) }
    }

    private func sleeper(_ milliseconds: Int) -> Greenlet<Void> {
        spawn { try self.scope { try sleep(for: .milliseconds(milliseconds)) } }
    }

    // MARK: Time and greenlets

    private func waitForTime() throws {
        try wait { try sleep() }
        try wait { try sleep(for: .milliseconds(2)) }
        try wait { try sleep(for: .milliseconds(1), referenced: true) }
        try wait { _ = try withSilentTimeout(.milliseconds(1)) { try sleep(for: .seconds(1)) } }
        try wait { try withTimeout(.milliseconds(1), timeoutValue: ()) { try sleep(for: .seconds(1)) } }
        try waitInVain { try withTimeout(.milliseconds(1)) { _ in try sleep(for: .seconds(1)) } }
        try wait {
            try withTimeout(.seconds(1)) { _ in
                try withTimeout(.milliseconds(500), timeoutValue: ()) {
                    _ = try withSilentTimeout(.milliseconds(200)) { try sleep(for: .milliseconds(1)) }
                }
            }
        }
        try wait { try assertSwitches { try sleep() } }
    }

    private func waitForGreenlets() throws {
        let child = sleeper(5)
        let sibling = later(1) { try sleep() }
        // However this ends, the children end with it.
        defer { endAll([child, sibling]) }
        try wait { try child.join(timeout: .milliseconds(1)) }
        try waitInVain { try child.get(timeout: .milliseconds(1)) }
        try waitInVain { try child.get(timeout: Timeout(.milliseconds(1))) }
        try wait { try child.get(timeout: Timeout(.seconds(1))) }
        try wait { try sibling.join() }
        let other = sleeper(1)
        defer { endAll([other]) }
        try wait { try other.get() }
        try wait { try withGreenlet(sleeper(2)) { _ in try wait { try sleep(for: .milliseconds(1)) } } }
        try wait {
            try withGroup { group in
                group.spawn { try self.scope { try sleep(for: .milliseconds(1)) } }
                try wait { try sleep() }
            }
        }
    }

    private func waitForMany() throws {
        let group = (0..<4).map { sleeper($0) }
        defer { endAll(group) }
        try wait { try joinAll(group, count: 1) }
        try wait { try joinAll(group, timeout: .milliseconds(1)) }
        try wait { try joinAll(group + group, throwingErrors: true) }
        let others = (0..<2).map { _ in sleeper(3) }
        defer { endAll(others) }
        try wait { try Gevent.wait(others, count: 1) }
        try wait { try iwait(others + [sleeper(1)]) { _, _ in try self.wait { try sleep() } } }
    }

    /// Greenlets that take time to end.
    private func endOthers() throws {
        func stubborn() -> Greenlet<Void> {
            spawn {
                try self.scope {
                    do { try sleep(for: .seconds(1)) } catch is GreenletExit { try sleep(for: .milliseconds(2)) }
                }
            }
        }
        let victims = (0..<4).map { _ in stubborn() }
        // A second exit makes them stop cleaning up.
        defer { endAll(victims) }
        try wait { try sleep() }
        try wait { try victims[0].kill(timeout: .milliseconds(1)) }
        try wait { try victims[0].kill(blocking: false) }
        try wait { try victims[1].kill() }
        try waitInVain { try killAll(victims, timeout: .milliseconds(1)) }
        try wait { try killAll(victims) }
    }

    // MARK: Descriptors

    private func waitForDescriptors() throws {
        let pipe = try Pipe()
        let writer = later(2) { pipe.write() }
        defer { endAll([writer]) }
        try waitInVain { try waitRead(pipe.readEnd, timeout: .milliseconds(1)) }
        try wait { try waitRead(pipe.readEnd, timeout: .seconds(1)) }
        pipe.read()
        pipe.fill()
        let watched = made(try WatchedDescriptor(dup(pipe.writeEnd)))
        try wait { _ = try watched.waitWritable(timeout: .milliseconds(1)) }
        let drain = later(1) { while pipe.read() > 0 {} }
        defer { endAll([drain]) }
        try wait { try waitWrite(pipe.writeEnd) }
        let source = made(try WatchedDescriptor(dup(pipe.readEnd)))
        try wait { _ = try source.waitReadable(timeout: .milliseconds(1)) }
        // A concurrent reader and writer, and interest that outlasts both waits.
        let reader = spawn { try self.scope { _ = try source.waitReadable() } }
        defer { endAll([reader]) }
        try wait { _ = try watched.waitWritable() }
        try wait { _ = try reader.join(timeout: .milliseconds(1)) }
        pipe.write()
        try wait { try reader.join() }
    }

    // MARK: Objects

    private func waitForObjects() throws {
        let (event, result, waiter) = (made(Event()), made(AsyncResult<Witness>()), made(Waiter<Witness>()))
        objects += [event, result]
        let givers = [
            later(3) { event.set() },
            later(7) { result.set(self.makeWitness()) },
            later(8) { waiter.resume(returning: self.makeWitness()) },
        ]
        defer {
            endAll(givers)
            // The value given is released.
            result.setError(Boom())
            waiter.clear()
        }
        try wait { _ = try event.wait(timeout: .milliseconds(1)) }
        try wait { _ = try event.wait() }
        try wait { _ = try result.wait(timeout: .milliseconds(1)) }
        try waitInVain { _ = try result.get(timeout: .milliseconds(1)) }
        try waitInVain { _ = try result.get(timeout: Timeout(.milliseconds(1))) }
        try wait { _ = try result.get() }
        try wait { _ = try waiter.get() }
    }

    private func waitForPermits() throws {
        let semaphore = made(Semaphore(1))
        objects.append(semaphore)
        let holder = spawn {
            // The second time it takes the permit before the woken waiter does.
            for _ in 0..<2 {
                try semaphore.withPermit { try self.scope { try sleep(for: .milliseconds(2)) } }
            }
        }
        let watcher = spawn { try self.scope { try semaphore.wait() } }
        defer { endAll([holder, watcher]) }
        try wait { try sleep() }
        try wait { if try semaphore.acquire(timeout: .milliseconds(1)) { semaphore.release() } }
        try wait { try semaphore.withPermit { try self.wait { try sleep(for: .milliseconds(1)) } } }
        let other = spawn { try semaphore.withPermit { try self.scope { try sleep(for: .milliseconds(1)) } } }
        defer { endAll([other]) }
        try wait { try sleep() }
        try wait { if try semaphore.acquire(timeout: .milliseconds(5)) { semaphore.release() } }
        let third = spawn { try semaphore.withPermit { try self.scope { try sleep(for: .milliseconds(1)) } } }
        defer { endAll([third]) }
        try wait { try sleep() }
        try wait { _ = try semaphore.wait() }
    }

    /// Becomes ready with an event, like a third party's object.
    private final class OwnWaitable: Waitable {
        let event = Event()
        var isReady: Bool { event.isReady }
        func enlist(_ waiter: Enlistment<Void>) throws { try event.enlist(waiter) }
        func withdraw(_ waiter: Enlistment<Void>) { event.withdraw(waiter) }
    }

    private func waitForAnyOf() throws {
        let (late, never, own, semaphore) = (made(Event()), made(Event()), made(OwnWaitable()), made(Semaphore(0)))
        objects += [late, never, own.event]
        let setters = [later(2) { late.set() }, later(4) { own.event.set() }]
        let all = [late, never, semaphore, own, setters[0]] as [any Waitable]
        defer {
            endAll(setters)
            #expect(semaphore.linkCount == 0)
        }
        try wait { try Gevent.wait(all, timeout: .milliseconds(1)) }
        try wait {
            try iwait(all, count: 3) { _, _ in try self.wait { try sleep(for: .milliseconds(1)) } }
        }
        try wait { try iwait([never], timeout: .milliseconds(1)) { _, _ in } }
        try wait { try iwait([late, never] as [any Waitable]) { _, stop in stop = true } }
        try wait { try Gevent.wait([own, never] as [any Waitable], count: 1) }
        try wait { try Gevent.wait([never], timeout: .milliseconds(1)) }
    }

    /// Takes from the first of several objects that has something.
    private func takeFromAny() throws {
        let (queue, semaphore, pipe) = (made(SimpleQueue<Witness>()), made(Semaphore(0)), try Pipe())
        queues.append(queue)
        let input = made(DescriptorReadiness(pipe.readEnd, .read))
        let givers = [
            later(2) { try queue.put(self.makeWitness()) }, later(4) { semaphore.release() }, later(6) { pipe.write() },
        ]
        defer {
            endAll(givers)
            #expect(semaphore.linkCount == 0 && queue.getters.isEmpty)
            // Values that were not taken are released.
            queue.shutdown(immediate: true)
        }
        func take(timeout: Duration? = nil) throws {
            _ = try takeFirst(
                of: [TakeCase(queue) { _ in }, TakeCase(semaphore) {}, TakeCase(input) {}], timeout: timeout)
        }
        try wait { try take(timeout: .milliseconds(1)) }
        try wait { try take() }
        try wait { try take() }
        try wait { try take() }
        try wait { try Gevent.wait([queue, semaphore, input] as [any Waitable], timeout: .milliseconds(1)) }
    }

    private func waitForQueues() throws {
        let (jobs, replies) = (made(Queue<Witness>(maxSize: 1)), made(SimpleQueue<Int>(maxSize: 1)))
        queues += [jobs, replies]
        let worker = spawn {
            try self.scope {
                while let job = try jobs.next() {
                    defer { jobs.taskDone() }
                    try sleep(for: .milliseconds(1))
                    withExtendedLifetime(job) {}
                    do { try replies.put(1) } catch QueueError.shutDown {}
                }
            }
        }
        let reader = spawn { try self.scope { while try replies.next() != nil { try sleep(for: .milliseconds(1)) } } }
        defer {
            endAll([worker, reader])
            jobs.shutdown(immediate: true)
            replies.shutdown(immediate: true)
        }
        for _ in 0..<4 { try wait { try jobs.put(makeWitness()) } }
        try wait { do { try jobs.put(makeWitness(), timeout: .microseconds(1)) } catch QueueError.full {} }
        try wait { _ = try jobs.join(timeout: .microseconds(1)) }
        try wait { try jobs.join() }
        try wait { do { _ = try jobs.peek(timeout: .milliseconds(1)) } catch QueueError.empty {} }
        try takeFromQueues()
    }

    private func takeFromQueues() throws {
        let (late, simple) = (made(Queue<Witness>()), made(SimpleQueue<Witness>()))
        queues += [late, simple]
        let putter = spawn {
            try self.scope {
                for _ in 0..<3 {
                    try sleep(for: .milliseconds(2))
                    try late.put(self.makeWitness())
                    try simple.put(self.makeWitness())
                }
            }
        }
        defer {
            endAll([putter])
            late.shutdown(immediate: true)
            simple.shutdown(immediate: true)
        }
        try wait { do { _ = try late.get(timeout: .milliseconds(1)) } catch QueueError.empty {} }
        try wait { _ = try late.peek() }
        try wait { _ = try simple.get() }
        try wait { _ = try late.get() }
        try wait { _ = try simple.peek() }
        try wait { _ = try simple.next() }
        try wait { _ = try late.next() }
        try wait { _ = try late.get() }
    }

    private func switchByHand() throws {
        let coroutines = (0..<2).map { _ in
            made(RawGreenlet { try self.scope { try sleep(for: .milliseconds(1)) } })
        }
        defer { for coroutine in coroutines { try? Gevent.kill(coroutine) } }
        for coroutine in coroutines { try wait { try coroutine.switchTo() } }
        let other = spawn {
            try self.scope {
                do { try sleep(for: .seconds(1)) } catch is OwnExit { try sleep(for: .milliseconds(1)) }
            }
        }
        defer { endAll([other]) }
        try wait { try sleep() }
        try wait { try other.throwInto(OwnExit()) }
    }

    // MARK: The system

    /// External events: files, processes, signals, and the hub's own idle time.
    private func callTheSystem() throws {
        try wait { try idle() }
        try waitForFiles()
        try waitForChild()
        try waitForProcesses()
        let registration = made(try onSignal(SIGWINCH) { try self.scope { try sleep() } })
        defer { registration.cancel() }
        raise(SIGWINCH)
        var ticks = 0
        let timer = made(every(.milliseconds(1)) { ticks += 1 })
        defer { timer.cancel() }
        try wait { try sleep(for: .milliseconds(3)) }
    }

    private func waitForFiles() throws {
        let path = "/tmp/gevent-kill-everywhere-\(getpid())"
        let file = made(try FileWatch(path: path))
        let watched = made(try FileWatch(path: path) { _ in try self.scope { try sleep() } })
        defer {
            unlink(path)
            try? watched.cancel()
        }
        try wait { _ = try file.wait(timeout: .milliseconds(1)) }
        let creator = later(1) { close(creat(path, 0o600)) }
        defer { endAll([creator]) }
        try wait { _ = try file.wait() }
    }

    private func waitForChild() throws {
        let child = try shell("exec sleep 1000")
        defer { end(child) }
        let watch = made(try ChildWatch(pid: child, referenced: false))
        defer { try? watch.cancel() }
        try wait { _ = try watch.wait(timeout: .milliseconds(1)) }
        try wait { try Gevent.wait([watch, made(Event())] as [any Waitable], timeout: .milliseconds(1)) }
        try waitInVain { try withTimeout(.milliseconds(1)) { _ in _ = try waitPID(child) } }
    }

    private func end(_ child: CInt) {
        Glibc.kill(child, SIGKILL)
        var status: CInt = 0
        Glibc.waitpid(child, &status, 0)
    }

    /// A child that runs until it is ended: in time, or when the victim ends.
    private func waitForProcesses() throws {
        let child = try shell("exec sleep 1000")
        var isOver = false
        defer { if !isOver { end(child) } }
        // One wait uses the signal, the other a process descriptor if the kernel has them.
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
}
