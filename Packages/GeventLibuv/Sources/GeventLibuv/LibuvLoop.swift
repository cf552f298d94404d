internal import CGeventLibuv
internal import CGeventSystem
public import CLibuv
@_spi(GeventInternals) public import GeventLoop
internal import Glibc

/// A loop on libuv: one of its own, or one that a C library brought along.
///
/// ```swift
/// let hub = try Hub.start(on: LibuvLoop(adopting: uv_default_loop()))
/// ```
///
/// Each descriptor has one `uv_poll_t`. Whatever else lives on an adopted loop (timers, signals, a C library's own
/// connections) is served while the hub polls: each poll is one complete `uv_run`.
///
/// ## How libuv is kept from aborting
/// `uv_poll_start` only takes a note. libuv registers with the kernel at its next run, and if the kernel refuses then,
/// because the descriptor was closed meanwhile or memory has run out, it aborts the process. So this loop registers
/// first, by the same system call on the same epoll descriptor: that is where errors come from, and libuv finds the
/// descriptor there already, which it takes in its stride. What changed since the last poll is confirmed once more
/// right before libuv runs. It costs three system calls for each change of interest; the hub makes one per connection.
///
/// Two failures remain that libuv answers by `abort`, inside itself and with no way to be asked: an error of
/// `epoll_wait` other than `EINTR`, and an `epoll_ctl` that fails although the same call has just worked. Linux gives
/// neither for want of memory or watches: it takes a closed or foreign epoll descriptor. The epoll loop, and libev on
/// a loop of its own, throw a `LoopError` in their place.
public final class LibuvLoop: Loop {
    /// "libuv".
    public static var backendName: String { "libuv" }

    /// The C loop; nil once closed.
    private var loop: UnsafeMutablePointer<uv_loop_t>?
    private let isAdopted: Bool
    /// A slot stays with its number, so that there is no waiting for `uv_close`, which takes effect a run later.
    private var slots = LibrarySlots<gevent_libuv_slot>()
    private let eventWaker: EventWaker
    private var timer: DeadlineTimer
    private let turn: UnsafeMutablePointer<DeinitAction>
    /// Whether libuv has descriptors of its own to register that the kernel has not been asked for.
    private var hasUnregistered = true
    /// Why the loop cannot be used any more: libuv could not get a new epoll descriptor, and would abort without one.
    private var failure: LoopError?
    /// Whether the latest run brought so many events that libuv asked the kernel several times.
    private var isCrowded = false
    /// So many events have libuv ask the kernel again.
    private static let manyEvents = 1024
    /// How many events are taken at a time without libuv. What the kernel has just looked at is in the cache when the
    /// greenlets that wait for it run, if they are no more.
    private static let portion = 128
    private let owner = pthread_self()
    private var process = getpid()

    typealias DeinitAction = LibraryTurn<gevent_libuv_slot, Notes>

    struct Notes {
        /// Counts the polls.
        var number: UInt64 = 0
        /// The kernel watches a file under a number that cannot take it out any more; see ``LibuvLoop/rebuild()``.
        var hasOrphans = false
    }

    // MARK: Making

    /// A loop of its own that belongs to the calling thread.
    ///
    /// - Throws: ``/GeventLoop/LoopError`` with code `outOfResources` if there are no descriptors or memory left, or
    ///   another one if the system refuses what libuv needs.
    public convenience init() throws(LoopError) {
        let loop = UnsafeMutablePointer<uv_loop_t>.allocate(capacity: 1)
        let result = uv_loop_init(loop)
        if result < 0 {
            loop.deallocate()
            throw LoopError(errno: -result, operation: "uv_loop_init")
        }
        try self.init(loop, isAdopted: false)
    }

    /// A loop on one that exists, which must belong to the calling thread and not be running.
    ///
    /// The hub runs it from now on; what lives on it already goes on living. It is neither closed nor otherwise
    /// changed, and has to outlive this object. ``close()`` takes our handles off it; call it in any case. Like every
    /// handle of libuv's they need one more run for that, so run the loop once more before `uv_loop_close`.
    ///
    /// libuv allows one poll handle per descriptor: what others watch on this loop, the hub cannot.
    ///
    /// - Throws: ``/GeventLoop/LoopError`` with code `outOfResources` if there are no descriptors left.
    public convenience init(adopting loop: UnsafeMutablePointer<uv_loop_t>) throws(LoopError) {
        try self.init(loop, isAdopted: true)
    }

