// One iteration of the hub; the same on every loop.

internal import CGevent
internal import CGeventSystem

extension Hub {
    /// The smallest limit on the entries that one step runs. A poll costs as much as a hundred switches, so two
    /// greenlets that yield to each other must not cause one per round. The switch interval limits the delay that this
    /// can cause.
    private static var minStep: Int { 4096 }

    /// The number of free stacks that always keep their memory. Beyond this number and beyond the number of stacks in
    /// use, idle memory is returned to the kernel.
    private static var warmStacks: Int { 1024 }

    /// The number of events that are delivered at a time. Waiters of one batch run before the next batch is delivered,
    /// as far as the bounds of a step allow, while the data that the kernel and the hub have just touched for them is
    /// in the cache. The epoll loop returns no more than this anyway; libev and libuv may return thousands.
    private static var batchSize: Int { 128 }

    /// After a poll with more than one batch, the hub polls again after it has used `pollMultiple` times the processor
    /// time of that poll: at least one switch interval, and at most `maxIntervalsWithoutPoll` of them.
    private static var pollMultiple: Int64 { 20 }
    private static var maxIntervalsWithoutPoll: Int64 { 10 }

    /// Runs on the hub's own stack until the hub is destroyed.
    func run() {
        // The hub may run for the first time because a greenlet has requested a report.
        serveHubCalls()
        while !isDestroyed { iterate() }
    }

    private func iterate() {
        if handle.hasMail {
            runJobs()
            pointer.pointee.now = Hub.time(pointer).nanoseconds
        }
        fireTimers()
        runReady()
        if isDestroyed { return }
        if !hasWork { runOutOfWork() }
        if isLatestPollLarge {
            if !isPollDue() {
                pointer.pointee.now = Hub.time(pointer).nanoseconds
                return deliverEvents(Hub.batchSize)
            }
            deliverEvents(events.count)
        }
        let before = isLatestPollLarge ? gevent_thread_processor_time() : nil
        poll()
        pointer.pointee.now = Hub.time(pointer).nanoseconds
        isLatestPollLarge = events.count > Hub.batchSize
        if !events.isEmpty {
            waitCutoff = .max
            deliverEvents(Hub.batchSize)
            waitCutoff = beforePoll
        }
        if isLatestPollLarge { setNextPoll(startedAt: before) }
        if gevent_first_idle_waiter(pointer) != nil, events.isEmpty { wakeIdle() }
    }

    // MARK: Posts

    /// Runs the jobs posted so far, for at most the switch interval. The remaining jobs, and jobs that these jobs post,
    /// run in the next iteration.
    private func runJobs() {
        var remaining = handle.counts.waiting
        var pace = mailPace
        pace.begin()
        var now = pointer.pointee.now
        let end = now &+ switchNanoseconds
        while true {
            let count = min(pace.count, remaining)
            handle.runJobs(count)
            remaining -= count
            if remaining == 0 { break }
            let last = now
            now = Hub.time(pointer).nanoseconds
            pace.looked(turns: count, elapsed: now - last, tolerance: switchNanoseconds / 4)
            if now >= end { break }
        }
        pace.end()
        mailPace = pace
    }

    // MARK: Timers

    /// Fires the timers that are due. The greenlets they wake run first, so a long ready queue does not delay timers.
    ///
    /// They must not starve the other greenlets: before timers fire again, the entries that were already ready get as
    /// much time as the woken greenlets took. Timers that become due meanwhile fire afterwards, so deadlines are met in
    /// order.
    func fireTimers() {
        let hasOthers = gevent_ready_count(pointer) > 0
        if hasOthers && (frontBegan != nil || pointer.pointee.now < timersWaitUntil) { return }
        let place = pointer.pointee.ready_tail
        fireDueTimers()
        // Before the first poll nothing is reordered, so what main has queued runs in its order.
        if hasOthers && pointer.pointee.ready_tail != place && pointer.pointee.poll_phase > 0 {
            gevent_ready_move_to_front(pointer, place)
            frontBegan = Hub.time(pointer).nanoseconds
        }
    }

    private func fireDueTimers() {
        while let timer = gevent_fire_timers(pointer, pointer.pointee.now) {
            let record = UnsafeMutableRawPointer(timer).assumingMemoryBound(to: gevent_deferred.self)
            if timer.pointee.kind == UInt8(GEVENT_TIMER_TIMEOUT) {
                Timeout.fire(record, pointer)
            } else if timer.pointee.kind == UInt8(GEVENT_TIMER_CALLBACK) {
                HubTimer.fire(record)
            } else {
                let greenlet = Unmanaged<JoinableGreenlet>.fromOpaque(timer.pointee.payload).takeRetainedValue()
                gevent_node_unlink(&record.pointee.node)
                gevent_record_release(pointer, record)
                greenlet.delayExpired(pointer)
            }
        }
    }

