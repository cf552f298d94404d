internal import CGeventLibev
internal import CGeventSystem
internal import CLibev
@_spi(GeventInternals) public import GeventLoop
internal import Glibc

/// A loop on libev: one of its own, or one that a C library brought along.
///
/// ```swift
/// let hub = try Hub.start(on: LibevLoop(adopting: ev_default_loop(0)))
/// ```
///
/// Each descriptor has one `ev_io`. Whatever else lives on an adopted loop (timers, signals, a C library's own
/// connections) is served while the hub polls: each poll is one complete `ev_run`.
///
/// ## How libev is kept from aborting
/// `ev_io_start` only takes a note. libev registers with the kernel at its next run, and if the descriptor was closed
/// meanwhile an assertion of its ends the process, in the builds that distributions ship. So what changed since the
/// last poll is confirmed right before libev runs, and everything before it registers everything anew, which it
/// announces by `ev_fork`. The backends other than epoll name every descriptor to the kernel again and again, so on
/// those everything is confirmed for each poll; their cost grows with the number of descriptors anyway.
///
/// What libev could not register is reported as a lost registration. It finds that out in the run that was to wait, and
/// would wait all the same, so a run after a change does not wait.
///
/// A wait that fails is a `LoopError`, where libev would end the process. That takes `ev_set_syserr_cb`, which is set
/// for the whole process when the first loop of our own is made; an adopted loop leaves it alone. If libev needs
/// another epoll descriptor and the system has none, it asks again for a second, and then the process ends as it would
/// at once.
public final class LibevLoop: Loop {
    /// "libev".
    public static var backendName: String { "libev" }

    /// The C loop; nil once closed.
    private var loop: OpaquePointer?
    private let isAdopted: Bool
    /// Whether libev's backend hands descriptors to the kernel again at each poll, or after each event.
    private let namesDescriptorsAnew: Bool
    /// Whether libev's backend finds what is ready by going through the numbers.
    private let looksAtNumbers: Bool
    /// A slot is started only while there is interest.
    private var slots = LibrarySlots<gevent_libev_slot>()
    private let eventWaker: EventWaker
    private let wakeSlot: UnsafeMutablePointer<gevent_libev_slot>
    private var timer: DeadlineTimer
    private let timerSlot: UnsafeMutablePointer<gevent_libev_slot>
    private let turn: UnsafeMutablePointer<DeinitAction>
    private let forkWatcher: UnsafeMutablePointer<ev_fork>
    /// Started for a run that is not to wait.
    private let idleWatcher: UnsafeMutablePointer<ev_idle>
    /// Whether libev is going to register something at its next run.
    private var hasChanges = true
    /// An epoll descriptor with nothing in it, which knows good descriptors from bad ones.
    private let probe: CInt
    private let owner = pthread_self()

    typealias DeinitAction = LibraryTurn<gevent_libev_slot, Notes>

    struct Notes {
        /// Whether a slot that has changed may have been lost in the run.
        var hasLost = false
        /// Whether the waker or the timer is not watched.
        var hasLostOwn = true
        /// What failed in the run.
        var failure = gevent_libev_failure()
        /// For the one callback that has to act at once. The loop outlives its watchers.
        var loop: Unmanaged<LibevLoop>?
    }

    // MARK: Making

    /// A loop of its own that belongs to the calling thread.
    ///
    /// - Parameter backends: the ways to ask the kernel, in order; the first one that works is used. If empty, the
    ///   variable `LIBEV_FLAGS` has the say, and without it libev, which takes epoll.
    /// - Throws: ``/GeventLoop/LoopError`` with code `unsupported` if none of them works, or if `LIBEV_FLAGS` is set to
    ///   what libev would not understand or to io_uring; `outOfResources` if there are no descriptors left.
    public convenience init(backends: [Backend] = []) throws(LoopError) {
        let loop = backends.isEmpty ? try Self.makeDefault() : try Self.make(backends)
        Self.noteFailures
        try self.init(loop, isAdopted: false)
    }

