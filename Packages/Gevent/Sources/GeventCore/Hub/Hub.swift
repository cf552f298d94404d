public import CGevent
internal import Glibc

/// The scheduler of one thread: it runs greenlets, and polls the event loop when none is ready.
///
/// There is one per thread, made on first use. The thread's own stack is the *main greenlet*, so `sleep`, `join` and
/// `get` just work in `main.swift`. A hub is confined to its thread; other threads reach it through ``handle``.
///
/// While main is parked the hub runs on the process's main thread, and nothing else does: code isolated to `@MainActor`
/// and blocks of `DispatchQueue.main` wait until main has returned to them, which a program that never does keeps from
/// running. Give such work another actor or queue.
///
/// gevent: `gevent.hub.Hub`.
public final class Hub {
    package let pointer: UnsafeMutablePointer<gevent_hub>
    let loop: any Loop
    /// The settings the hub was made with.
    public let resolvedConfiguration: ResolvedConfiguration
    /// Why this loop and no other.
    public let loopReason: String
    /// The only way in from another thread.
    public let handle: HubHandle

    /// The thread's own stack, as a greenlet: what runs in `main.swift`, or in the thread's function.
    ///
    /// gevent: the greenlet whose `parent` is nil.
    public let mainGreenlet: AnyGreenlet
    package let hubGreenlet: HubGreenlet
    let descriptors: DescriptorTable
    var identifiers = IdentifierPool()
    /// What the loop reported last, until all of it is handed out.
    @exclusivity(unchecked) var events = ReadyEvents()
    /// What was attached to the hub and ends with it.
    private(set) var services: [any HubService] = []
    /// What the visitor on the hub's stack has to report; see `reportAtOnce`.
    @exclusivity(unchecked) var reportOfVisitor: (error: any Error, greenlet: AnyGreenlet)?
    /// Reasons to wait although nothing in this thread is pending.
    var holdCount = 0
    /// Who is told of switches; nil while nobody is.
    var switchWatch: SwitchWatch?
    @exclusivity(unchecked) package private(set) var isDestroyed = false
    /// Told of each greenlet that starts.
    var spawnCallbacks: [SpawnCallback] = []
    var locals = HubLocals()
    let startTime: LoopInstant
    /// The process in which its loop works.
    package var process: CInt = getpid()
    /// The process in which what was begun before the latest fork has been told apart.
    var inheritanceMarkedProcess = getpid()
    /// Main does not answer to errors any more.
    private(set) var isBeingDestroyed = false

    /// How long ready greenlets may run before the hub looks at timers and descriptors again; 5 ms.
    ///
    /// A bound, not a time slice: a greenlet that never parks is never interrupted.
    ///
    /// gevent: `gevent.setswitchinterval`.
    public var switchInterval: Duration = .milliseconds(5) {
        didSet { switchNanoseconds = switchInterval.wholeNanoseconds }
    }
    @exclusivity(unchecked) private(set) var switchNanoseconds: Int64 = 5_000_000

    /// How late a timer may fire so that others fire with it, in nanoseconds.
    let timerSlack: Int64
    /// How often the clock is looked at while greenlets run, and while jobs do.
    @exclusivity(unchecked) var readyPace = ClockPace()
    @exclusivity(unchecked) var mailPace = ClockPace()
    /// How many of `events` were handed out to their waiters.
    @exclusivity(unchecked) var handedOut = 0
    /// Whether the latest poll brought a crowd, and the thread's processor time at which the next one is due then.
    @exclusivity(unchecked) var isCrowded = false
    @exclusivity(unchecked) var nextPoll: Int64 = 0
    /// When the hub had looked at the clock before the latest poll.
    @exclusivity(unchecked) var beforePoll: Int64 = 0
    package let hasVirtualTime: Bool
    /// Events are for waits that began no later than this.
    @exclusivity(unchecked) var latestWait = Int64.max
    /// When greenlets that timers woke were moved to the front of the ready queue; nil once they have run.
    @exclusivity(unchecked) var frontBegan: Int64?
    /// Until then timers wait for whatever else is ready, if anything is.
    @exclusivity(unchecked) var timersWaitUntil = Int64.min

