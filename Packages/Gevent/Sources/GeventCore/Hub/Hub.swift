public import CGevent
internal import Glibc

/// The scheduler of one thread: it runs greenlets, and polls the event loop when none is ready.
///
/// Each thread has one hub, made on first use. The thread's own stack is the *main greenlet*, so `sleep`, `join` and
/// `get` just work in `main.swift`. A hub is confined to its thread; other threads reach it through ``handle``.
///
/// While main is parked on the process's main thread, the hub occupies that thread. Code isolated to `@MainActor` and
/// blocks of `DispatchQueue.main` then wait until main returns to the system's run loop; if it never does, they never
/// run. Run such work on another actor or queue.
///
/// gevent: `gevent.hub.Hub`.
public final class Hub {
    package let pointer: UnsafeMutablePointer<gevent_hub>
    package let loop: any Loop
    /// The settings that the hub was made with.
    public let resolvedConfiguration: ResolvedConfiguration
    /// The reason why this loop was chosen.
    public let loopReason: String
    /// The handle through which other threads reach the hub; there is no other way.
    public let handle: HubHandle

    /// The thread's own stack as a greenlet. It runs the code in `main.swift`, or the thread's function.
    ///
    /// gevent: the greenlet whose `parent` is nil.
    public let mainGreenlet: AnyGreenlet
    package let hubGreenlet: HubGreenlet
    package let descriptors: DescriptorTable
    var identifiers = IdentifierPool()
    /// The events of the latest poll. Emptied once all of them are delivered.
    @exclusivity(unchecked) var events = ReadyEvents()
    /// The services that are attached to the hub; they are closed with it.
    private(set) var services: [any HubService] = []
    /// The error that the greenlet in `gevent_call_hub` waits to have reported; see `reportAtOnce`.
    @exclusivity(unchecked) var requestedReport: (error: any Error, greenlet: AnyGreenlet)?
    /// The number of active holds. While there are any, the hub waits although its thread has nothing pending.
    package fileprivate(set) var holdCount = 0
    /// Notified of switches; nil while there are no trace and no hooks.
    var switchWatch: SwitchWatch?
    @exclusivity(unchecked) package private(set) var isDestroyed = false
    /// Callbacks that are called for each greenlet that starts.
    var spawnCallbacks: [SpawnCallback] = []
    var locals = HubLocals()
    let startTime: LoopInstant
    /// The process for which the loop is set up; after a fork, the parent until the loop is repaired.
    package var process: CInt = getpid()
    /// The process ID for which work inherited from before the fork has been marked.
    var inheritanceMarkedProcess = getpid()
    /// Whether `destroy` has begun; from then on no error is delivered to main.
    private(set) var isBeingDestroyed = false

    /// The longest time that ready greenlets run before the hub checks timers and descriptors again; 5 ms.
    ///
    /// It is a bound, not a time slice: a greenlet that never parks is never interrupted. After a poll with thousands
    /// of events, the hub may run up to ten intervals before it polls again.
    ///
    /// gevent: `gevent.setswitchinterval`.
    public var switchInterval: Duration = .milliseconds(5) {
        didSet { switchNanoseconds = switchInterval.wholeNanoseconds }
    }
    @exclusivity(unchecked) private(set) var switchNanoseconds: Int64 = 5_000_000

    /// How much later than its deadline a timer may fire to share a wake with others, in nanoseconds.
    let timerSlack: Int64
    /// How often the hub reads the clock while it runs greenlets, and while it runs posted jobs.
    @exclusivity(unchecked) var readyPace = ClockPace()
    @exclusivity(unchecked) var mailPace = ClockPace()
    /// The number of `events` that have been delivered to their waiters.
    @exclusivity(unchecked) var deliveredCount = 0
    /// Whether the latest poll returned more than one batch of events; if so, `nextPoll` is the thread's processor time
    /// at which the next poll is due.
    @exclusivity(unchecked) var isLatestPollLarge = false
    @exclusivity(unchecked) var nextPoll: Int64 = 0
    /// The clock reading that preceded the latest poll.
    @exclusivity(unchecked) var beforePoll: Int64 = 0
    package let hasVirtualTime: Bool
    /// Events end only waits that began at this time or earlier.
    @exclusivity(unchecked) var waitCutoff = Int64.max
    /// When greenlets woken by timers were moved to the front of the ready queue; nil once they have run.
    @exclusivity(unchecked) var frontBegan: Int64?
    /// Until this time no timer fires while other entries are ready.
    @exclusivity(unchecked) var timersWaitUntil = Int64.min

