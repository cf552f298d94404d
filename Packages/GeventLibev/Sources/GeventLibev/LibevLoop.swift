internal import CGeventSystem
internal import CLibev
@_spi(GeventInternals) public import GeventLoop
internal import Glibc

/// A loop on libev: either on a private libev loop, or on an existing one, such as that of a C library.
///
/// ```swift
/// let hub = try Hub.start(on: LibevLoop(adopting: ev_default_loop(0)))
/// ```
///
/// Each descriptor has one `ev_io`. Everything else on an adopted loop (timers, signals, a C library's connections) is
/// served while the hub polls: each poll is one complete `ev_run`.
///
/// ## How libev is kept from aborting
/// `ev_io_start` only marks a descriptor. libev registers it with the kernel at its next run. If the descriptor was
/// closed in between, an assertion ends the process in the builds that distributions ship. So the loop checks the
/// changes since the last poll immediately before libev runs. It checks all descriptors before libev registers all of
/// them again, which libev announces by `ev_fork`. The backends other than epoll pass every descriptor to the kernel
/// repeatedly. With those, every poll checks all descriptors; their cost grows with the number of descriptors anyway.
///
/// A descriptor that libev failed to register is reported as a lost registration. libev detects that during a run that
/// would nevertheless wait, so a run after a change does not wait.
///
/// A failed wait throws a `LoopError`, where libev would end the process. This needs `ev_set_syserr_cb`, which is set
/// for the whole process when the first private loop is created; adopting a loop does not set it. If libev needs
/// another epoll descriptor and the system has none, libev retries for a second. After that the process ends, as it
/// would have done immediately without the callback.
public final class LibevLoop: Loop {
    /// "libev".
    public static var backendName: String { "libev" }

    /// The C loop; nil once closed.
    private var loop: OpaquePointer?
    private let isAdopted: Bool
    /// Whether libev's backend passes descriptors to the kernel again at each poll, or after each event.
    private let reregistersDescriptors: Bool
    /// Whether libev's backend finds ready descriptors by scanning the numbers.
    private let scansByNumber: Bool
    /// The slots of descriptors. A slot is started only while there is interest.
    private var slots = LibrarySlots<Slot>()
    private let eventWaker: EventWaker
    private let wakeSlot: UnsafeMutablePointer<Slot>
    private var timer: DeadlineTimer
    private let timerSlot: UnsafeMutablePointer<Slot>
    private let state: UnsafeMutablePointer<State>
    private let forkWatcher: UnsafeMutablePointer<ev_fork>
    /// An idle watcher, started to keep a run from waiting.
    private let idleWatcher: UnsafeMutablePointer<ev_idle>
    /// Whether libev will register descriptors at its next run.
    private var hasChanges = true
    /// An empty epoll descriptor, used to check whether the kernel can watch a descriptor.
    private let probe: CInt
    private let owner = pthread_self()

    typealias State = CallbackState<Slot, Extra>

    struct Extra {
        /// Whether the registration of a changed slot may have failed in the run.
        var hasLost = false
        /// Whether the waker or the timer is not watched and must be.
        var hasUnwatchedOwn = true
        var failure = Failure()
        /// The loop, for the one callback that must act immediately. The loop outlives its watchers.
        var loop: Unmanaged<LibevLoop>?
    }

    /// The failed system calls of a run, on which libev would have ended the process.
    struct Failure {
        /// The number of failed calls, and the error number of the latest.
        var count = 0
        var code: CInt = 0
        /// libev's name for that call, such as "(libev) epoll_wait".
        var message: UnsafePointer<CChar>?
    }

    /// A watcher with the data that its callback needs.
    ///
    /// libev keeps the watcher's address while it is started. The watcher's `data` is the slot. An initialized `ev_io`
    /// is all zero, apart from its callback.
    struct Slot: LibrarySlot {
        var watcher = ev_io()
        let state: UnsafeMutablePointer<State>
        var nextChanged: UnsafeMutablePointer<Slot>!
        var isChanged = false
        var generation: UInt32 = 0
        /// Whether libev failed to register the watcher and stopped it, until it is registered again.
        var hasFailed = false
        /// Whether the registration failed and the core has not been notified yet.
        var isLost = false