    private init(_ loop: UnsafeMutablePointer<uv_loop_t>, isAdopted: Bool) throws(LoopError) {
        do throws(LoopError) {
            eventWaker = try EventWaker()
            timer = try DeadlineTimer()
        } catch {
            if !isAdopted && uv_loop_close(loop) == 0 { loop.deallocate() }
            throw error
        }
        turn = .allocate(capacity: 1)
        turn.initialize(to: DeinitAction(waker: eventWaker, notes: Notes()))
        self.loop = loop
        self.isAdopted = isAdopted
        do throws(LoopError) {
            try watchOwnDescriptors()
            try registerAll()
        } catch {
            tearDown()
            throw error
        }
    }

    /// Watches the waker and the timer, unless they are watched. They also keep libuv from returning at once for want
    /// of anything to wait for.
    private func watchOwnDescriptors() throws(LoopError) {
        if !isWatched(eventWaker.fileDescriptor) { try watch(eventWaker.fileDescriptor, .read, generation: 0) }
        if !isWatched(timer.fileDescriptor) { try watch(timer.fileDescriptor, .read, generation: 0) }
    }

    private func isWatched(_ fileDescriptor: CInt) -> Bool {
        slots[fileDescriptor].map { $0.pointee.interest != 0 } ?? false
    }

    /// Registers what libuv keeps for itself, which it would abort over at its next run.
    private func registerAll() throws(LoopError) {
        let error = gevent_libuv_add_all(loop)
        if error != 0 { throw LoopError(errno: error, operation: "epoll_ctl") }
        hasUnregistered = false
    }

    private static func error(_ code: CInt, _ fileDescriptor: CInt) -> LoopError {
        if code == EEXIST {
            return LoopError(
                .system, errno: code, operation: "uv_poll_start", fileDescriptor: fileDescriptor,
                message: "another handle on the adopted loop watches it already, and libuv allows one")
        }
        return LoopError(errno: code, operation: "uv_poll_start", fileDescriptor: fileDescriptor)
    }

    // MARK: Facts

    public var now: LoopInstant {
        assertUsable()
        return LoopInstant(nanoseconds: gevent_monotonic_time())
    }

    /// A nanosecond: a timerfd keeps the deadlines, as libuv itself waits in whole milliseconds.
    public var timerResolution: Duration {
        assertUsable()
        return .nanoseconds(1)
    }

    public var waker: any LoopWaker { eventWaker }

    /// libuv's version, and whether the loop was adopted.
    public var features: [String: String] {
        ["libuv": String(cString: uv_version_string()), "adopted": isAdopted ? "yes" : "no"]
    }

    // MARK: Interest

    public func setInterest(
        _ interest: Readiness, for fileDescriptor: CInt, generation: UInt32
    ) throws(LoopError) {
        let loop = try usableLoop("setInterest", fileDescriptor)
        if let known = slots[fileDescriptor], known.pointee.interest != 0 {
            known.pointee.interest = 0
            // libuv does this too, but does not say whether it worked.
            if gevent_libuv_remove(loop, fileDescriptor) != 0 {
                if interest.isEmpty { turn.pointee.notes.hasOrphans = true } else { known.pointee.is_doubtful = true }
            }
            uv_poll_stop(&known.pointee.handle)
        }
        if !interest.isEmpty { try watch(fileDescriptor, interest, generation: generation) }
    }

    private func watch(
        _ fileDescriptor: CInt, _ interest: Readiness, generation: UInt32
    ) throws(LoopError) {
        let slot = try slot(for: fileDescriptor)
        slot.pointee.interest = interest.rawValue
        slot.pointee.generation = generation
        let error = register(slot)
        if error != 0 { throw Self.error(error, fileDescriptor) }
        turn.pointee.remember(slot)
    }