    /// A loop on one that exists, which must belong to the calling thread and not be running.
    ///
    /// The hub runs it from now on; what lives on it already goes on living. It is neither destroyed nor otherwise
    /// changed, and has to outlive this object. ``close()`` takes our watchers off it; call it in any case.
    ///
    /// - Parameter loop: a `struct ev_loop *`.
    /// - Throws: ``/GeventLoop/LoopError`` with code `outOfResources` if there are no descriptors left, and with
    ///   `unsupported` for a loop on io_uring.
    public convenience init(adopting loop: OpaquePointer) throws(LoopError) {
        if Self.usesRing(loop) { throw Backend.refusedRing("adopt a loop") }
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
        namesDescriptorsAnew = Self.backend(of: loop) != .epoll
        looksAtNumbers = Self.backend(of: loop) == .select
        turn = .allocate(capacity: 1)
        turn.initialize(to: DeinitAction(waker: eventWaker, notes: Notes()))
        wakeSlot = Self.makeSlot(onWake, turn)
        timerSlot = Self.makeSlot(onDeadline, turn)
        forkWatcher = .allocate(capacity: 1)
        forkWatcher.initialize(to: ev_fork())
        idleWatcher = .allocate(capacity: 1)
        idleWatcher.initialize(to: ev_idle())
        gevent_libev_idle_init(idleWatcher, onIdle, nil)
        turn.pointee.notes.loop = .passUnretained(self)
        gevent_libev_fork_init(forkWatcher, onRearming, turn)
        ev_fork_start(loop, forkWatcher)
        do throws(LoopError) {
            try watchOwnDescriptors()
        } catch {
            tearDown()
            throw error
        }
    }

    private static let noteFailures: Void = gevent_libev_note_failures()

    /// Watches the waker and the timer, unless they are watched. They also keep libev from returning at once for want
    /// of anything to wait for.
    private func watchOwnDescriptors() throws(LoopError) {
        try watchOwn(wakeSlot, eventWaker.fileDescriptor)
        try watchOwn(timerSlot, timer.fileDescriptor)
        turn.pointee.notes.hasLostOwn = false
    }

    private func watchOwn(_ slot: UnsafeMutablePointer<gevent_libev_slot>, _ fileDescriptor: CInt) throws(LoopError) {
        if gevent_libev_is_started(&slot.pointee.watcher) { return }
        let error = gevent_libev_try(probe, fileDescriptor)
        if error != 0 { throw LoopError(errno: error, operation: "epoll_ctl", fileDescriptor: fileDescriptor) }
        start(slot, fileDescriptor, .read)
    }

    private static func make(_ backends: [Backend]) throws(LoopError) -> OpaquePointer {
        for backend in backends {
            // Without EVFLAG_NOENV the environment would win over the code.
            if let loop = ev_loop_new(backend.flag | CUnsignedInt(EVFLAG_NOENV)) { return loop }
        }
        throw LoopError(
            .unsupported, operation: "ev_loop_new",
            message: "this system cannot run libev on \(Backend.names(backends)); "
                + "this build of libev has \(Backend.names(Backend.supported))")
    }