        var isStarted: Bool { watcher.active != 0 }
    }

    // MARK: Making

    /// Creates a loop on a private libev loop. It belongs to the calling thread.
    ///
    /// - Parameter backends: the backends to try, in order; the first one that works is used. If empty, the variable
    ///   `LIBEV_FLAGS` decides, or if that is not set, libev, which uses epoll.
    /// - Throws: ``/GeventLoop/LoopError`` with code `unsupported` if none of them works, or if `LIBEV_FLAGS` has a
    ///   value that libev does not understand or selects io_uring; `outOfResources` if no descriptors are left.
    public convenience init(backends: [Backend] = []) throws(LoopError) {
        let loop = backends.isEmpty ? try Self.makeDefault() : try Self.make(backends)
        Self.recordFailures
        try self.init(loop, isAdopted: false)
    }

    /// Creates a loop on an existing libev loop, which must belong to the calling thread and not be running.
    ///
    /// From now on the hub runs the libev loop, and everything already on it stays active. It is neither destroyed nor
    /// otherwise changed, and must outlive this object. ``close()`` removes our watchers from it; always call it.
    ///
    /// - Parameter loop: a `struct ev_loop *`.
    /// - Throws: ``/GeventLoop/LoopError`` with code `outOfResources` if no descriptors are left, and with
    ///   `unsupported` for a loop on io_uring.
    public convenience init(adopting loop: OpaquePointer) throws(LoopError) {
        if Self.usesIOUring(loop) { throw Backend.ioUringRefused("adopt a loop") }
        try self.init(loop, isAdopted: true)
    }

    private init(_ loop: OpaquePointer, isAdopted: Bool) throws(LoopError) {
        do throws(LoopError) {
            eventWaker = try EventWaker()
            timer = try DeadlineTimer()
            probe = try LoopError.check(gevent_epoll(), "epoll_create1")
        } catch {
            if !isAdopted { ev_loop_destroy(loop) }
            throw error
        }
        self.loop = loop
        self.isAdopted = isAdopted
        reregistersDescriptors = Self.backend(of: loop) != .epoll
        scansByNumber = Self.backend(of: loop) == .select
        state = .allocate(capacity: 1)
        state.initialize(to: State(waker: eventWaker, extra: Extra()))
        wakeSlot = Self.makeSlot(onWake, state)
        timerSlot = Self.makeSlot(onDeadline, state)
        forkWatcher = .allocate(capacity: 1)
        forkWatcher.initialize(to: ev_fork())
        idleWatcher = .allocate(capacity: 1)
        idleWatcher.initialize(to: ev_idle())
        idleWatcher.pointee.cb = onIdle
        state.pointee.extra.loop = .passUnretained(self)
        forkWatcher.pointee.cb = onReregistration
        forkWatcher.pointee.data = UnsafeMutableRawPointer(state)
        ev_fork_start(loop, forkWatcher)
        do throws(LoopError) {
            try watchOwnDescriptors()
        } catch {
            tearDown()
            throw error
        }
    }

    private static let recordFailures: Void = ev_set_syserr_cb(onFailure)

    /// Watches the waker and the timer unless they are watched. They also give libev something to wait for, without
    /// which it would return at once.
    private func watchOwnDescriptors() throws(LoopError) {
        try watchOwn(wakeSlot, eventWaker.fileDescriptor)
        try watchOwn(timerSlot, timer.fileDescriptor)
        state.pointee.extra.hasUnwatchedOwn = false
    }