    private func slot(
        for fileDescriptor: CInt
    ) throws(LoopError) -> UnsafeMutablePointer<gevent_libuv_slot> {
        if let known = slots[fileDescriptor] { return known }
        let slot = UnsafeMutablePointer<gevent_libuv_slot>.allocate(capacity: 1)
        slot.initialize(to: gevent_libuv_slot())
        let result = gevent_libuv_init(loop, &slot.pointee.handle, fileDescriptor)
        if result < 0 {
            // libuv has not kept its address.
            slot.deallocate()
            throw Self.error(-result, fileDescriptor)
        }
        slot.pointee.handle.data = UnsafeMutableRawPointer(turn)
        slot.pointee.fd = fileDescriptor
        slots.insert(slot, for: fileDescriptor)
        return slot
    }

    /// Hands a slot with interest to libuv and to the kernel; returns 0, or an error number and leaves it without.
    private func register(_ slot: UnsafeMutablePointer<gevent_libuv_slot>) -> CInt {
        var events: CInt = 0
        if slot.pointee.interest & Readiness.read.rawValue != 0 { events |= CInt(UV_READABLE.rawValue) }
        if slot.pointee.interest & Readiness.write.rawValue != 0 { events |= CInt(UV_WRITABLE.rawValue) }
        let callback: uv_poll_cb =
            switch slot.pointee.fd {
            case eventWaker.fileDescriptor: onWake
            case timer.fileDescriptor: onDeadline
            default: onReady
            }
        let result = uv_poll_start(&slot.pointee.handle, events, callback)
        var error = result < 0 ? -result : gevent_libuv_add(loop, slot.pointee.fd, slot.pointee.interest)
        if error == 0 && slot.pointee.has_failed {
            // Otherwise it would be lost in the next poll again, and so in each.
            error = gevent_libuv_confirm(loop, slot.pointee.fd, slot.pointee.interest)
        }
        if error != 0 { abandon(slot) }
        return error
    }

    private func abandon(_ slot: UnsafeMutablePointer<gevent_libuv_slot>) {
        slot.pointee.interest = 0
        // Takes it off the list of what libuv is going to register.
        uv_poll_stop(&slot.pointee.handle)
    }

    // MARK: Polling