    // MARK: The ready queue

    /// Runs ready entries: as many as were queued, or `minStep` if that is more, but for at most the switch
    /// interval since the hub last read the clock. So greenlets that yield forever starve neither timers nor
    /// descriptors.
    private func runReady() {
        let queued = Int(gevent_ready_count(pointer))
        if queued == 0 {
            frontBegan = nil
            return
        }
        let bound = max(queued, Hub.minStep)
        var granted = 0
        var pace = readyPace
        pace.begin()
        var now = pointer.pointee.now
        let end = now &+ switchNanoseconds
        while granted < bound {
            var count = min(pace.count, bound - granted)
            // The entries in front are run as a separate batch, so that their time can be measured.
            if frontBegan != nil { count = min(count, max(1, Int(gevent_ready_front_count(pointer)))) }
            gevent_ready_grant(pointer, UInt64(count))
            pointer.pointee.handovers_left = UInt32(pace.limit)
            granted += count
            if runChunk() {
                frontBegan = nil
                break
            }
            let last = now
            now = Hub.time(pointer).nanoseconds
            let handovers = pace.limit - Int(pointer.pointee.handovers_left)
            pace.looked(turns: count + handovers, elapsed: now - last, tolerance: switchNanoseconds / 4)
            if let began = frontBegan, gevent_ready_front_count(pointer) == 0 {
                frontBegan = nil
                timersWaitUntil = now &+ (now - began)
            }
            if now >= end { break }
        }
        pace.end()
        readyPace = pace
        pointer.pointee.now = now
        gevent_ready_grant(pointer, 0)
    }

    /// Runs entries until the grant is used up. Returns whether the queue is empty.
    private func runChunk() -> Bool {
        while true {
            let result = gevent_run_ready(pointer)
            if result == GEVENT_RUN_DRAINED { return true }
            if result == GEVENT_RUN_GRANT_USED { return false }
            if result == GEVENT_RUN_HUB_CALL {
                serveHubCalls()
                continue
            }
            let entry = gevent_ready_pop(pointer)
            if result == GEVENT_RUN_CALLBACK {
                Unmanaged<HubCallback>.fromOpaque(entry.pointer).takeRetainedValue().call(on: self)
            } else {
                startFailed(Unmanaged<AnyGreenlet>.fromOpaque(entry.pointer).takeRetainedValue())
            }
        }
    }

    private func startFailed(_ greenlet: AnyGreenlet) {
        guard greenlet.phase == .scheduled else { return }
        let count = gevent_hub_stack_count(pointer)
        // Null if there was no memory for the first stack of its class.
        let stacks = gevent_hub_stacks(pointer, greenlet.stackClass)
        let size = stacks?.pointee.slot_size ?? Int(gevent_stack_class_size(greenlet.stackClass))
        let reason =
            stacks.map { gevent_stacks_are_at_limit($0) } == true
            ? "this kernel guards stacks by mprotect, and \(count) are as many as its map limit (vm.max_map_count) allows"
            : "the system has no memory or address space for another"
        greenlet.endUnstarted(
            HubError(
                .outOfStacks,
                "no stack of \(size >> 10) KiB for a greenlet, with \(count) in use: \(reason)"))
    }

    // MARK: Running out of work

    /// Whether any entry is ready or can become ready.
    private var hasWork: Bool {
        gevent_ready_count(pointer) > 0 || pointer.pointee.timers.referenced_count > 0
            || pointer.pointee.descriptor_waiters > 0 || holdCount > 0 || handle.hasMail
            || gevent_first_idle_waiter(pointer) != nil || !events.isEmpty
    }

    /// Ends main's join of the hub, or delivers `wouldBlockForever` to main. Main is parked, since otherwise the hub
    /// would not run.
    private func runOutOfWork() {
        let main = gevent_hub_main(pointer)!
        if main.pointee.wait_kind == WaitKind.hubJoin.rawValue {
            gevent_wait_end(main, UInt8(GEVENT_WAIT_WOKEN))
        } else {
            mainGreenlet.deliver(HubError(.wouldBlockForever, HubExtensions.deadlockReport(of: self)))
        }
    }

    // MARK: Polling