    private static func makeDefault() throws(LoopError) -> OpaquePointer {
        // libev's own variable, and not one of our settings; libev is the one who acts on it.
        guard let flags = gevent_libev_flags().map({ String(cString: $0) }) else {
            if let loop = ev_loop_new(0) { return loop }
            throw LoopError(.unsupported, operation: "ev_loop_new", message: "no backend of libev works on this system")
        }
        // libev would take any text for a number, and what is none for 0: its own choice.
        if CUnsignedInt(flags) != nil, let loop = ev_loop_new(0) {
            if !usesRing(loop) { return loop }
            ev_loop_destroy(loop)
            throw Backend.refusedRing("LIBEV_FLAGS=\"\(flags)\"")
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

    /// A nanosecond: a timerfd keeps the deadlines, as libev itself waits in whole milliseconds.
    public var timerResolution: Duration {
        assertUsable()
        return .nanoseconds(1)
    }

    public var waker: any LoopWaker { eventWaker }

    /// libev's version, the backend it runs on, and whether the loop was adopted.
    public var features: [String: String] {
        [
            "libev": "\(ev_version_major()).\(ev_version_minor())",
            "backend": backend?.rawValue ?? "unknown to this program",
            "adopted": isAdopted ? "yes" : "no",
        ]
    }

    /// What libev asks the kernel by; nil once closed, or if it is none of ours.
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
        // Harmless if it is stopped, and never a system call: libev tells the kernel about changes at the next run.
        if let known { ev_io_stop(loop, &known.pointee.watcher) }
        if interest.isEmpty { return }
        // libev finds out about bad descriptors at the next run, when nobody is left to tell; for -1 it aborts at once,
        // and for a regular file it pretends that it is always ready.
        let hasFailed = known?.pointee.has_failed ?? false
        let error = hasFailed ? gevent_libev_try(probe, fileDescriptor) : gevent_libev_check(probe, fileDescriptor)
        if error != 0 { throw LoopError(errno: error, operation: "epoll_ctl", fileDescriptor: fileDescriptor) }
        let slot = known ?? makeSlot(for: fileDescriptor)
        slot.pointee.generation = generation
        slot.pointee.is_lost = false
        start(slot, fileDescriptor, interest)
        turn.pointee.remember(slot)
    }

    /// Stops what libev would abort over among what has changed, and reports what it could not register.
    private func confirmChanges(into events: inout ReadyEvents) {
        while let slot = turn.pointee.takeChanged() {
            if slot.pointee.is_lost {
                slot.pointee.is_lost = false
                events.append(
                    ReadyEvent(
                        fileDescriptor: slot.pointee.watcher.fd, generation: slot.pointee.generation, readiness: []))
            } else {
                confirm(slot)
            }
        }
    }

    /// The same among everything.
    private func confirmAll() {
        for slot in slots.all { confirm(slot) }
    }

    /// libev is about to register everything anew, in a run that may be about to wait.
    fileprivate func prepareToRearm() {
        confirmAll()
        ev_idle_start(loop, idleWatcher)
    }

    private func confirm(_ slot: UnsafeMutablePointer<gevent_libev_slot>) {
        if !gevent_libev_is_started(&slot.pointee.watcher) { return }
        let error = gevent_check_pollable(probe, slot.pointee.watcher.fd)
        // Closed behind our back: the kernel has forgotten it, and so do we.
        if error == EBADF || error == EPERM { ev_io_stop(loop, &slot.pointee.watcher) }
    }

    private func makeSlot(for fileDescriptor: CInt) -> UnsafeMutablePointer<gevent_libev_slot> {
        let slot = Self.makeSlot(onReady, turn)
        slots.insert(slot, for: fileDescriptor)
        return slot
    }

    private static func makeSlot(
        _ callback: gevent_libev_callback, _ turn: UnsafeMutablePointer<DeinitAction>
    ) -> UnsafeMutablePointer<gevent_libev_slot> {
        let slot = UnsafeMutablePointer<gevent_libev_slot>.allocate(capacity: 1)
        slot.initialize(to: gevent_libev_slot())
        gevent_libev_init(&slot.pointee.watcher, callback, turn)
        return slot
    }

    private func start(_ slot: UnsafeMutablePointer<gevent_libev_slot>, _ fileDescriptor: CInt, _ interest: Readiness) {
        var events: CInt = 0
        if interest.contains(.read) { events |= Bits.read }
        if interest.contains(.write) { events |= Bits.write }
        gevent_libev_set(&slot.pointee.watcher, fileDescriptor, events)
        ev_io_start(loop, &slot.pointee.watcher)
        hasChanges = true
    }

    // MARK: Polling

    public func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        assertUsable()
        guard let loop else { throw LoopError(.closed, operation: "poll") }
        let before = events.count
        confirmChanges(into: &events)
        if turn.pointee.notes.hasLostOwn { try watchOwnDescriptors() }
        if namesDescriptorsAnew { confirmAll() }
        var mayBlock = events.count == before && turn.pointee.mayBlock(until: deadline)
        if mayBlock && hasChanges {
            let hasExpired = try run(loop, CInt(EVRUN_NOWAIT), into: &events)
            if hasExpired || events.count > before { return }
            mayBlock = turn.pointee.mayBlock(until: deadline)
        }
        if mayBlock { try timer.arm(until: deadline) }
        try run(loop, mayBlock ? CInt(EVRUN_ONCE) : CInt(EVRUN_NOWAIT), into: &events)
    }

    /// One run of libev's. Returns whether it was ended by a wake or by the deadline.
    @discardableResult
    private func run(_ loop: OpaquePointer, _ flags: CInt, into events: inout ReadyEvents) throws(LoopError) -> Bool {
        let before = events.count
        hasChanges = false
        let ended = DeinitAction.run(turn, into: &events) { gevent_libev_run(loop, flags, &turn.pointee.notes.failure) }
        if ended.isExpired { timer.expire() }
        if isReversed(events, from: before) { events.reverse(from: before) }
        if turn.pointee.notes.hasLost {
            turn.pointee.notes.hasLost = false
            confirmChanges(into: &events)
        }
        if turn.pointee.notes.failure.count != 0 { try throwFailure() }
        return ended.isWoken || ended.isExpired
    }

    /// Whether libev has called back in the reverse of the kernel's order.
    ///
    /// It calls back the last first. With `select`, which knows only numbers, some builds also look at those from the
    /// highest down.
    private func isReversed(_ events: borrowing ReadyEvents, from start: Int) -> Bool {
        if events.count - start < 2 { return false }
        return !looksAtNumbers || events[start].fileDescriptor > events[events.count - 1].fileDescriptor
    }