    /// Told of errors nobody catches: of greenlets, links and callbacks, with the greenlet they ended if there is one.
    ///
    /// Not of exits and ``quietErrors``, nor of ``systemErrors``, which are raised in main. Called as the greenlet
    /// ends, before its links are notified and before anything else runs. Runs on the hub and must not park; looked up
    /// at each error. An error it throws is printed, together with the one it was told of. Nil, the default, prints
    /// through ``errorOutput``.
    ///
    /// gevent: `Hub.handle_error`.
    public var errorHandler: ((_ error: any Error, _ greenlet: AnyGreenlet?) throws -> Void)?

    /// Errors that nobody is told of when they end a greenlet or a callback: instances of these types and of their
    /// subclasses. Exits are quiet in any case. What is quiet is a failure all the same, for `get` and for links.
    ///
    /// gevent: `Hub.NOT_ERROR`.
    public var quietErrors: [any Error.Type] = []

    /// Errors that are raised in main, at its next switch point, when they end a greenlet or a callback, instead of
    /// being reported: instances of these types and of their subclasses. For what is to stop the program. In a greenlet
    /// of a group it is a failure like others, which the scope throws on. ``KeyboardInterrupt`` unless set.
    ///
    /// gevent: `Hub.SYSTEM_ERROR`.
    public var systemErrors: [any Error.Type] = [KeyboardInterrupt.self]

    /// Where reports of errors are printed; standard error unless set. Nil switches printing off.
    ///
    /// Called on the hub with whole lines, and must not park.
    ///
    /// gevent: `Hub.exception_stream`.
    public var errorOutput: ((_ text: String) -> Void)? = printToStandardError

    /// A small non-negative integer, unique among the process's hubs: the smallest that was free when the hub was made.
    /// With a greenlet's ``AnyGreenlet/minimalID`` it is unique among the process's greenlets.
    ///
    /// gevent: `Hub.minimal_ident`.
    public let minimalID: Int

    /// The name of the hub, for programs with several; "Hub-0" and so on unless it was set.
    ///
    /// gevent: `Hub.name`.
    public var name: String {
        get { ownName ?? "Hub-\(minimalID)" }
        set { ownName = newValue }
    }
    private var ownName: String?

    // MARK: Finding the hub

    /// This thread's hub, made if there is none.
    ///
    /// If none can be made the program ends with a line that says why, and status 78 if a setting such as
    /// `GEVENT_LOOP` is wrong; ``start()`` throws the reason instead.
    ///
    /// gevent: `gevent.get_hub()`.
    @available(*, noasync)
    public static var current: Hub { of(requireHub()) }

    /// This thread's hub, made if there is none.
    ///
    /// Throws ``ConfigurationError`` if a setting has a bad value or no loop can be started, ``LoopError`` or
    /// ``SystemError`` if the process is out of memory or descriptors, and ``HubError`` with `.wrongThread` in a task.
    /// Calling it first thing in a program turns a bad `GEVENT_LOOP` into an error that can be shown.
    @discardableResult
    @available(*, noasync)
    public static func start() throws -> Hub { of(try currentHub()) }

    /// A hub for this thread on a loop of the caller's making: virtual time, or a loop shared with a C library.
    ///
    /// Throws ``HubError`` with `.concurrentUse` if the thread has a hub already, and with `.wrongThread` in a task;
    /// and ``ConfigurationError`` if another setting than the loop has a bad value.
    @discardableResult
    @available(*, noasync)
    public static func start(on loop: any Loop, reason: String = "given in code") throws -> Hub {
        if gevent_hub_current() != nil {
            throw HubError(.concurrentUse, "this thread has a hub already; a loop is chosen before the first use")
        }
        try refuseTasks()
        return try Hub(loop: loop, reason: reason, configuration: try Configuration.shared.resolve())
    }

    /// Whether the calling thread has a hub.
    public static var exists: Bool { gevent_hub_current() != nil }

    @inline(__always)
    static func unretained(_ pointer: UnsafeMutablePointer<gevent_hub>) -> Unmanaged<Hub> {
        // The hub retains itself until it is destroyed, which frees the pointer.
        Unmanaged<Hub>.fromOpaque(pointer.pointee.owner)
    }

    @inline(__always)
    package static func of(_ pointer: UnsafeMutablePointer<gevent_hub>) -> Hub {
        unretained(pointer).takeUnretainedValue()
    }