    /// Handles errors that no code catches in a greenlet, a link or a callback. Its second argument is the greenlet
    /// that the error ended, if there is one.
    ///
    /// It isn't called for exits, ``quietErrors``, or ``systemErrors``, which are raised in main. It is called when the
    /// greenlet ends, before its links are notified and before anything else runs. It runs on the hub and must not
    /// park. The property is read at each error. If the handler throws, both errors are printed. Nil, the default,
    /// prints the error through ``errorOutput``.
    ///
    /// gevent: `Hub.handle_error`.
    public var errorHandler: ((_ error: any Error, _ greenlet: AnyGreenlet?) throws -> Void)?

    /// Types of errors that are not reported when they end a greenlet or a callback; subclasses are included. Exits are
    /// never reported. A quiet error still counts as a failure for `get` and for links.
    ///
    /// gevent: `Hub.NOT_ERROR`.
    public var quietErrors: [any Error.Type] = []

    /// Types of errors that are raised in main, at its next switch point, instead of being reported when they end a
    /// greenlet or a callback; subclasses are included. Meant for errors that should stop the program. In a greenlet of
    /// a group such an error is an ordinary failure, which the scope rethrows. The default is ``KeyboardInterrupt``.
    ///
    /// gevent: `Hub.SYSTEM_ERROR`.
    public var systemErrors: [any Error.Type] = [KeyboardInterrupt.self]

    /// Prints reports of errors, by default to standard error. Nil disables printing.
    ///
    /// It is called on the hub with whole lines, and must not park.
    ///
    /// gevent: `Hub.exception_stream`.
    public var errorOutput: ((_ text: String) -> Void)? = printToStandardError

    /// A small non-negative integer that is unique among the process's hubs: the smallest one that was free when the
    /// hub was made. Together with a greenlet's ``AnyGreenlet/minimalID`` it identifies the greenlet in the process.
    ///
    /// gevent: `Hub.minimal_ident`.
    public let minimalID: Int

    /// The name of the hub, for programs with several hubs; "Hub-0" and so on unless it is set.
    ///
    /// gevent: `Hub.name`.
    public var name: String {
        get { customName ?? "Hub-\(minimalID)" }
        set { customName = newValue }
    }
    private var customName: String?

    // MARK: Finding the hub

    /// This thread's hub, made if there is none.
    ///
    /// If no hub can be made, the program prints one line with the reason and exits, with status 78 if a setting such
    /// as `GEVENT_LOOP` is wrong. ``start()`` throws the reason instead.
    ///
    /// gevent: `gevent.get_hub()`.
    @available(*, noasync)
    public static var current: Hub { of(requireHub()) }

    /// This thread's hub, made if there is none.
    ///
    /// Throws ``ConfigurationError`` if a setting has a bad value or no loop can be started, ``LoopError`` or
    /// ``SystemError`` if the process is out of memory or descriptors, and ``HubError`` with `.wrongThread` in a task.
    /// Call it at the start of a program to turn a bad `GEVENT_LOOP` into an error that can be shown.
    @discardableResult
    @available(*, noasync)
    public static func start() throws -> Hub { of(try currentHub()) }

    /// Makes a hub for this thread on a loop that the caller has made: virtual time, or a loop shared with a C library.
    ///
    /// Throws ``HubError`` with `.concurrentUse` if the thread already has a hub, and with `.wrongThread` in a task.
    /// Throws ``ConfigurationError`` if a setting other than the loop has a bad value.
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

