internal import CGeventSystem
public import CLibuv
@_spi(GeventInternals) public import GeventLoop
internal import Glibc

/// A loop on libuv: either on a private libuv loop, or on an existing one, such as that of a C library.
///
/// ```swift
/// let hub = try Hub.start(on: LibuvLoop(adopting: uv_default_loop()))
/// ```
///
/// Each descriptor has one `uv_poll_t`. Everything else on an adopted loop (timers, signals, a C library's connections)
/// is served while the hub polls: each poll is one complete `uv_run`.
///
/// ## How libuv is kept from aborting
/// `uv_poll_start` only marks a descriptor. libuv registers it with the kernel at its next run, and aborts the process
/// if the kernel rejects it, because the descriptor was closed in between or memory is exhausted. So this loop
/// registers first, by the same system call on the same epoll descriptor. Errors are thrown from there, and libuv
/// accepts that the descriptor is already registered. Changes since the last poll are confirmed once more immediately
/// before libuv runs. This costs three system calls per change of interest; the hub makes one change per connection.
///
/// Two failures remain on which libuv calls `abort` and which cannot be checked in advance: an error of `epoll_wait`
/// other than `EINTR`, and an `epoll_ctl` that fails although the same call has just succeeded. On Linux a lack of
/// memory or watches causes neither; only a closed or foreign epoll descriptor does. The epoll loop, and libev on a
/// private loop, throw a `LoopError` instead.
public final class LibuvLoop: Loop {
    /// "libuv".
    public static var backendName: String { "libuv" }

    /// The C loop; nil once closed.
    private var loop: UnsafeMutablePointer<uv_loop_t>?
    private let isAdopted: Bool
    /// The slots of descriptors. A slot stays with its number, which avoids waiting for `uv_close`, which takes effect
    /// one run later.
    private var slots = LibrarySlots<Slot>()
    private let eventWaker: EventWaker
    private var timer: DeadlineTimer
    private let state: UnsafeMutablePointer<State>
    /// Whether libuv has internal descriptors to register that have not been registered with the kernel yet.
    private var hasUnregistered = true
    /// The error that made the loop unusable: libuv failed to get a new epoll descriptor, and would abort without one.
    private var failure: LoopError?
    /// Whether the latest run had so many events that libuv asked the kernel several times.
    private var hadManyEvents = false
    /// The number of events from which on libuv asks the kernel again within one run.
    private static let manyEvents = 1024
    /// The number of events to get at a time without libuv. It is small enough that the memory the kernel has just
    /// touched is still in the cache when the waiting greenlets run.
    private static let directBatchSize = 128
    private let owner = pthread_self()
    private var process = getpid()

    typealias State = CallbackState<Slot, Extra>

    /// A poll handle with the data that its callback needs.
    ///
    /// libuv keeps the handle's address until the callback of `uv_close`, and only that callback may free it. The
    /// handle's `data` is the slot.
    struct Slot: LibrarySlot {
        var handle = uv_poll_t()
        let fileDescriptor: CInt
        let state: UnsafeMutablePointer<State>
        var nextChanged: UnsafeMutablePointer<Slot>!
        var isChanged = false
        var generation: UInt32 = 0
        /// The number of the last poll that reported it.
        var reported: UInt64 = 0
        /// Empty while the descriptor is not watched.
        var interest: Readiness = []
        /// Whether the kernel rejected the registration when it was confirmed, until it is confirmed again.
        var hasFailed = false
        /// Whether the number was reused without notice, so the kernel may still watch its former file.
        var isDoubtful = false
    }

    struct Extra {
        /// The number of polls.
        var number: UInt64 = 0
        /// Whether the kernel watches a file under a number that can no longer remove it; see ``LibuvLoop/rebuild()``.
        var hasOrphans = false
    }

    // MARK: Making

    /// Creates a loop on a private libuv loop. It belongs to the calling thread.
    ///
    /// - Throws: ``/GeventLoop/LoopError`` with code `outOfResources` if no descriptors or memory are left, or with
    ///   another code if the system refuses something that libuv needs.
    public convenience init() throws(LoopError) {
        let loop = UnsafeMutablePointer<uv_loop_t>.allocate(capacity: 1)
        let result = uv_loop_init(loop)
        if result < 0 {
            loop.deallocate()
            throw LoopError(errno: -result, operation: "uv_loop_init")
        }
        try self.init(loop, isAdopted: false)
    }