    /// The loop's time, now. In a forked child the loop is repaired first: before that it is the parent's.
    @inline(__always)
    static func time(_ pointer: UnsafeMutablePointer<gevent_hub>) -> LoopInstant {
        unretained(pointer)._withUnsafeGuaranteedRef { hub in
            if pointer.pointee.is_forked { hub.noticeFork() }
            return hub.loop.now
        }
    }

    /// The loop, for facts about it that have nothing to do with descriptors.
    private var usableLoop: any Loop {
        if !isDestroyed { noticeFork() }
        return loop
    }

    fileprivate static func make() throws -> Hub {
        try refuseTasks()
        let configuration = try Configuration.shared.resolve()
        let (loop, reason) = try configuration.makeLoop()
        return try Hub(loop: loop, reason: reason, configuration: configuration)
    }

    /// A call hidden in a synchronous helper gets past `noasync`. It would block a thread of the pool, and its
    /// greenlets would be stranded there.
    private static func refuseTasks() throws {
        if gevent_current_task() != nil { throw HubError.inTask }
    }

    private init(loop: any Loop, reason: String, configuration: ResolvedConfiguration) throws {
        let words = RuntimeWords.found
        let functions = gevent_hub_functions(
            run_greenlet: { greenlet, context in
                Unmanaged<AnyGreenlet>.fromOpaque(greenlet!).takeRetainedValue().runOnStack(context!)
            },
            stack_class: { greenlet in
                Unmanaged<AnyGreenlet>.fromOpaque(greenlet!)._withUnsafeGuaranteedRef { $0.stackClass }
            },
            run_hub: { hub in
                Unmanaged<Hub>.fromOpaque(hub!).takeUnretainedValue().run()
            })
        guard
            let pointer = gevent_hub_create(
                nil, functions, configuration.stackSize, words.accessHead, words.taskLocalFallback)
        else {
            let error = errno
            loop.close()
            throw SystemError(errno: error, operation: "allocate the hub")
        }
        // Given back by the deinit, so after the last way in which this can fail.
        minimalID = HubIdentifiers.take()
        self.pointer = pointer
        self.loop = loop
        descriptors = DescriptorTable(pointer, loop)
        loopReason = reason
        resolvedConfiguration = configuration
        hasVirtualTime = loop.hasVirtualTime
        timerSlack = hasVirtualTime ? 0 : configuration.timerSlack.wholeNanoseconds
        startTime = loop.now
        handle = HubHandle(waker: loop.waker)
        mainGreenlet = MainGreenlet(hub: pointer)
        hubGreenlet = HubGreenlet(hub: pointer)
        pointer.pointee.mailbox_lock = handle.lock
        pointer.pointee.owner = Unmanaged.passRetained(self).toOpaque()
        adopt(mainGreenlet, gevent_hub_main(pointer))
        adopt(hubGreenlet, gevent_hub_root(pointer))
        pointer.pointee.now = startTime.nanoseconds
        if configuration.trackGreenletTree {
            pointer.pointee.spawn_duties = UInt32(GEVENT_SPAWN_TRACKS)
            mainGreenlet.spawnNode = gevent_spawn_node_make_root(pointer, pointer.pointee.main.owner)
            hubGreenlet.spawnNode = gevent_spawn_node_make_root(pointer, pointer.pointee.root.owner)
        }
        gevent_hub_set_current(pointer)
        HubRegistry.add(handle, serial: pointer.pointee.serial)
        ThreadExit.destroyHubOfThisThread()
        HubExtensions.hubWasMade(self)
    }

    deinit { HubIdentifiers.release(minimalID) }

    /// Main and the hub run from the start and are never over.
    private func adopt(_ greenlet: AnyGreenlet, _ context: UnsafeMutablePointer<gevent_context>) {
        greenlet.phase = .running
        greenlet.context = context
        context.pointee.owner = Unmanaged.passUnretained(greenlet).toOpaque()
    }

    // MARK: Facts

    /// The name of the loop that runs, such as "epoll".
    ///
    /// gevent: `hub.backend`.
    public var loopName: String { type(of: loop).backendName }

    /// What the loop says of itself; for reports.
    public var loopFeatures: [String: String] { usableLoop.features }

    /// The loop's monotonic time, since an arbitrary moment.
    ///
    /// gevent: `loop.now()`.
    public var now: LoopInstant { usableLoop.now }