    private func throwFailure() throws(LoopError) {
        let failure = turn.pointee.notes.failure
        turn.pointee.notes.failure = gevent_libev_failure()
        let operation = String(cString: failure.message).split(separator: " ").last.map(String.init) ?? "ev_run"
        // What makes kernel objects has been retried, with success.
        if operation.contains("create") || operation.contains("setup") { return }
        throw LoopError(errno: failure.code, operation: operation)
    }

    // MARK: Forking and closing

    public func recoverAfterFork() throws(LoopError) {
        assertUsable()
        guard let loop else { throw LoopError(.closed, operation: "recoverAfterFork") }
        try checkEpollIsAvailable()
        // Marks only. The next run replaces libev's kernel objects, before it tells the kernel about any change.
        ev_loop_fork(loop)
        for slot in slots.all { ev_io_stop(loop, &slot.pointee.watcher) }
        try eventWaker.replaceAfterFork()
        try timer.replaceAfterFork()
        // The probe may be shared: what is put into it is taken out at once.
        hasChanges = true
    }

    public func close() {
        assert(pthread_equal(owner, pthread_self()) != 0, "LibevLoop.close() was called on another thread")
        if loop != nil { tearDown() }
    }

    deinit {
        if loop != nil {
            // A private loop: the last reference may be dropped on any thread, and nobody else can be using it.
            precondition(!isAdopted, "a LibevLoop on an adopted loop must be closed before it goes")
            tearDown()
        }
        _ = Glibc.close(probe)
        turn.deallocate()
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

// Confined to the thread that made it; its waker is what may leave.
@available(*, unavailable)
extension LibevLoop: Sendable {}

// Each name with its module, since from the nested manifest the protocol is another package's.
@_spi(GeventInternals) extension CGeventLibev.gevent_libev_slot: GeventLoop.LibrarySlot {}

private enum Bits {
    static let read = CInt(EV_READ)
    static let write = CInt(EV_WRITE)
    static let error = CInt(truncatingIfNeeded: EV_ERROR)
}

// MARK: Callbacks. They append or take a note, and return.

private func turn(of watcher: UnsafeMutablePointer<ev_io>) -> UnsafeMutablePointer<LibevLoop.DeinitAction> {
    watcher.pointee.data.assumingMemoryBound(to: LibevLoop.DeinitAction.self)
}

private func onReady(_: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_io>?, _ events: CInt) {
    guard let watcher else { return }
    let turn = turn(of: watcher)
    let slot = UnsafeMutableRawPointer(watcher).assumingMemoryBound(to: gevent_libev_slot.self)
    if events & Bits.error != 0 {
        // libev has stopped the watcher, as the kernel would not take the descriptor.
        slot.pointee.has_failed = true
        slot.pointee.is_lost = true
        turn.pointee.remember(slot)
        turn.pointee.notes.hasLost = true
        return
    }
    guard let batch = turn.pointee.events else { return }
    slot.pointee.has_failed = false
    var readiness: Readiness = []
    if events & Bits.read != 0 { readiness.insert(.read) }
    if events & Bits.write != 0 { readiness.insert(.write) }
    batch.pointee.append(
        ReadyEvent(
            fileDescriptor: watcher.pointee.fd, generation: slot.pointee.generation, readiness: readiness))
}

/// Not only after a fork: libev is about to register everything anew, for whatever reason.
private func onRearming(_: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_fork>?, _: CInt) {
    guard let turn = watcher?.pointee.data.assumingMemoryBound(to: LibevLoop.DeinitAction.self) else { return }
    turn.pointee.notes.loop?._withUnsafeGuaranteedRef { $0.prepareToRearm() }
}

private func onIdle(_ loop: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_idle>?, _: CInt) {
    ev_idle_stop(loop, watcher)
}

// The two below also come with an error, when libev has stopped them. The next poll starts them again, or throws.

private func onWake(_: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_io>?, _ events: CInt) {
    guard let watcher else { return }
    let turn = turn(of: watcher)
    if events & Bits.error != 0 { turn.pointee.notes.hasLostOwn = true }
    turn.pointee.wake()
}

private func onDeadline(_: OpaquePointer?, _ watcher: UnsafeMutablePointer<ev_io>?, _ events: CInt) {
    guard let watcher else { return }
    let turn = turn(of: watcher)
    if events & Bits.error != 0 { turn.pointee.notes.hasLostOwn = true }
    turn.pointee.isExpired = true
}