    private func watchOwn(_ slot: UnsafeMutablePointer<Slot>, _ fileDescriptor: CInt) throws(LoopError) {
        if slot.pointee.isStarted { return }
        let error = tryToWatch(fileDescriptor)
        if error != 0 { throw LoopError(errno: error, operation: "epoll_ctl", fileDescriptor: fileDescriptor) }
        start(slot, fileDescriptor, .read)
    }

    private static func make(_ backends: [Backend]) throws(LoopError) -> OpaquePointer {
        for backend in backends {
            // Without EVFLAG_NOENV the environment would take precedence over the code.
            if let loop = ev_loop_new(backend.flag | CUnsignedInt(EVFLAG_NOENV)) { return loop }
        }
        throw LoopError(
            .unsupported, operation: "ev_loop_new",
            message: "this system cannot run libev on \(Backend.names(backends)); "
                + "this build of libev has \(Backend.names(Backend.supported))")
    }

    private static func makeDefault() throws(LoopError) -> OpaquePointer {
        // This variable is libev's and not one of our settings. libev acts on it, except in a program with raised
        // privileges, where `gevent_environment` returns nil.
        guard gevent_environment(0) != nil, let flags = getenv("LIBEV_FLAGS").map({ String(cString: $0) }) else {
            if let loop = ev_loop_new(0) { return loop }
            throw LoopError(.unsupported, operation: "ev_loop_new", message: "no backend of libev works on this system")
        }
        // libev would parse any text as a number, and an invalid one as 0, its default.
        if CUnsignedInt(flags) != nil, let loop = ev_loop_new(0) {
            if !usesIOUring(loop) { return loop }
            ev_loop_destroy(loop)
            throw Backend.ioUringRefused("LIBEV_FLAGS=\"\(flags)\"")
        }
        let sum = Backend.supported.map { "\($0.flag) for \($0.rawValue)" }.joined(separator: ", ")
        throw LoopError(
            .unsupported, operation: "LIBEV_FLAGS=\"\(flags)\"",
            message: "libev cannot run on these flags; they are a sum of \(sum)")
    }

    // MARK: Facts

    public var now: LoopInstant {
        assertUsable()
        return LoopInstant(nanoseconds: gevent_monotonic_time())
    }

    /// A nanosecond: a timerfd keeps the deadlines, because libev waits in whole milliseconds.
    public var timerResolution: Duration {
        assertUsable()
        return .nanoseconds(1)
    }

    public var waker: any LoopWaker { eventWaker }

    /// libev's version and backend, and whether the loop was adopted.
    public var features: [String: String] {
        [
            "libev": "\(ev_version_major()).\(ev_version_minor())",
            "backend": backend?.rawValue ?? "unknown to this program",
            "adopted": isAdopted ? "yes" : "no",
        ]
    }

    /// The backend that libev uses; nil after ``close()``, or if this module does not know the backend.
    public var backend: Backend? {
        loop.flatMap(Self.backend(of:))
    }

    // MARK: Interest

    public func setInterest(
        _ interest: Readiness, for fileDescriptor: CInt, generation: UInt32
    ) throws(LoopError) {
        assertUsable()
        guard let loop else { throw LoopError(.closed, operation: "setInterest", fileDescriptor: fileDescriptor) }
        let known = slots[fileDescriptor]
        // Harmless on a stopped watcher, and never a system call: libev passes changes to the kernel at its next run.
        if let known { ev_io_stop(loop, &known.pointee.watcher) }
        if interest.isEmpty { return }
        // libev detects bad descriptors at its next run, too late to throw. For -1 it aborts immediately, and a regular
        // file it reports as always ready.
        let hasFailed = known?.pointee.hasFailed ?? false
        let error = hasFailed ? tryToWatch(fileDescriptor) : check(fileDescriptor)
        if error != 0 { throw LoopError(errno: error, operation: "epoll_ctl", fileDescriptor: fileDescriptor) }
        let slot = known ?? makeSlot(for: fileDescriptor)
        slot.pointee.generation = generation
        slot.pointee.isLost = false
        start(slot, fileDescriptor, interest)
        state.pointee.markChanged(slot)
    }