    /// The finest step in which the loop keeps deadlines.
    public var timerResolution: Duration { usableLoop.timerResolution }

    /// Counters of what the hub has done and holds; all zero once it is destroyed.
    public var statistics: HubStatistics { isDestroyed ? HubStatistics() : HubStatistics(self) }

    // MARK: Keeping the hub waiting

    /// Makes the hub wait for posts from other threads even when nothing in its own thread is pending, until the
    /// returned registration is cancelled or deallocated. Without one, a wait that only a post could end is reported as
    /// blocking forever.
    ///
    /// On the hub's own thread, where the last reference must be released too. Traps elsewhere.
    public func hold() -> Registration {
        if !isDestroyed && gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        holdCount += 1
        return HubHold(self)
    }

    // MARK: Services

    package func addService(_ service: some HubService) { services.append(service) }

    package func removeService(_ service: some HubService) { services.removeAll { $0 === service } }

    // MARK: The end

    /// Ends every greenlet of this thread and closes the loop; the thread's next use makes a new hub. Repeatable.
    ///
    /// From main only, and without effect while main is doing it already; on another thread or in another greenlet it
    /// traps. Main lets the others unwind meanwhile, but nothing can interrupt it: this is the one call that switches
    /// and does not throw, so it can stand in a `defer`. Each parked greenlet is thrown a ``GreenletExit``; one that
    /// waits again during its clean-up is thrown another, and after a hundred it is abandoned with its stack.
    /// In a forked child that also holds for what was queued or parked before the fork, which the parent ends. A thread
    /// that ends destroys its hub by itself.
    ///
    /// What is released meanwhile and parks in its `deinit` is thrown ``HubError`` with `.blockedInHub`. At the end
    /// ``errorHandler`` and ``errorOutput`` are what they are in a new hub, but that printing stays switched off.
    ///
    /// gevent: `Hub.destroy()`.
    @available(*, noasync)
    public func destroy() {
        if isDestroyed { return }
        // Not preconditions, which say nothing in an optimised build.
        guard gevent_hub_current() == pointer else { fatalError("\(HubError.wrongThread)") }
        guard pointer.pointee.current == gevent_hub_main(pointer) else {
            fatalError("\(HubError(.invalidSwitch, "a hub is destroyed from its main greenlet"))")
        }
        if isBeingDestroyed { return }
        isBeingDestroyed = true
        // What is released from here on may run code of the program's, in main. If that parked, greenlets would run
        // that are to end or have been taken out of the queue, and nothing would bring main back.
        gevent_pending_refuse(gevent_hub_main(pointer))
        noticeFork()
        let abandoned = abandonInherited()
        handle.close()
        closeServices()
        dropStarts()
        Timeout.cancelAll(of: gevent_hub_main(pointer))
        endParkedGreenlets(except: abandoned)
        mainGreenlet.dropPendingErrors()
        // Kept until nobody is told of anything any more: a group does not hold its owner.
        withExtendedLifetime(abandonGreenlets()) { finish() }
        // Errors were reported until now.
        dropHandlers()
        finish()
        // What makes itself anew without end is left.
        pointer.pointee.ready_head = pointer.pointee.ready_tail
        HubRegistry.remove(serial: pointer.pointee.serial)
        isDestroyed = true
        descriptors.close()
        // Main leaves the CPU; nothing is ready, so the hub's stack runs, sees the flag, and comes back for good.
        gevent_park(pointer)
        loop.close()
        mainGreenlet.phase = .ended
        mainGreenlet.context = nil
        hubGreenlet.phase = .ended
        hubGreenlet.context = nil
        gevent_hub_destroy(pointer)
        Unmanaged.passUnretained(self).release()
    }

    /// Main waits, for the only time while the hub is destroyed, and lets the others unwind.
    private func yieldToGreenlets() {
        let main = gevent_hub_main(pointer)!
        // Main does not answer to errors any more, and a pending one would keep it from yielding.
        mainGreenlet.dropPendingErrors()
        gevent_pending_reset(main)
        gevent_yield()
        gevent_pending_refuse(main)
    }