    private func poll() {
        if pointer.pointee.is_forked {
            do throws(LoopError) {
                try recoverFromFork()
            } catch {
                return pollFailed(error)
            }
        }
        var deadline: LoopInstant?
        if gevent_ready_count(pointer) > 0 || gevent_first_idle_waiter(pointer) != nil {
            deadline = .distantPast
        } else {
            if pointer.pointee.timers.count > 0 {
                deadline = LoopInstant(
                    nanoseconds: gevent_timers_next_together(
                        &pointer.pointee.timers, pointer.pointee.now, timerSlack))
            }
            if trimIdleStacks() { deadline = .distantPast }
            deadline = shedIdleStacks(before: deadline)
        }
        beforePoll = pointer.pointee.now
        let maySleep = deadline != .distantPast
        // Returns false if a job was posted meanwhile; then the poll does not wait.
        if maySleep && !handle.prepareToSleep() { deadline = .distantPast }
        switchWatch?.pollBegins(maySleep: maySleep)
        gevent_hub_poll_begins(pointer)
        do throws(LoopError) {
            try loop.poll(until: deadline, into: &events)
        } catch {
            pollFailed(error)
        }
        gevent_hub_poll_ends(pointer)
        switchWatch?.pollEnded()
        if maySleep { handle.awake() }
    }

    /// Delivers the error to main. A poll fails only if the kernel is out of memory or the loop is broken; main decides
    /// how to proceed, and the hub keeps running.
    private func pollFailed(_ error: LoopError) {
        mainGreenlet.deliver(error)
    }

    /// Returns whether there are more stacks to trim.
    private func trimIdleStacks() -> Bool {
        let most = 1024
        return gevent_hub_trim_stacks(pointer, Hub.warmStacks, most) == most
    }

    /// Returns part of the memory of idle stacks to the kernel. Returns when the hub should run again: `deadline`, or
    /// earlier if there is more to release.
    private func shedIdleStacks(before deadline: LoopInstant?) -> LoopInstant? {
        let now = pointer.pointee.now
        let next = gevent_hub_shed_stacks(pointer, now)
        if next == .max || deadline == .distantPast { return deadline }
        if next <= now { return .distantPast }
        // Releasing memory must not advance virtual time.
        return hasVirtualTime ? deadline : min(deadline ?? .distantFuture, LoopInstant(nanoseconds: next))
    }

    /// Wakes the waiters of the next `count` events, or of all remaining ones if there are fewer.
    ///
    /// An event may be stale when it is delivered. Therefore it does not end a wait that began after the poll; if the
    /// descriptor is still ready, the next poll reports it.
    private func deliverEvents(_ count: Int) {
        let end = min(deliveredCount + count, events.count)
        for index in deliveredCount..<end {
            descriptors.distribute(events[index], waitCutoff)
        }
        deliveredCount = end
        if end == events.count {
            events.removeAll()
            deliveredCount = 0
        }
    }

    /// Whether the hub should poll again after a poll with more than one batch of events.
    ///
    /// A loop is level-triggered: until the greenlets that a poll woke have run, each further poll reports their
    /// descriptors again. With 10,000 connections, polling after each switch interval doubled the cost of a request. So
    /// the hub first delivers the events it has, and polls again only when that poll was a small part of the work since
    /// then. Both are measured in processor time, because on a busy machine wall time includes that of other threads.
    private func isPollDue() -> Bool {
        let isAllDelivered = events.isEmpty
        if pointer.pointee.is_forked || (isAllDelivered && gevent_ready_count(pointer) == 0) { return true }
        // On virtual time the cost of a poll is not measured, so that runs are deterministic.
        if hasVirtualTime { return isAllDelivered }
        return gevent_thread_processor_time() >= nextPoll
    }

    /// Sets the time of the next poll after a poll with more than one batch. `startedAt` is the processor time before
    /// that poll, or nil if the previous poll had only one batch.
    private func setNextPoll(startedAt: Int64?) {
        if hasVirtualTime { return }
        let now = gevent_thread_processor_time()
        let cost = startedAt.map { now - $0 } ?? 0
        nextPoll =
            now + max(switchNanoseconds, min(cost * Hub.pollMultiple, switchNanoseconds * Hub.maxIntervalsWithoutPoll))
    }

    // MARK: Joining the hub

    /// Parks main until the hub runs out of work, or for at most `timeout`. Returns whether the hub ran out of work.
    ///
    /// Greenlets that nothing can wake do not count as work, and neither does `timeout`. Only main may call it: on
    /// another greenlet it throws ``HubError`` with `.invalidSwitch`. Repeatable.
    ///
    /// gevent: `Hub.join(timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public func join(timeout: Duration? = nil) throws -> Bool {
        if isDestroyed { throw HubError.destroyed }
        guard gevent_hub_current() == pointer else { throw HubError.wrongThread }
        let main = gevent_hub_main(pointer)!
        guard pointer.pointee.current == main else {
            throw HubError(
                .invalidSwitch, "hub.join is for the main greenlet; a greenlet waits for others with joinAll")
        }
        try checkPending(pointer)
        if let timeout {
            let now = Hub.time(pointer)
            gevent_wait_set_timer(
                pointer, main, now.advanced(by: timeout).nanoseconds, now.nanoseconds, UInt32(GEVENT_TIMER_EXPIRE),
                false)
        }
        return try wait(pointer, .hubJoin, nil)
    }
}