    /// Returns 0 if libev can watch the descriptor, else an error number. That is ELOOP for an epoll descriptor in
    /// which others are nested so deep that no other may hold it.
    private func check(_ fileDescriptor: CInt) -> CInt {
        let error = gevent_check_pollable(probe, fileDescriptor)
        if error != 0 { return error }
        // Asks whether it watches the probe: for any file that is not an epoll descriptor the kernel reports EINVAL.
        return gevent_epoll_control(fileDescriptor, EPOLL_CTL_MOD, probe, 0, 0) == -EINVAL
            ? 0 : tryToWatch(fileDescriptor)
    }

    /// Returns 0 if the kernel can watch the descriptor now, else an error number, which may stand for a lack of memory
    /// or watches.
    private func tryToWatch(_ fileDescriptor: CInt) -> CInt {
        let error = -gevent_epoll_control(probe, EPOLL_CTL_ADD, fileDescriptor, EPOLLIN.rawValue, 0)
        if error == 0 { _ = gevent_epoll_control(probe, EPOLL_CTL_DEL, fileDescriptor, 0, 0) }
        return error
    }

    /// Stops changed watchers that would make libev abort, and reports those that libev failed to register.
    private func confirmChanges(into events: inout ReadyEvents) {
        while let slot = state.pointee.popChanged() {
            if slot.pointee.isLost {
                slot.pointee.isLost = false
                events.append(slot.pointee.event([]))
            } else {
                confirm(slot)
            }
        }
    }

    /// Stops all watchers that would make libev abort.
    private func confirmAll() {
        for slot in slots.all { confirm(slot) }
    }

    /// Prepares for libev to register all descriptors again, in a run that may be about to wait.
    fileprivate func prepareToReregister() {
        confirmAll()
        ev_idle_start(loop, idleWatcher)
    }

    private func confirm(_ slot: UnsafeMutablePointer<Slot>) {
        if !slot.pointee.isStarted { return }
        let error = gevent_check_pollable(probe, slot.pointee.watcher.fd)
        // The descriptor was closed without notice: the kernel has dropped it, and so does the loop.
        if error == EBADF || error == EPERM { ev_io_stop(loop, &slot.pointee.watcher) }
    }

    private func makeSlot(for fileDescriptor: CInt) -> UnsafeMutablePointer<Slot> {
        let slot = Self.makeSlot(onReady, state)
        slots.insert(slot, for: fileDescriptor)
        return slot
    }

    private static func makeSlot(
        _ callback: @convention(c) (OpaquePointer?, UnsafeMutablePointer<ev_io>?, CInt) -> Void,
        _ state: UnsafeMutablePointer<State>
    ) -> UnsafeMutablePointer<Slot> {
        let slot = UnsafeMutablePointer<Slot>.allocate(capacity: 1)
        slot.initialize(to: Slot(state: state))
        slot.pointee.watcher.cb = callback
        slot.pointee.watcher.data = UnsafeMutableRawPointer(slot)
        return slot
    }

    private func start(_ slot: UnsafeMutablePointer<Slot>, _ fileDescriptor: CInt, _ interest: Readiness) {
        slot.pointee.watcher.fd = fileDescriptor
        // EV_READ and EV_WRITE are the bits of `Readiness`. Like the macro `ev_io_set`, this also notifies libev that
        // the number may refer to another file.
        slot.pointee.watcher.events = CInt(interest.rawValue) | CInt(EV__IOFDSET)
        ev_io_start(loop, &slot.pointee.watcher)
        hasChanges = true
    }

    // MARK: Polling