    /// Creates a loop on an existing libuv loop, which must belong to the calling thread and not be running.
    ///
    /// From now on the hub runs the libuv loop, and everything already on it stays active. It is neither closed nor
    /// otherwise changed, and must outlive this object. ``close()`` removes our handles from it; always call it. Like
    /// all libuv handles they need one more run for that, so run the loop once more before `uv_loop_close`.
    ///
    /// libuv allows one poll handle per descriptor, so the hub cannot watch a descriptor that other code watches on
    /// this loop.
    ///
    /// - Throws: ``/GeventLoop/LoopError`` with code `outOfResources` if no descriptors are left.
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
        state = .allocate(capacity: 1)
        state.initialize(to: State(waker: eventWaker, extra: Extra()))
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

    /// Watches the waker and the timer unless they are watched. They also give libuv something to wait for, without
    /// which it would return at once.
    private func watchOwnDescriptors() throws(LoopError) {
        try watchOwn(eventWaker.fileDescriptor)
        try watchOwn(timer.fileDescriptor)
    }

    private func watchOwn(_ fileDescriptor: CInt) throws(LoopError) {
        if let slot = slots[fileDescriptor], !slot.pointee.interest.isEmpty { return }
        let error = watch(fileDescriptor, .read, generation: 0)
        if error != 0 { throw Self.error(error, fileDescriptor) }
    }

    /// Registers libuv's internal descriptors, because a failure at libuv's next run would make it abort.
    private func registerAll() throws(LoopError) {
        guard let loop else { return }
        for number in 0..<loop.pointee.nwatchers {
            // libuv stores the bits of poll(2), which equal those of epoll.
            guard let watcher = loop.pointee.watchers[Int(number)]?.pointee, watcher.pevents != 0, watcher.events == 0
            else { continue }
            let error = control(EPOLL_CTL_ADD, CInt(number), watcher.pevents)
            if error != 0 { throw LoopError(errno: error, operation: "epoll_ctl") }
        }
        hasUnregistered = false
    }

    /// Calls `epoll_ctl` on libuv's epoll descriptor, with the data that libuv would pass. Returns 0, also for a
    /// descriptor that is already registered, or an error number.
    private func control(_ operation: CInt, _ fileDescriptor: CInt, _ events: UInt32) -> CInt {
        let data = UInt64(UInt32(bitPattern: fileDescriptor))
        let error = -gevent_epoll_control(uv_backend_fd(loop), operation, fileDescriptor, events, data)
        return error == EEXIST ? 0 : error
    }

    private func control(_ operation: CInt, _ slot: UnsafeMutablePointer<Slot>) -> CInt {
        control(operation, slot.pointee.fileDescriptor, slot.pointee.interest.events)
    }

    @inline(never)
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