    /// Returns the loop's current time. In a forked child the loop is repaired first; until then it is the parent's.
    @inline(__always)
    static func time(_ pointer: UnsafeMutablePointer<gevent_hub>) -> LoopInstant {
        unretained(pointer)._withUnsafeGuaranteedRef { hub in
            if pointer.pointee.is_forked { hub.noticeFork() }
            return hub.loop.now
        }
    }

    /// The loop, repaired if necessary; for properties that don't depend on descriptors.
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

    /// Throws in a task. `noasync` does not stop a call that is hidden in a synchronous helper; it would block a thread
    /// of the pool and strand its greenlets there.
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
        // The deinit releases it, so it is taken after the last step that can fail.
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
            pointer.pointee.spawn_flags = UInt32(GEVENT_SPAWN_TRACKS)
            mainGreenlet.spawnNode = gevent_spawn_node_make_root(pointer, pointer.pointee.main.owner)
            hubGreenlet.spawnNode = gevent_spawn_node_make_root(pointer, pointer.pointee.root.owner)
        }
        gevent_hub_set_current(pointer)
        HubRegistry.add(handle, serial: pointer.pointee.serial)
        ThreadExit.destroyHubOfThisThread()
        HubExtensions.hubWasMade(self)
    }

    deinit { HubIdentifiers.release(minimalID) }

    /// Attaches a context to main or to the hub's greenlet, which run from the start and never end.
    private func adopt(_ greenlet: AnyGreenlet, _ context: UnsafeMutablePointer<gevent_context>) {
        greenlet.phase = .running
        greenlet.context = context
        context.pointee.owner = Unmanaged.passUnretained(greenlet).toOpaque()
    }

    // MARK: Facts

    /// The name of the running loop, such as "epoll".
    ///
    /// gevent: `hub.backend`.
    public var loopName: String { type(of: loop).backendName }

    /// The loop's description of its features, for reports.
    public var loopFeatures: [String: String] { usableLoop.features }

    /// The loop's monotonic time since an arbitrary moment.
    ///
    /// gevent: `loop.now()`.
    public var now: LoopInstant { usableLoop.now }

    /// The resolution with which the loop keeps deadlines.
    public var timerResolution: Duration { usableLoop.timerResolution }

    /// Counters of the hub's activity and of the objects it holds; all zero once it is destroyed.
    public var statistics: HubStatistics { isDestroyed ? HubStatistics() : HubStatistics(self) }

    // MARK: Keeping the hub waiting

    /// Makes the hub wait for posts from other threads even when its own thread has nothing pending, until the returned
    /// registration is cancelled or deallocated. Without a hold, a wait that only a post could end is reported as
    /// blocking forever.
    ///
    /// Call it on the hub's own thread, where the last reference must also be released. Traps on other threads.
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
    /// Only main may call it; it traps on another thread and in another greenlet. A call while main is already
    /// destroying the hub has no effect. Main lets the other greenlets unwind meanwhile, but nothing can interrupt it:
    /// this is the only call that switches and does not throw, so it can be used in a `defer`. Each parked greenlet
    /// receives a ``GreenletExit``; one that waits again during its clean-up receives another, and after a hundred it
    /// is abandoned with its stack. In a forked child, work queued or parked before the fork is abandoned without being
    /// run, because the parent ends it. A thread that ends destroys its hub automatically.
    ///
    /// An object that is released meanwhile and parks in its `deinit` gets ``HubError`` with `.blockedInHub`. At the
    /// end ``errorHandler`` and ``errorOutput`` have the values of a new hub, except that disabled printing stays
    /// disabled.
    ///
    /// gevent: `Hub.destroy()`.
    @available(*, noasync)
    public func destroy() {
        if isDestroyed { return }
        // Not preconditions, whose messages are missing in an optimised build.
        guard gevent_hub_current() == pointer else { fatalError("\(HubError.wrongThread)") }
        guard pointer.pointee.current == gevent_hub_main(pointer) else {
            fatalError("\(HubError(.invalidSwitch, "a hub is destroyed from its main greenlet"))")
        }
        if isBeingDestroyed { return }
        isBeingDestroyed = true
        // Objects released from here on may run the program's code in main. If that code parked, greenlets would run
        // that are to end or have been removed from the queue, and nothing would resume main.
        gevent_pending_refuse(gevent_hub_main(pointer))
        noticeFork()
        let abandoned = abandonInherited()
        handle.close()
        closeServices()
        dropStarts()
        Timeout.cancelAll(of: gevent_hub_main(pointer))
        endParkedGreenlets(except: abandoned)
        mainGreenlet.dropPendingErrors()
        // Kept alive until the last notification: a group does not retain its owner.
        withExtendedLifetime(abandonGreenlets()) { finish() }
        // Errors were reported until here.
        dropHandlers()
        finish()
        // Entries that requeue themselves endlessly are dropped.
        pointer.pointee.ready_head = pointer.pointee.ready_tail
        HubRegistry.remove(serial: pointer.pointee.serial)
        isDestroyed = true
        descriptors.close()
        // Parks main. Nothing is ready, so the hub's stack runs, sees `isDestroyed`, and resumes main for the last
        // time.
        gevent_park(pointer)
        loop.close()
        mainGreenlet.phase = .ended
        mainGreenlet.context = nil
        hubGreenlet.phase = .ended
        hubGreenlet.context = nil
        gevent_hub_destroy(pointer)
        Unmanaged.passUnretained(self).release()
    }

    /// Lets other greenlets unwind. This is the only place where main yields while the hub is destroyed.
    private func yieldToGreenlets() {
        let main = gevent_hub_main(pointer)!
        // A pending error would keep main from yielding, and no error is delivered to it any more.
        mainGreenlet.dropPendingErrors()
        gevent_pending_reset(main)
        gevent_yield()
        gevent_pending_refuse(main)
    }

    /// Closes the services, including those that are attached meanwhile. Each is removed before it is closed, so code
    /// that looks for a service during that gets a new one, which is closed later.
    private func closeServices() {
        var remaining = services.count + 100
        while remaining > 0, !services.isEmpty {
            services.removeFirst().hubWillClose()
            remaining -= 1
        }
    }

    /// Drops greenlets that have not started and callbacks that have not been called. The library's own are kept, so
    /// links are still notified and errors are still reported.
    private func dropStarts() {
        endDelayedStarts()
        var dropped: [gevent_ready_entry] = []
        var kept: [gevent_ready_entry] = []
        for entry in takeReady() {
            if isInternal(entry) { kept.append(entry) } else { dropped.append(entry) }
        }
        for entry in kept { gevent_ready_push(pointer, entry.pointer, entry.tag) }
        for entry in dropped { drop(entry) }
    }

    private func isInternal(_ entry: gevent_ready_entry) -> Bool {
        switch Int(entry.tag) {
        case GEVENT_READY_RESUME: true
        case GEVENT_READY_START, GEVENT_READY_START_SIZED:
            (Unmanaged<AnyGreenlet>.fromOpaque(entry.pointer).takeUnretainedValue() as? RawGreenlet)?.isOfLink == true
        default: Unmanaged<HubCallback>.fromOpaque(entry.pointer).takeUnretainedValue().isInternal
        }
    }

    /// Empties the queue without running any other code; entries that such code adds are queued after all of these.
    private func takeReady() -> [gevent_ready_entry] {
        var entries: [gevent_ready_entry] = []
        while gevent_ready_count(pointer) > 0 { entries.append(gevent_ready_pop(pointer)) }
        return entries
    }

    private func drop(_ entry: gevent_ready_entry) {
        switch Int(entry.tag) {
        case GEVENT_READY_RESUME:
            // Its greenlet was abandoned and must not run again.
            break
        case GEVENT_READY_START, GEVENT_READY_START_SIZED:
            let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(entry.pointer).takeRetainedValue()
            if greenlet.phase == .scheduled { greenlet.endUnstarted(GreenletExit()) }
        default:
            Unmanaged<HubCallback>.fromOpaque(entry.pointer).takeRetainedValue().cancel()
        }
    }

    private func endDelayedStarts() {
        // Ending one may end others.
        for greenlet in delayedGreenlets() where greenlet.phase == .delayed { greenlet.endUnstarted(GreenletExit()) }
    }

    /// Performs the hub's remaining duties once it no longer runs. Objects released here may start greenlets, link and
    /// attach services, so this repeats until nothing new appears.
    private func finish() {
        let rounds = 100
        for round in 0..<rounds {
            for callback in spawnCallbacks { callback.cancel() }
            dropAllLocals()
            endDelayedStarts()
            // A link that restarts the greenlet it is linked to would be notified forever.
            drain(takeReady(), calling: round < rounds / 2)
            closeServices()
            Timeout.cancelAll(of: gevent_hub_main(pointer))
            mainGreenlet.dropPendingErrors()
            if isFinished { return }
        }
    }

    private var isFinished: Bool {
        gevent_ready_count(pointer) == 0 && gevent_first_delayed_start(pointer) == nil && services.isEmpty
            && locals.cellLists.isEmpty && spawnCallbacks.isEmpty
    }

    private func drain(_ entries: [gevent_ready_entry], calling: Bool) {
        for entry in entries {
            if calling, Int(entry.tag) == GEVENT_READY_CALLBACK, isInternal(entry) {
                Unmanaged<HubCallback>.fromOpaque(entry.pointer).takeRetainedValue().call(on: self)
            } else {
                drop(entry)
            }
        }
    }

    /// Releases the handlers, which may have captured the hub. The lists of error types retain nothing.
    private func dropHandlers() {
        let dropped = (errorHandler, errorOutput)
        errorHandler = nil
        if errorOutput != nil { errorOutput = printToStandardError }
        withExtendedLifetime(dropped) {}
    }

    private func endParkedGreenlets(except abandoned: Int) {
        for _ in 0..<100 {
            for greenlet in greenletsOnStacks() { greenlet.deliver(GreenletExit()) }
            // In each round all greenlets unwind as far as they can without waiting; their links and error reports run
            // too.
            for _ in 0..<10 where pointer.pointee.live_stacks > abandoned || gevent_ready_count(pointer) > 0 {
                yieldToGreenlets()
            }
            if pointer.pointee.live_stacks == abandoned { return }
        }
    }

    private func abandonGreenlets() -> [AnyGreenlet] {
        let lost = greenletsOnStacks()
        abandon(lost)
        // Their frames and the objects those retain are lost, but the stack's own reference can be released.
        for greenlet in lost { Unmanaged.passUnretained(greenlet).release() }
        return lost
    }

    /// Returns the greenlets that have a stack (running, ready or parked), at most `most` of them. Linear in the number
    /// of stacks ever used.
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
        // The stack of a greenlet that has just ended is attributed to the hub.
        return found.list.filter { $0 !== hubGreenlet }
    }

    /// Returns the greenlets with a delayed start, in the order in which they were delayed, at most `most` of them.
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

/// A hold on the hub, as returned by ``Hub/hold()``.
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

/// Returns this thread's hub, made if there is none.
@inline(__always)
package func currentHub() throws -> UnsafeMutablePointer<gevent_hub> {
    if let hub = gevent_hub_current() { return hub }
    return try makeHub()
}

@inline(never)
private func makeHub() throws -> UnsafeMutablePointer<gevent_hub> {
    try Hub.make().pointer
}

/// Returns this thread's hub, for callers that cannot throw; exits the program if none can be made.
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
    } catch {  // control: this thread has no hub yet, so no kill can arrive.
        endProgram(error)
    }
}

/// Exits the program when a call that cannot throw needs a hub and none can be made.
///
/// It prints one line instead of trapping, because a dump of registers would bury the message. The exit status
/// distinguishes a wrong setting (78, `EX_CONFIG`) from misuse in a task (70, `EX_SOFTWARE`) and from a system that is
/// out of resources (71, `EX_OSERR`).
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
        // The destructor runs for any value other than null.
        pthread_setspecific(key, UnsafeRawPointer(bitPattern: 1))
    }
}