    public func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        let loop = try usableLoop("poll")
        let before = events.count
        confirmChanges(loop, into: &events)
        if turn.pointee.notes.hasOrphans { try rebuild(into: &events) }
        try watchOwnDescriptors()
        if hasUnregistered { try registerAll() }
        if isCrowded && takeFromCrowd(loop, into: &events) { return }
        defer { isCrowded = !isAdopted && events.count - before >= Self.manyEvents }
        let mayBlock = events.count == before && turn.pointee.mayBlock(until: deadline)
        if mayBlock { try timer.arm(until: deadline) }
        turn.pointee.notes.number &+= 1
        let ended = DeinitAction.run(turn, into: &events) { _ = uv_run(loop, mayBlock ? UV_RUN_ONCE : UV_RUN_NOWAIT) }
        if ended.isExpired { timer.expire() }
    }

    /// Takes some of many events from libuv's epoll descriptor, without libuv. Returns whether there were any; if not,
    /// or if one of them is libuv's own, nothing was taken.
    ///
    /// While the kernel has 1,024 events, libuv asks again, up to 48 times in one run. It expects the callbacks to use
    /// up what is ready; ours only take notes, so it is told the same descriptors several times. With thousands of
    /// connections a run cost as much as a few thousand requests. Nothing else lives on a loop that was not adopted, so
    /// nothing waits for libuv meanwhile.
    private func takeFromCrowd(_ loop: UnsafeMutablePointer<uv_loop_t>, into events: inout ReadyEvents) -> Bool {
        withUnsafeTemporaryAllocation(of: gevent_libuv_event.self, capacity: Self.portion) { found in
            let count = Int(gevent_libuv_take(loop, found.baseAddress, CInt(found.count)))
            isCrowded = count == found.count
            for event in found.prefix(count) {
                guard let slot = slots[event.fd], slot.pointee.interest != 0,
                    !slot.pointee.is_doubtful, event.fd != eventWaker.fileDescriptor, event.fd != timer.fileDescriptor
                else {
                    isCrowded = false
                    return false
                }
            }
            for event in found.prefix(count) {
                guard let slot = slots[event.fd] else { continue }
                events.append(
                    ReadyEvent(
                        fileDescriptor: event.fd, generation: slot.pointee.generation,
                        readiness: Readiness(rawValue: event.readiness)))
            }
            return count > 0
        }
    }

    /// Takes out what libuv would abort over, and starts again what it has stopped.
    private func confirmChanges(_ loop: UnsafeMutablePointer<uv_loop_t>, into events: inout ReadyEvents) {
        while let slot = turn.pointee.takeChanged() {
            if slot.pointee.interest == 0 { continue }
            if uv_is_active(handle(slot)) == 0 {
                // libuv stops a handle whose file has an error, though the error lasts.
                let error = register(slot)
                if error != 0 { lose(slot, error, into: &events) }
            } else {
                let error = gevent_libuv_confirm(loop, slot.pointee.fd, slot.pointee.interest)
                slot.pointee.has_failed = error != 0
                if error != 0 {
                    abandon(slot)
                    lose(slot, error, into: &events)
                }
            }
        }
    }

    /// What becomes of a registration that the kernel does not have, for this reason.
    private func lose(
        _ slot: UnsafeMutablePointer<gevent_libuv_slot>, _ error: CInt, into events: inout ReadyEvents
    ) {
        switch error {
        case EBADF, ENOENT, EPERM:
            // Closed behind our back: the kernel has forgotten it, and so do we.
            turn.pointee.notes.hasOrphans = true
        default:
            if isOwn(slot) { return }
            events.append(
                ReadyEvent(fileDescriptor: slot.pointee.fd, generation: slot.pointee.generation, readiness: []))
        }
    }

    /// Whether it is the waker's or the timer's, about which the core knows nothing.
    private func isOwn(_ slot: UnsafeMutablePointer<gevent_libuv_slot>) -> Bool {
        slot.pointee.fd == eventWaker.fileDescriptor || slot.pointee.fd == timer.fileDescriptor
    }

    /// Moves libuv to a fresh epoll descriptor.
    ///
    /// The kernel watches files, not numbers. A watched number that was closed without being removed, while a duplicate
    /// of it lives on (in a child process, perhaps), stays in the set under a number that can no longer take it out,
    /// and reports for ever. libuv does not pass such events on but polls again at once, inside `uv_run`, with no end.
    ///
    /// An adopted loop stays as it is: other threads may be using its `uv_async_t`s at this moment, and would abort.
    private func rebuild(into events: inout ReadyEvents) throws(LoopError) {
        if isAdopted {
            turn.pointee.notes.hasOrphans = false
            return
        }
        try replaceKernelObjects()
        for slot in slots.all where slot.pointee.interest != 0 {
            slot.pointee.is_doubtful = false
            let error = gevent_libuv_add(loop, slot.pointee.fd, slot.pointee.interest)
            if error == 0 { continue }
            abandon(slot)
            lose(slot, error, into: &events)
        }
        turn.pointee.notes.hasOrphans = false
    }

    /// Gives libuv a fresh epoll descriptor, in which nothing is registered.
    private func replaceKernelObjects() throws(LoopError) {
        try checkEpollIsAvailable()
        hasUnregistered = true
        let result = uv_loop_fork(loop)
        if result == 0 { return }
        let error = LoopError(errno: -result, operation: "uv_loop_fork")
        failure = error
        throw error
    }

    // MARK: Forking and closing

    public func recoverAfterFork() throws(LoopError) {
        _ = try usableLoop("recoverAfterFork")
        // Before anything is stopped, which takes it out of the kernel's set: that is the parent's until now.
        try replaceKernelObjects()
        process = getpid()
        while turn.pointee.takeChanged() != nil {}
        turn.pointee.notes.hasOrphans = false
        for slot in slots.all {
            slot.pointee.is_doubtful = false
            if !isOwn(slot) { abandon(slot) }
        }
        try eventWaker.replaceAfterFork()
        try timer.replaceAfterFork()
        try registerAll()
    }

    public func close() {
        assert(pthread_equal(owner, pthread_self()) != 0, "LibuvLoop.close() was called on another thread")
        if loop != nil { tearDown() }
    }

    deinit {
        if loop != nil {
            // A private loop: the last reference may be dropped on any thread, and nobody else can be using it.
            precondition(!isAdopted, "a LibuvLoop on an adopted loop must be closed before it goes")
            tearDown()
        }
        turn.deallocate()
    }

    private func tearDown() {
        guard let loop else { return }
        self.loop = nil
        // In a child that has not recovered, closing a handle would take it out of the parent's set.
        if failure == nil && process != getpid() {
            let result = uv_loop_fork(loop)
            if result < 0 { failure = LoopError(errno: -result, operation: "uv_loop_fork") }
        }
        // Without an epoll descriptor libuv cannot even close: what it holds is lost.
        if failure != nil { return }
        for slot in slots.all {
            uv_close(handle(slot)) { handle in
                // Not before: libuv had it in its lists until now.
                UnsafeMutableRawPointer(handle)?.assumingMemoryBound(to: gevent_libuv_slot.self).deallocate()
            }
        }
        slots.removeAll()
        if isAdopted { return }
        // Nothing is left on it but the handles that are being closed, so this does not wait.
        uv_run(loop, UV_RUN_DEFAULT)
        let result = uv_loop_close(loop)
        assert(result == 0, "uv_loop_close failed: \(result)")
        if result == 0 { loop.deallocate() }
    }

    private func usableLoop(
        _ operation: String, _ fileDescriptor: CInt? = nil, _ call: StaticString = #function
    ) throws(LoopError) -> UnsafeMutablePointer<uv_loop_t> {
        assertUsable(call)
        if let failure { throw failure }
        guard let loop else { throw LoopError(.closed, operation: operation, fileDescriptor: fileDescriptor) }
        return loop
    }

    private func assertUsable(_ call: StaticString = #function) {
        assert(pthread_equal(owner, pthread_self()) != 0, "LibuvLoop.\(call) was called on another thread")
        assert(loop != nil, "LibuvLoop.\(call) was called after close()")
    }
}