    /// Also what is attached meanwhile. Each is taken off first, so that who looks for one while it closes gets
    /// another, which is closed in its turn.
    private func closeServices() {
        var left = services.count + 100
        while left > 0, !services.isEmpty {
            services.removeFirst().hubWillClose()
            left -= 1
        }
    }

    /// Greenlets that have not run and callbacks that have not been called never will, but for the library's own: links
    /// are told and errors are reported.
    private func dropStarts() {
        endDelayedStarts()
        var dropped: [gevent_ready_entry] = []
        var kept: [gevent_ready_entry] = []
        for entry in takeReady() {
            if isKept(entry) { kept.append(entry) } else { dropped.append(entry) }
        }
        for entry in kept { gevent_ready_push(pointer, entry.pointer, entry.tag) }
        for entry in dropped { drop(entry) }
    }

    private func isKept(_ entry: gevent_ready_entry) -> Bool {
        switch Int(entry.tag) {
        case GEVENT_READY_RESUME: true
        case GEVENT_READY_START, GEVENT_READY_START_SIZED:
            (Unmanaged<AnyGreenlet>.fromOpaque(entry.pointer).takeUnretainedValue() as? RawGreenlet)?.isOfLink == true
        default: Unmanaged<HubCallback>.fromOpaque(entry.pointer).takeUnretainedValue().isOwn
        }
    }

    /// Empties the queue in one go, without running anybody's code: what that queues comes behind all of this.
    private func takeReady() -> [gevent_ready_entry] {
        var entries: [gevent_ready_entry] = []
        while gevent_ready_count(pointer) > 0 { entries.append(gevent_ready_pop(pointer)) }
        return entries
    }

    private func drop(_ entry: gevent_ready_entry) {
        switch Int(entry.tag) {
        case GEVENT_READY_RESUME:
            // Its greenlet was abandoned, and must not run again.
            break
        case GEVENT_READY_START, GEVENT_READY_START_SIZED:
            let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(entry.pointer).takeRetainedValue()
            if greenlet.phase == .scheduled { greenlet.endUnstarted(GreenletExit()) }
        default:
            Unmanaged<HubCallback>.fromOpaque(entry.pointer).takeRetainedValue().cancel()
        }
    }

    private func endDelayedStarts() {
        // The end of one may be that of others.
        for greenlet in delayedGreenlets() where greenlet.phase == .delayed { greenlet.endUnstarted(GreenletExit()) }
    }

    /// The hub will not run any more. What it still owes to others is done for it; and what goes then may start, link
    /// and attach, so this is done again until nothing has come of it.
    private func finish() {
        let rounds = 100
        for round in 0..<rounds {
            for callback in spawnCallbacks { callback.cancel() }
            dropAllLocals()
            endDelayedStarts()
            // A link that starts what it is linked to would be told for ever.
            callOrDrop(takeReady(), calling: round < rounds / 2)
            closeServices()
            Timeout.cancelAll(of: gevent_hub_main(pointer))
            mainGreenlet.dropPendingErrors()
            if isFinished { return }
        }
    }

    private var isFinished: Bool {
        gevent_ready_count(pointer) == 0 && gevent_first_delayed_start(pointer) == nil && services.isEmpty
            && locals.rosters.isEmpty && spawnCallbacks.isEmpty
    }

    private func callOrDrop(_ entries: [gevent_ready_entry], calling: Bool) {
        for entry in entries {
            if calling, Int(entry.tag) == GEVENT_READY_CALLBACK, isKept(entry) {
                Unmanaged<HubCallback>.fromOpaque(entry.pointer).takeRetainedValue().call(on: self)
            } else {
                drop(entry)
            }
        }
    }

    /// A handler may have captured the hub. The lists of error types hold nothing.
    private func dropHandlers() {
        let dropped = (errorHandler, errorOutput)
        errorHandler = nil
        if errorOutput != nil { errorOutput = printToStandardError }
        withExtendedLifetime(dropped) {}
    }

    private func endParkedGreenlets(except abandoned: Int) {
        for _ in 0..<100 {
            for greenlet in greenletsOnStacks() { greenlet.deliver(GreenletExit()) }
            // Each round lets all of them unwind as far as they do without waiting, and their links and the reports of
            // their errors run.
            for _ in 0..<10 where pointer.pointee.live_stacks > abandoned || gevent_ready_count(pointer) > 0 {
                yieldToGreenlets()
            }
            if pointer.pointee.live_stacks == abandoned { return }
        }
    }

