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

/// A log shared by several processes: each note is one byte.
private final class SharedLog {
    private let pipe: Pipe
    init() throws { pipe = try Pipe() }
    func note() { pipe.write() }
    /// The number of notes since the last call.
    func take() -> Int { max(pipe.read(), 0) }
}

private func checked(_ loop: some Loop) -> any Loop { CheckedLoop(loop, log: { _ in }) }

@Suite("Fork")
struct ForkTests {
    @Test("After a fork the loop works in the child, and the parent's loop is unchanged")
    func bothLoopsWork() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let pipe = try Pipe()
                let reader = spawn { try waitRead(pipe.readEnd) }
                try sleep()
                let code = try inChild {
                    // The parked greenlet exists in the child too.
                    guard reader.isActive, hub.statistics.descriptorWaiters == 1 else { return 1 }
                    let own = try Pipe()
                    spawnRaw { own.write() }
                    try waitRead(own.readEnd)
                    // So does its registration, in the child's own loop.
                    pipe.write()
                    try reader.get()
                    pipe.read()
                    let timeout = Timeout.startNew(.milliseconds(2))
                    do {
                        try sleep(for: .seconds(9))
                    } catch let error as Timeout where error === timeout {
                        return 0
                    }
                    return 2
                }
                require(code == 0, 1)
                require(reader.isActive, 2)
                pipe.write()
                try reader.get()
            }
            exit(0)
        }
    }

    @Test("A child's use of its descriptors never affects the parent's loop, whichever call forked")
    func parentUndisturbed() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let pipe = try Pipe()
                let watched = try WatchedDescriptor(dup(pipe.readEnd))
                let reader = spawn { try watched.waitReadable(timeout: .seconds(10)) }
                try sleep(for: .milliseconds(1))
                for fork in [inChild, inRawChild] {
                    // The second kind of child does not call reinit().
                    let code = try fork {
                        // Runs before any call that parks, which is the hub's next chance to notice the fork.
                        try watched.close()
                        _ = try withSilentTimeout(.milliseconds(1)) { try waitRead(pipe.readEnd) }
                        hub.handle.post {}
                        try reader.join()
                        hub.destroy()
                        return 0
                    }
                    require(code == 0, 1)
                }
                pipe.write()
                require(try reader.get(), 2)
            }
            exit(0)
        }
    }

    // ThreadSanitizer loses its fibers in a forked child.
    @Test(
        "Whatever a child does first, its loop is repaired before use: no call breaks the loop's contract",
        .enabled(if: !isSanitized))
    func contractInTheChild() async {
        await #expect(processExitsWith: .success) {
            let configured = TestLoop.custom { checked(try Gevent.configuration.resolve().makeLoop().loop) }
            try withHub(on: configured) { hub in
                let pipe = try Pipe()
                let reader = spawn { try waitRead(pipe.readEnd) }
                let idlePipe = try Pipe()
                let ticks = every(.seconds(60)) {}
                try sleep(for: .microseconds(1))
                let short = Duration.microseconds(10)
                let acts: [() throws -> Void] = [
                    { try sleep(for: short) },
                    { try sleep() },
                    { Timeout(.seconds(60)).start() },
                    { _ = try withSilentTimeout(short) { try waitRead(idlePipe.readEnd) } },
                    { _ = try Event().wait(timeout: short) },
                    { _ = try Semaphore(0).acquire(timeout: short) },
                    { _ = try joinAll([reader], timeout: short) },
                    { _ = try hub.join(timeout: short) },
                    { try idle() },
                    { _ = thrownError { try waitRead(idlePipe.readEnd, timeout: short) } },
                    { try waitWrite(pipe.writeEnd) },
                    { try spawn {}.get() },
                    { try Greenlet<Void>.spawn(after: short) {}.get() },
                    { ticks.isReferenced = false },
                    { ticks.cancel() },
                    { every(short) {}.cancel() },
                    { _ = hub.now },
                    { _ = hub.timerResolution },
                    { _ = hub.loopFeatures },
                    { _ = hub.statistics },
                    { _ = dumpGreenlets() },
                    { hub.handle.post {} },
                    { try WatchedDescriptor(dup(pipe.readEnd)).close() },
                    { hub.destroy() },
                ]
                for (index, act) in acts.enumerated() {
                    let code = try inRawChild {
                        try act()
                        if !hub.isDestroyed { try sleep(for: short) }
                        return 0
                    }
                    require(code == 0, CInt(index + 1))
                    // A greenlet that forks and ends: in the child the hub runs next.
                    let other = spawn {
                        let pid = plainFork()
                        if pid == 0 { return true }
                        require(exitCode(of: pid) == 0, 100 + CInt(index))
                        return false
                    }
                    if try other.get() {
                        try act()
                        _exit(0)
                    }
                }
                pipe.write()
                try reader.get()
                ticks.cancel()
            }
            exit(0)
        }
    }

    // ThreadSanitizer runs a thread of its own.
    @Test(
        "The first fork with other threads warns, unless the caller expects them; a monitor's thread does not count",
        .enabled(if: !isSanitized))
    func threads() async throws {
        let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
            try withHub(on: .configured) { hub in
                // This thread and the process's first thread.
                require(gevent_other_threads() > 0, 1)
                if case .parent(let pid) = try Gevent.fork(allowingThreads: true) {
                    Glibc.waitpid(pid, nil, 0)
                } else {
                    _exit(0)
                }
                printToStandardError("first\n")
                for _ in 0..<2 {
                    let code = try inChild {
                        if gevent_other_threads() != 0 { return 1 }
                        try hub.startMonitor()
                        // The thread sets its own name.
                        if !block(until: { gevent_other_threads() == 0 }) { return 2 }
                        return try onFreshThread { gevent_other_threads() } == 1 ? 0 : 3
                    }
                    require(code == 0, 2)
                }
            }
            exit(0)
        }
        let lines = text(result.standardErrorContent).split(separator: "\n")
        let warnings = lines.indices.filter { lines[$0].hasPrefix("gevent: fork() beside ") }
        #expect(warnings.count == 1, "\(lines)")
        #expect(warnings.first == lines.firstIndex(of: "first").map { $0 + 1 }, "\(lines)")
    }

    @Test("A child that destroys its hub never runs or unwinds inherited greenlets; the parent does, once")
    func destroyedInTheChild() async {
        await #expect(processExitsWith: .success) {
            for isRaw in [false, true] {
                try withHub(on: .configured) { hub in
                    let acts = try SharedLog()
                    func act() throws {
                        let witness = Witness { acts.note() }
                        defer { acts.note() }
                        try withExtendedLifetime(witness) { try sleep(for: .milliseconds(30)) }
                    }
                    let pipe = try Pipe()
                    let parked = spawn(act)
                    let reader = spawn {
                        defer { acts.note() }
                        try waitRead(pipe.readEnd)
                    }
                    try sleep()
                    // One ready greenlet that has not run since, one queued, one delayed, one raw, and one callback.
                    let yielding = spawn {
                        defer { acts.note() }
                        for _ in 0..<3 { try sleep() }
                    }
                    try sleep()
                    let queued = spawn { acts.note() }
                    let delayed = spawn(after: .milliseconds(1)) { acts.note() }
                    let bare = spawnRaw { acts.note() }
                    hub.runCallback { acts.note() }
                    let fork = isRaw ? inRawChild : inChild
                    let code = try fork {
                        var ended: [String] = []
                        let own = spawn {
                            defer { ended.append("own") }
                            try sleep(for: .seconds(9))
                        }
                        let joining = spawn {
                            defer { ended.append("joining") }
                            try parked.join()
                        }
                        // After a raw fork without reinit(), the hub notices the fork when it is destroyed.
                        hub.destroy()
                        guard own.isDead, joining.isDead else { return 1 }
                        guard parked.isDead, reader.isDead, yielding.isDead, queued.isDead, delayed.isDead else {
                            return 2
                        }
                        // The thread gets a new hub on demand.
                        try sleep(for: .milliseconds(1))
                        Hub.current.destroy()
                        return 0
                    }
                    require(code == 0, 1)
                    require(acts.take() == 0, 2)
                    pipe.write()
                    _ = try hub.join()
                    require(acts.take() == 8, 3)
                    require(parked.isSuccessful && queued.isSuccessful && delayed.isSuccessful && bare.isDead, 4)
                }
            }
            exit(0)
        }
    }

    @Test("A child that spawned greenlets ends them when it destroys its hub")
    func ownGreenletsEnd() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let code = try inChild {
                    var ended = 0
                    for _ in 0..<3 {
                        spawn {
                            defer { ended += 1 }
                            try sleep(for: .seconds(9))
                        }
                    }
                    try sleep()
                    hub.destroy()
                    return ended == 3 ? 0 : 1
                }
                require(code == 0, 1)
            }
            exit(0)
        }
    }

    @Test("Queued greenlets exist in both processes")
    func queuedInBoth() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let acts = try SharedLog()
                let queued = spawn { acts.note() }
                let sleeping = spawn {
                    try sleep(for: .milliseconds(5))
                    acts.note()
                }
                let delayed = spawn(after: .milliseconds(2)) { acts.note() }
                let code = try inChild {
                    try joinAll([queued, sleeping, delayed])
                    return 0
                }
                require(code == 0, 1)
                try joinAll([queued, sleeping, delayed])
                require(acts.take() == 6, 2)
            }
            exit(0)
        }
    }

    @Test("After a raw fork and reinit() the child can sleep, time out, wait for descriptors and be posted to")
    func reinitialized() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let code = try inRawChild {
                    try reinit()
                    try reinit()
                    let before = hub.now
                    try sleep(for: .milliseconds(5))
                    guard before.duration(to: hub.now) >= .milliseconds(5) else { return 1 }
                    guard try withSilentTimeout(.milliseconds(1), { try sleep(for: .seconds(9)) }) == nil else {
                        return 2
                    }
                    let pipe = try Pipe()
                    spawn(after: .milliseconds(1)) { pipe.write() }
                    try waitRead(pipe.readEnd)
                    var posted = false
                    let main = AnyGreenlet.current
                    let state = Smuggled((main: main, set: { posted = true }))
                    hub.handle.post {
                        state.value.set()
                        try? Gevent.kill(state.value.main, throwing: Boom())
                    }
                    do { try sleep(for: .seconds(9)) } catch is Boom {}
                    return posted ? 0 : 3
                }
                require(code == 0, 1)
                // The parent has nothing to repair.
                let pipe = try Pipe()
                let reader = spawn { try waitRead(pipe.readEnd) }
                try sleep()
                try reinit()
                pipe.write()
                try reader.get()
            }
            try onFreshThread {
                try reinit()
                require(!Hub.exists, 2)
            }
            exit(0)
        }
    }

    @Test("A child's new threads post to its hub, and no post is lost")
    func postsInTheChild() async {
        // ThreadSanitizer ends a forked process that starts threads if its parent had several.
        if isSanitized { return }
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let code = try inChild {
                    let hold = hub.hold()
                    let count = Counter()
                    let handle = hub.handle
                    let threads = (0..<2).map { _ in
                        TestThread { for _ in 0..<20_000 { handle.post { count.add() } } }
                    }
                    while count.count < 40_000 { try sleep(for: .microseconds(100)) }
                    for thread in threads { thread.join() }
                    hold.cancel()
                    return 0
                }
                require(code == 0, 1)
            }
            exit(0)
        }
    }

    @Test("Any greenlet may fork; in the child it continues, and so does main")
    func fromAGreenlet() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                let forked = spawn { () -> pid_t in
                    let local = [1, 2, 3]
                    switch try Gevent.fork() {
                    case .child:
                        try sleep(for: .milliseconds(1))
                        return local == [1, 2, 3] ? 0 : -1
                    case .parent(let pid): return pid
                    }
                }
                let pid = try forked.get()
                if pid <= 0 { _exit(pid == 0 ? 0 : 7) }
                require(try waitPID(pid).status.isSuccess, 1)
            }
            exit(0)
        }
    }

    @Test("fork without a hub makes none; fork from a hub callback works too")
    func withoutHub() async {
        await #expect(processExitsWith: .success) {
            try onFreshThread {
                let result = try Gevent.fork()
                if result == .child { _exit(Hub.exists ? 1 : 0) }
                require(!Hub.exists, 1)
                guard case .parent(let pid) = result else { exit(2) }
                require(try waitPID(pid).status.isSuccess, 3)
                Hub.current.destroy()
            }
            try withHub { hub in
                var child: pid_t = 0
                hub.runCallback {
                    if case .parent(let pid) = try Gevent.fork() { child = pid }
                }
                try sleep(for: .milliseconds(1))
                if child == 0 { _exit(5) }
                require(try waitPID(child).status.exitCode == 5, 4)
            }
            exit(0)
        }
    }

    @Test("A grandchild's loop is repaired as well")
    func grandchild() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                let pipe = try Pipe()
                let reader = spawn { try waitRead(pipe.readEnd) }
                try sleep()
                let code = try inRawChild {
                    let code = try inChild {
                        try sleep(for: .milliseconds(1))
                        try reader.kill()
                        return 3
                    }
                    try sleep(for: .milliseconds(1))
                    return code == 3 && reader.isActive ? 0 : 1
                }
                require(code == 0, 1)
                pipe.write()
                try reader.get()
            }
            exit(0)
        }
    }

    @Test("A signal is handled in the process that receives it, and signals pending in the parent stay the parent's")
    func signals() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                var handled = 0
                let registration = try onSignal(SIGUSR1) { handled += 1 }
                raise(SIGUSR1)
                for fork in [inChild, inRawChild] {
                    let before = handled
                    let code = try fork {
                        // With a raw fork the signal is counted before the fork is noticed.
                        raise(SIGUSR1)
                        try waitUntil { handled > before }
                        try sleep(for: .milliseconds(2))
                        raise(SIGUSR1)
                        try waitUntil { handled > before + 1 }
                        try sleep(for: .milliseconds(2))
                        return handled == before + 2 ? 0 : 1
                    }
                    require(code == 0, 1)
                }
                try withTimeout(.seconds(20)) { _ in try waitUntil { handled > 0 } }
                // Nothing older can still be pending once a later signal has been handled.
                raise(SIGUSR1)
                try waitUntil { handled > 1 }
                require(handled == 2, 2)
                registration.cancel()
            }
            exit(0)
        }
    }

    @Test("A watch that a service drops in the child, because the parent made it, is not repaired there")
    func droppedServices() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                // Without process descriptors (older kernels), a child watch also watches SIGCHLD.
                hub.children.usesDescriptors = false
                let pid = try shell("exec sleep 1000")
                let watch = try ChildWatch(pid: pid)
                let codes = try [inChild, inRawChild].map { fork in
                    try fork {
                        for _ in 0..<3 { try sleep(for: .milliseconds(1)) }
                        guard (watch.error as? ChildError)?.code == .notAChild else { return 1 }
                        return hub.existingService(SignalService.self) == nil ? 0 : 2
                    }
                }
                Glibc.kill(pid, SIGKILL)
                require(try watch.wait()?.terminatingSignal == SIGKILL, 1)
                require(codes == [0, 0], 2)
            }
            exit(0)
        }
    }

    @Test("In a child, posts to the hubs of other threads are refused, and their signal registrations are dropped")
    func otherHubs() async {
        await #expect(processExitsWith: .success) {
            let stop = Counter()
            let ready = Counter()
            let handles = Handles()
            let thread = TestThread {
                do {
                    try withHub(on: .configured) { hub in
                        handles.store(hub.handle)
                        let registration = try onSignal(SIGUSR1) {}
                        let hold = hub.hold()
                        ready.add()
                        try waitUntil { stop.count > 0 }
                        hold.cancel()
                        registration.cancel()
                    }
                } catch {
                    exit(9)
                }
            }
            while ready.count == 0 { Glibc.usleep(1000) }
            try withHub(on: .configured) { _ in
                let code = try inChild {
                    guard let handle = handles.handle, !handle.post({}) else { return 1 }
                    var action = sigaction()
                    sigaction(SIGUSR1, nil, &action)
                    return action.__sigaction_handler.sa_handler == nil ? 0 : 2
                }
                require(code == 0, 1)
                require(handles.handle?.post({}) == true, 2)
            }
            stop.add()
            thread.join()
            exit(0)
        }
    }

    @Test("Timers, periodic ones too, continue in both processes")
    func timers() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                var ticks = 0
                let timer = every(.milliseconds(2)) { ticks += 1 }
                let code = try inChild {
                    try waitUntil { ticks >= 3 }
                    timer.cancel()
                    return 0
                }
                require(code == 0, 1)
                try waitUntil { ticks >= 3 }
                timer.cancel()
            }
            exit(0)
        }
    }

    @Test("A fork leaks no descriptor in the parent, and the child has as many as the parent")
    func descriptors() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                let registration = try onSignal(SIGUSR1) {}
                try sleep(for: .milliseconds(1))
                let before = openDescriptorCount()
                let code = try inChild { openDescriptorCount() == before ? 0 : 1 }
                require(code == 0, 1)
                require(openDescriptorCount() == before, 2)
                registration.cancel()
            }
            exit(0)
        }
    }
}

/// Transfers a handle to another thread.
private final class Handles: Sendable {
    private let stored = Mutex<HubHandle?>(nil)
    func store(_ handle: HubHandle) { stored.withLock { $0 = handle } }
    var handle: HubHandle? { stored.withLock { $0 } }
}