// Confined to the thread that made it; its waker is what may leave.
@available(*, unavailable)
extension LibuvLoop: Sendable {}

// Each name with its module, since from the nested manifest the protocol is another package's.
@_spi(GeventInternals) extension CGeventLibuv.gevent_libuv_slot: GeventLoop.LibrarySlot {}

/// A poll handle as any handle, which is what C's inheritance looks like from here.
private func handle(_ slot: UnsafeMutablePointer<gevent_libuv_slot>) -> UnsafeMutablePointer<uv_handle_t> {
    UnsafeMutableRawPointer(slot).assumingMemoryBound(to: uv_handle_t.self)
}

// MARK: Callbacks. They append or take a note, and return.

private func turn(of handle: UnsafeMutablePointer<uv_poll_t>) -> UnsafeMutablePointer<LibuvLoop.DeinitAction> {
    handle.pointee.data.assumingMemoryBound(to: LibuvLoop.DeinitAction.self)
}

private func onReady(_ handle: UnsafeMutablePointer<uv_poll_t>?, _ status: CInt, _ events: CInt) {
    guard let handle else { return }
    let turn = turn(of: handle)
    let slot = UnsafeMutableRawPointer(handle).assumingMemoryBound(to: gevent_libuv_slot.self)
    var readiness: Readiness = []
    if status < 0 {
        // An error on the file: the handle is stopped now, and started again before the next run.
        turn.pointee.remember(slot)
        readiness = [.read, .write]
    } else {
        if events & CInt(UV_READABLE.rawValue) != 0 { readiness.insert(.read) }
        if events & CInt(UV_WRITABLE.rawValue) != 0 { readiness.insert(.write) }
    }
    guard let batch = turn.pointee.events else { return }
    // When more than 1,024 are ready, libuv asks the kernel again within one run, and is told the same again.
    if slot.pointee.reported == turn.pointee.notes.number { return }
    slot.pointee.reported = turn.pointee.notes.number
    if slot.pointee.is_doubtful && !gevent_libuv_is_ready(slot.pointee.fd, slot.pointee.interest) {
        turn.pointee.notes.hasOrphans = true
        return
    }
    batch.pointee.append(
        ReadyEvent(fileDescriptor: slot.pointee.fd, generation: slot.pointee.generation, readiness: readiness))
}

private func onWake(_ handle: UnsafeMutablePointer<uv_poll_t>?, _: CInt, _: CInt) {
    guard let handle else { return }
    let turn = turn(of: handle)
    turn.pointee.wake()
}

private func onDeadline(_ handle: UnsafeMutablePointer<uv_poll_t>?, _: CInt, _: CInt) {
    guard let handle else { return }
    turn(of: handle).pointee.isExpired = true
}