    private func abandonGreenlets() -> [AnyGreenlet] {
        let lost = greenletsOnStacks()
        abandon(lost)
        // Their frames are lost, and what they retain with them; the stacks' own holds at least are not.
        for greenlet in lost { Unmanaged.passUnretained(greenlet).release() }
        return lost
    }

    /// Every greenlet that has a stack: running, ready or parked; the first `most` of them. Linear in the stacks ever
    /// used.
    package func greenletsOnStacks(most: Int = .max) -> [AnyGreenlet] {
        var found: (list: [AnyGreenlet], most: Int) = ([], most)
        withUnsafeMutablePointer(to: &found) { found in
            gevent_hub_for_each_stack(
                pointer,
                { context, argument in
                    let found = argument!.assumingMemoryBound(to: (list: [AnyGreenlet], most: Int).self)
                    if found.pointee.list.count >= found.pointee.most { return }
                    let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(context!.pointee.owner).takeUnretainedValue()
                    found.pointee.list.append(greenlet)
                }, found)
        }
        // A stack whose greenlet has just ended counts as the hub's.
        return found.list.filter { $0 !== hubGreenlet }
    }

    /// Every greenlet that is to start later, in the order of the calls that said so; the first `most` of them.
    package func delayedGreenlets(most: Int = .max) -> [AnyGreenlet] {
        var found: [AnyGreenlet] = []
        var next = gevent_first_delayed_start(pointer)
        while let record = next, found.count < most {
            found.append(Unmanaged<AnyGreenlet>.fromOpaque(record.pointee.timer.payload).takeUnretainedValue())
            next = gevent_next_delayed_start(pointer, record)
        }
        return found
    }
}

@available(*, unavailable)
extension Hub: Sendable {}

/// A claim on the hub to wait: what ``Hub/hold()`` returns.
private final class HubHold: Registration {
    private var hub: Hub?

    init(_ hub: Hub) { self.hub = hub }

    override var isActive: Bool { hub.map { !$0.isDestroyed } ?? false }

    override func cancel() {
        guard let hub else { return }
        if !hub.isDestroyed && gevent_hub_current() != hub.pointer { fatalError("\(HubError.wrongThread)") }
        hub.holdCount -= 1
        self.hub = nil
    }

    deinit { cancel() }
}

// MARK: The current hub

/// This thread's hub, made if there is none.
@inline(__always)
package func currentHub() throws -> UnsafeMutablePointer<gevent_hub> {
    if let hub = gevent_hub_current() { return hub }
    return try makeHub()
}

@inline(never)
private func makeHub() throws -> UnsafeMutablePointer<gevent_hub> {
    try Hub.make().pointer
}

/// The same for calls that cannot throw.
@usableFromInline
@inline(__always)
func requireHub() -> UnsafeMutablePointer<gevent_hub> {
    if let hub = gevent_hub_current() { return hub }
    return makeHubOrDie()
}

@usableFromInline
@inline(never)
func makeHubOrDie() -> UnsafeMutablePointer<gevent_hub> {
    do {
        return try Hub.make().pointer
    } catch {  // control: nothing can be thrown into a thread that has no hub yet.
        endProgram(error)
    }
}

/// Ends the program where a call that cannot throw finds that there can be no hub.
///
/// Not a trap: what is wrong is said in one line, which a dump of registers would bury, and the exit status tells a
/// wrong setting (78, `EX_CONFIG`) from misuse in a task (70, `EX_SOFTWARE`) and from a system that is out of resources
/// (71, `EX_OSERR`).
private func endProgram(_ error: any Error) -> Never {
    printToStandardError("gevent: \(error)\n")
    exit(error is ConfigurationError ? 78 : error is HubError ? 70 : 71)
}

/// Destroys the hub of a thread that ends, so that its greenlets unwind and its descriptors are closed.
private enum ThreadExit {
    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key) { _ in
            // The process's main thread ends with the process; destructors run for other threads only.
            guard let hub = gevent_hub_current() else { return }
            Hub.of(hub).destroy()
        }
        return key
    }()

    static func destroyHubOfThisThread() {
        // Any value but null makes the destructor run.
        pthread_setspecific(key, UnsafeRawPointer(bitPattern: 1))
    }
}