    public func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        assertUsable()
        guard let loop else { throw LoopError(.closed, operation: "poll") }
        let before = events.count
        confirmChanges(into: &events)
        if state.pointee.extra.hasUnwatchedOwn { try watchOwnDescriptors() }
        if reregistersDescriptors { confirmAll() }
        var mayBlock = events.count == before && state.pointee.mayBlock(until: deadline)
        if mayBlock && hasChanges {
            let hasExpired = try run(loop, CInt(EVRUN_NOWAIT), into: &events)
            if hasExpired || events.count > before { return }
            mayBlock = state.pointee.mayBlock(until: deadline)
        }
        if mayBlock { try timer.arm(until: deadline) }
        try run(loop, mayBlock ? CInt(EVRUN_ONCE) : CInt(EVRUN_NOWAIT), into: &events)
    }

    /// Runs libev once. Returns whether a wake or the deadline ended the run.
    @discardableResult
    private func run(_ loop: OpaquePointer, _ flags: CInt, into events: inout ReadyEvents) throws(LoopError) -> Bool {
        let before = events.count
        hasChanges = false
        let ended = State.run(state, into: &events) {
            // A callback of an adopted loop may run another loop.
            let outer = pthread_getspecific(failureKey)
            pthread_setspecific(failureKey, &state.pointee.extra.failure)
            ev_run(loop, flags)
            pthread_setspecific(failureKey, outer)
        }
        if ended.isExpired { timer.expire() }
        if isReversed(events, from: before) { events.reverse(from: before) }
        if state.pointee.extra.hasLost {
            state.pointee.extra.hasLost = false
            confirmChanges(into: &events)
        }
        if state.pointee.extra.failure.count != 0 { try throwFailure() }
        return ended.isWoken || ended.isExpired
    }

    /// Returns whether libev called back in the reverse of the kernel's order.
    ///
    /// libev calls back for the last event first. With `select`, which orders events by number only, some builds also
    /// scan from the highest number down.
    private func isReversed(_ events: borrowing ReadyEvents, from start: Int) -> Bool {
        if events.count - start < 2 { return false }
        return !scansByNumber || events[start].fileDescriptor > events[events.count - 1].fileDescriptor
    }

    private func throwFailure() throws(LoopError) {
        let failure = state.pointee.extra.failure
        state.pointee.extra.failure = Failure()
        let message = failure.message.map { String(cString: $0) }
        let operation = message?.split(separator: " ").last.map(String.init) ?? "ev_run"
        // Calls that create kernel objects were retried until they succeeded.
        if operation.contains("create") || operation.contains("setup") { return }
        throw LoopError(errno: failure.code, operation: operation)
    }

    // MARK: Forking and closing

    public func recoverAfterFork() throws(LoopError) {
        assertUsable()
        guard let loop else { throw LoopError(.closed, operation: "recoverAfterFork") }
        try checkEpollIsAvailable()
        // Only marks the loop. The next run replaces libev's kernel objects before it passes any change to the kernel.
        ev_loop_fork(loop)
        for slot in slots.all { ev_io_stop(loop, &slot.pointee.watcher) }
        try eventWaker.replaceAfterFork()
        try timer.replaceAfterFork()
        // The probe may stay shared: every descriptor added to it is removed at once.
        hasChanges = true
    }

    public func close() {
        assert(pthread_equal(owner, pthread_self()) != 0, "LibevLoop.close() was called on another thread")
        if loop != nil { tearDown() }
    }

    deinit {
        if loop != nil {
            // For a private loop, any thread may release the last reference, and no other code can be using the loop
            // then.
            precondition(!isAdopted, "a LibevLoop on an adopted loop must be closed before it is released")
            tearDown()
        }
        _ = Glibc.close(probe)
        state.deallocate()
    }

    private func tearDown() {
        for slot in slots.all + [wakeSlot, timerSlot] {
            ev_io_stop(loop, &slot.pointee.watcher)
            slot.deallocate()
        }
        slots.removeAll()
        ev_fork_stop(loop, forkWatcher)
        forkWatcher.deallocate()
        ev_idle_stop(loop, idleWatcher)
        idleWatcher.deallocate()
        if !isAdopted { ev_loop_destroy(loop) }
        loop = nil
    }

    private func assertUsable(_ call: StaticString = #function) {
        assert(pthread_equal(owner, pthread_self()) != 0, "LibevLoop.\(call) was called on another thread")
        assert(loop != nil, "LibevLoop.\(call) was called after close()")
    }
}