    /// A nanosecond: a timerfd keeps the deadlines, because libuv waits in whole milliseconds.
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
        _ = try usableLoop("setInterest", fileDescriptor)
        if let known = slots[fileDescriptor], !known.pointee.interest.isEmpty {
            known.pointee.interest = []
            // libuv does this too, but does not report whether it succeeded.
            if control(EPOLL_CTL_DEL, fileDescriptor, 0) != 0 {
                if interest.isEmpty { state.pointee.extra.hasOrphans = true } else { known.pointee.isDoubtful = true }
            }
            uv_poll_stop(&known.pointee.handle)
        }
        if interest.isEmpty { return }
        let error = watch(fileDescriptor, interest, generation: generation)
        if error != 0 { throw Self.error(error, fileDescriptor) }
    }

    // These run on the stack of the greenlet that begins to wait. They pass error numbers rather than `LoopError`: its
    // room in each frame would cost many idle connections a second page.

    /// Returns 0 or an error number.
    private func watch(_ fileDescriptor: CInt, _ interest: Readiness, generation: UInt32) -> CInt {
        var error: CInt = 0
        guard let slot = slots[fileDescriptor] ?? makeSlot(for: fileDescriptor, &error) else { return error }
        slot.pointee.interest = interest
        slot.pointee.generation = generation
        error = register(slot)
        if error == 0 { state.pointee.markChanged(slot) }
        return error
    }

    /// Returns nil and sets `error` if libuv refuses the descriptor.
    @inline(never)
    private func makeSlot(for fileDescriptor: CInt, _ error: inout CInt) -> UnsafeMutablePointer<Slot>? {
        let flags = fcntl(fileDescriptor, F_GETFL)
        if flags < 0 {
            error = errno
            return nil
        }
        let slot = UnsafeMutablePointer<Slot>.allocate(capacity: 1)
        slot.initialize(to: Slot(fileDescriptor: fileDescriptor, state: state))
        let result = uv_poll_init(loop, &slot.pointee.handle, fileDescriptor)
        // libuv permanently makes the open file non-blocking, also for every process that shares it: standard input is
        // shared with the shell that continues after this process.
        if flags & O_NONBLOCK == 0 { _ = fcntl(fileDescriptor, F_SETFL, flags) }
        if result < 0 {
            // libuv has not kept its address.
            slot.deallocate()
            error = -result
            return nil
        }
        slot.pointee.handle.data = UnsafeMutableRawPointer(slot)
        slots.insert(slot, for: fileDescriptor)
        return slot
    }

    /// Registers a slot with interest, with libuv and with the kernel. Returns 0, or an error number after it cleared
    /// the interest.
    private func register(_ slot: UnsafeMutablePointer<Slot>) -> CInt {
        let callback: uv_poll_cb =
            switch slot.pointee.fileDescriptor {
            case eventWaker.fileDescriptor: onWake
            case timer.fileDescriptor: onDeadline
            default: onReady
            }
        // UV_READABLE and UV_WRITABLE are the bits of `Readiness`.
        let result = uv_poll_start(&slot.pointee.handle, CInt(slot.pointee.interest.rawValue), callback)
        var error = result < 0 ? -result : control(EPOLL_CTL_ADD, slot)
        if error == 0 && slot.pointee.hasFailed {
            // Without this check it would be lost again in every poll.
            error = control(EPOLL_CTL_MOD, slot)
        }
        if error != 0 { clearInterest(slot) }
        return error
    }

    private func clearInterest(_ slot: UnsafeMutablePointer<Slot>) {
        slot.pointee.interest = []
        // Removes it from the list of handles that libuv will register.
        uv_poll_stop(&slot.pointee.handle)
    }

    // MARK: Polling

    public func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        let loop = try usableLoop("poll")
        let before = events.count
        confirmChanges(into: &events)
        if state.pointee.extra.hasOrphans { try rebuild(into: &events) }
        try watchOwnDescriptors()
        if hasUnregistered { try registerAll() }
        if hadManyEvents && takeEventsDirectly(loop, into: &events) { return }
        defer { hadManyEvents = !isAdopted && events.count - before >= Self.manyEvents }
        let mayBlock = events.count == before && state.pointee.mayBlock(until: deadline)
        if mayBlock { try timer.arm(until: deadline) }
        state.pointee.extra.number &+= 1
        let ended = State.run(state, into: &events) { _ = uv_run(loop, mayBlock ? UV_RUN_ONCE : UV_RUN_NOWAIT) }
        if ended.isExpired { timer.expire() }
    }

    /// Gets some of many events from libuv's epoll descriptor, without libuv. Returns whether it appended any. It
    /// appends none if one of them belongs to libuv itself.
    ///
    /// While the kernel has 1,024 events, libuv asks again, up to 48 times in one run. It expects the callbacks to
    /// consume the readiness. Ours only record it, so libuv receives the same descriptors several times. With thousands
    /// of connections, a run would cost as much as a few thousand requests. A private loop has nothing else on it, so
    /// nothing waits for libuv meanwhile.
    private func takeEventsDirectly(_ loop: UnsafeMutablePointer<uv_loop_t>, into events: inout ReadyEvents) -> Bool {
        withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: Self.directBatchSize) { buffer in
            // A temporary allocation of non-zero capacity always has a base address.
            guard let found = buffer.baseAddress else { return false }
            let count = Int(gevent_epoll_wait_nanoseconds(uv_backend_fd(loop), found, CInt(buffer.count), 0))
            hadManyEvents = false
            // The kernel refused, or found none.
            if count <= 0 { return false }
            for index in 0..<count {
                guard let slot = slots[CInt(truncatingIfNeeded: gevent_epoll_data(found + index))],
                    !slot.pointee.interest.isEmpty, !slot.pointee.isDoubtful, !isOwn(slot)
                else { return false }
            }
            for index in 0..<count {
                guard let slot = slots[CInt(truncatingIfNeeded: gevent_epoll_data(found + index))] else { continue }
                events.append(slot.pointee.event(Readiness(events: gevent_epoll_events(found + index))))
            }
            hadManyEvents = count == buffer.count
            return true
        }
    }

    /// Removes changed handles that would make libuv abort, and restarts handles that libuv has stopped.
    private func confirmChanges(into events: inout ReadyEvents) {
        while let slot = state.pointee.popChanged() {
            if slot.pointee.interest.isEmpty { continue }
            if uv_is_active(base(&slot.pointee.handle)) == 0 {
                // libuv stops a handle whose file has an error, although the error persists.
                let error = register(slot)
                if error != 0 { handleRejection(slot, error, into: &events) }
            } else {
                let error = control(EPOLL_CTL_MOD, slot)
                slot.pointee.hasFailed = error != 0
                if error != 0 {
                    clearInterest(slot)
                    handleRejection(slot, error, into: &events)
                }
            }
        }
    }

    /// Handles a registration that the kernel rejected with this error.
    private func handleRejection(
        _ slot: UnsafeMutablePointer<Slot>, _ error: CInt, into events: inout ReadyEvents
    ) {
        switch error {
        case EBADF, ENOENT, EPERM:
            // The descriptor was closed without notice: the kernel has dropped it, and so does the loop.
            state.pointee.extra.hasOrphans = true
        default:
            if !isOwn(slot) { events.append(slot.pointee.event([])) }
        }
    }

    /// Returns whether the slot is the waker's or the timer's, which the core does not know.
    private func isOwn(_ slot: UnsafeMutablePointer<Slot>) -> Bool {
        slot.pointee.fileDescriptor == eventWaker.fileDescriptor || slot.pointee.fileDescriptor == timer.fileDescriptor
    }

    /// Replaces libuv's epoll descriptor by a new one.
    ///
    /// The kernel watches files, not numbers. If a watched number is closed without being removed while a duplicate
    /// exists (for example in a child process), the file stays registered under a number that can no longer remove it,
    /// and is reported for ever. libuv does not pass such events on but polls again immediately, inside `uv_run`, in an
    /// endless loop.
    ///
    /// An adopted loop is not changed: other threads may be using its `uv_async_t`s at this moment, and would abort.
    private func rebuild(into events: inout ReadyEvents) throws(LoopError) {
        if isAdopted {
            state.pointee.extra.hasOrphans = false
            return
        }
        try replaceKernelObjects()
        for slot in slots.all where !slot.pointee.interest.isEmpty {
            slot.pointee.isDoubtful = false
            let error = control(EPOLL_CTL_ADD, slot)
            if error == 0 { continue }
            clearInterest(slot)
            handleRejection(slot, error, into: &events)
        }
        state.pointee.extra.hasOrphans = false
    }

    /// Gives libuv a new epoll descriptor without registrations.
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
        // Before any handle is stopped: stopping removes it from the kernel's set, which until now is the parent's.
        try replaceKernelObjects()
        process = getpid()
        while state.pointee.popChanged() != nil {}
        state.pointee.extra.hasOrphans = false
        for slot in slots.all {
            slot.pointee.isDoubtful = false
            if !isOwn(slot) { clearInterest(slot) }
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
            // For a private loop, any thread may release the last reference, and no other code can be using the loop
            // then.
            precondition(!isAdopted, "a LibuvLoop on an adopted loop must be closed before it is released")
            tearDown()
        }
        state.deallocate()
    }

    private func tearDown() {
        guard let loop else { return }
        self.loop = nil
        // In a child that has not recovered, closing a handle would remove it from the parent's set.
        if failure == nil && process != getpid() {
            let result = uv_loop_fork(loop)
            if result < 0 { failure = LoopError(errno: -result, operation: "uv_loop_fork") }
        }
        // Without an epoll descriptor libuv cannot even close, so its memory is leaked.
        if failure != nil { return }
        for slot in slots.all {
            uv_close(base(&slot.pointee.handle)) { handle in
                // Not earlier, because libuv had it in its lists until now.
                handle?.pointee.data.deallocate()
            }
        }
        slots.removeAll()
        if isAdopted { return }
        // Only handles that are being closed remain on it, so this does not wait.
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

// Confined to the thread that created it; only its waker may leave that thread.
@available(*, unavailable)
extension LibuvLoop: Sendable {}

/// Casts a poll handle to its base type, as libuv's C inheritance requires.
private func base(_ handle: UnsafeMutablePointer<uv_poll_t>) -> UnsafeMutablePointer<uv_handle_t> {
    UnsafeMutableRawPointer(handle).assumingMemoryBound(to: uv_handle_t.self)
}

extension LibuvLoop.Slot {
    fileprivate func event(_ readiness: Readiness) -> ReadyEvent {
        ReadyEvent(fileDescriptor: fileDescriptor, generation: generation, readiness: readiness)
    }

    /// Returns whether poll(2) reports the file as ready for any part of the interest.
    fileprivate var isReady: Bool {
        var request = pollfd(fd: fileDescriptor, events: Int16(interest.events), revents: 0)
        return poll(&request, 1, 0) > 0
    }
}

extension Readiness {
    /// The set as bits of epoll, which equal those of poll(2).
    fileprivate var events: UInt32 {
        (contains(.read) ? EPOLLIN.rawValue : 0) | (contains(.write) ? EPOLLOUT.rawValue : 0)
    }

    fileprivate init(events: UInt32) {
        let failed = EPOLLERR.rawValue | EPOLLHUP.rawValue
        self = []
        if events & (EPOLLIN.rawValue | failed) != 0 { insert(.read) }
        if events & (EPOLLOUT.rawValue | failed) != 0 { insert(.write) }
    }
}

// MARK: Callbacks. Each appends an event or sets a flag, and returns.

private func slot(of handle: UnsafeMutablePointer<uv_poll_t>) -> UnsafeMutablePointer<LibuvLoop.Slot> {
    handle.pointee.data.assumingMemoryBound(to: LibuvLoop.Slot.self)
}

private func onReady(_ handle: UnsafeMutablePointer<uv_poll_t>?, _ status: CInt, _ events: CInt) {
    guard let handle else { return }
    let slot = slot(of: handle)
    let state = slot.pointee.state
    // If the file has an error, the handle is stopped now, and restarted before the next run.
    if status < 0 { state.pointee.markChanged(slot) }
    // UV_READABLE and UV_WRITABLE are the bits of `Readiness`.
    let readiness = status < 0 ? [.read, .write] : Readiness(rawValue: UInt8(truncatingIfNeeded: events))
    guard let batch = state.pointee.events else { return }
    // If more than 1,024 are ready, libuv asks the kernel again within one run and receives the same events again.
    if slot.pointee.reported == state.pointee.extra.number { return }
    slot.pointee.reported = state.pointee.extra.number
    if slot.pointee.isDoubtful && !slot.pointee.isReady {
        state.pointee.extra.hasOrphans = true
        return
    }
    batch.pointee.append(slot.pointee.event(readiness))
}

private func onWake(_ handle: UnsafeMutablePointer<uv_poll_t>?, _: CInt, _: CInt) {
    guard let handle else { return }
    slot(of: handle).pointee.state.pointee.wake()
}

private func onDeadline(_ handle: UnsafeMutablePointer<uv_poll_t>?, _: CInt, _: CInt) {
    guard let handle else { return }
    slot(of: handle).pointee.state.pointee.isExpired = true
}