// Confined to the thread that created it; only its waker may leave that thread.
@available(*, unavailable)
extension LibevLoop: Sendable {}

extension LibevLoop.Slot {
    fileprivate func event(_ readiness: Readiness) -> ReadyEvent {
        ReadyEvent(fileDescriptor: watcher.fd, generation: generation, readiness: readiness)
    }
}

// MARK: Failures of libev

/// The key of the thread's `LibevLoop.Failure`; null outside of a loop's run.
private let failureKey: pthread_key_t = {
    var key = pthread_key_t()
    let error = pthread_key_create(&key, nil)
    precondition(error == 0, "pthread_key_create failed: \(error)")
    return key
}()

/// Records a failed call. libev retries calls that create kernel objects until they succeed, and returns from a wait
/// that failed.
private func onFailure(_ message: UnsafePointer<CChar>?) {
    let code = errno
    let longestRetry = 100
    guard let failure = pthread_getspecific(failureKey)?.assumingMemoryBound(to: LibevLoop.Failure.self),
        failure.pointee.count < longestRetry
    else {
        // libev's default behaviour.
        perror(message)
        abort()
    }
    failure.pointee.count += 1
    failure.pointee.code = code
    failure.pointee.message = message
    if failure.pointee.count > 1 { usleep(10_000) }
}

// MARK: Callbacks. Each appends an event or sets a flag, and returns.

private let errorBit = CInt(truncatingIfNeeded: EV_ERROR)

private func slot(of watcher: UnsafeMutablePointer<ev_io>) -> UnsafeMutablePointer<LibevLoop.Slot> {
    watcher.pointee.data.assumingMemoryBound(to: LibevLoop.Slot.self)
}

private func onReady(_: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_io>?, _ events: CInt) {
    guard let watcher else { return }
    let slot = slot(of: watcher)
    let state = slot.pointee.state
    if events & errorBit != 0 {
        // libev has stopped the watcher because the kernel rejected the descriptor.
        slot.pointee.hasFailed = true
        slot.pointee.isLost = true
        state.pointee.markChanged(slot)
        state.pointee.extra.hasLost = true
        return
    }
    guard let batch = state.pointee.events else { return }
    slot.pointee.hasFailed = false
    // EV_READ and EV_WRITE are the bits of `Readiness`.
    batch.pointee.append(slot.pointee.event(Readiness(rawValue: UInt8(truncatingIfNeeded: events))))
}

/// Called whenever libev is about to register all descriptors again, not only after a fork.
private func onReregistration(_: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_fork>?, _: CInt) {
    guard let state = watcher?.pointee.data.assumingMemoryBound(to: LibevLoop.State.self) else { return }
    state.pointee.extra.loop?._withUnsafeGuaranteedRef { $0.prepareToReregister() }
}

private func onIdle(_ loop: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_idle>?, _: CInt) {
    ev_idle_stop(loop, watcher)
}

// The two callbacks below are also called with an error after libev has stopped the watcher. The next poll starts the
// watcher again, or throws.

private func onWake(_: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_io>?, _ events: CInt) {
    guard let watcher else { return }
    let state = slot(of: watcher).pointee.state
    if events & errorBit != 0 { state.pointee.extra.hasUnwatchedOwn = true }
    state.pointee.wake()
}

private func onDeadline(_: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_io>?, _ events: CInt) {
    guard let watcher else { return }
    let state = slot(of: watcher).pointee.state
    if events & errorBit != 0 { state.pointee.extra.hasUnwatchedOwn = true }
    state.pointee.isExpired = true
}
