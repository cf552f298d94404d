// One iteration of the hub: the same on every loop.

internal import CGevent
internal import CGeventSystem

extension Hub {
    /// How many handovers a step of the ready queue may take even if fewer were queued when it began. A poll costs as
    /// much as a hundred switches, so two greenlets that yield to each other must not cause one each time round; the
    /// switch interval bounds what this may delay.
    private static var leastStep: Int { 4096 }

    /// Stacks kept warm however few are in use. Beyond these and beyond as many as are in use, idle memory goes back.
    private static var warmStacks: Int { 1024 }

    /// How many events are handed out at a time. Who was woken runs before the next ones are, while what the kernel and
    /// the hub have just touched for it is in the cache.
    private static var portion: Int { 128 }

    /// The next poll after a crowd comes when so many times the processor time of that poll has been used, or as many
    /// switch intervals as in the second.
    private static var pollMultiple: Int64 { 20 }
    private static var mostIntervalsWithoutPoll: Int64 { 10 }

    /// What runs on the hub's own stack, until the hub is destroyed.
    func run() {
        // The hub may run for the first time because a greenlet has something to report.
        serveVisitors()
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
        if isCrowded {
            if !isPollDue() {
                pointer.pointee.now = Hub.time(pointer).nanoseconds
                return handOut(Hub.portion)
            }
            handOut(events.count)
        }
        let before = isCrowded ? gevent_thread_processor_time() : nil
        poll()
        pointer.pointee.now = Hub.time(pointer).nanoseconds
        isCrowded = events.count > Hub.portion
        if !events.isEmpty {
            latestWait = .max
            handOut(Hub.portion)
            latestWait = beforePoll
        }
        if isCrowded { setNextPoll(startedAt: before) }
        if gevent_first_idle_waiter(pointer) != nil, events.isEmpty { wakeIdle() }
    }

    // MARK: Posts

    /// Runs what was posted so far, but for no longer than the switch interval. What these jobs post runs in the next
    /// iteration, and so does what is left.
    private func runJobs() {
        var left = handle.counts.waiting
        var pace = mailPace
        pace.begin()
        var now = pointer.pointee.now
        let end = now &+ switchNanoseconds
        while true {
            let count = min(pace.count, left)
            handle.runJobs(count)
            left -= count
            if left == 0 { break }
            let last = now
            now = Hub.time(pointer).nanoseconds
            pace.looked(turns: count, elapsed: now - last, tolerance: switchNanoseconds / 4)
            if now >= end { break }
        }
        pace.end()
        mailPace = pace
    }

    // MARK: Timers

    /// Fires the timers that are due. The greenlets they wake run first, so a long queue does not make timers late.
    ///
    /// They must not keep the others from running, though: before timers fire again, whatever else was ready has had as
    /// much time as they took. What falls due meanwhile fires afterwards, so deadlines are met in their order.
    func fireTimers() {
        let hasOthers = gevent_ready_count(pointer) > 0
        if hasOthers && (frontBegan != nil || pointer.pointee.now < timersWaitUntil) { return }
        let place = pointer.pointee.ready_tail
        fireDueTimers()
        // What main queued before the hub's first poll runs in its order.
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
                greenlet.delayIsOver(pointer)
            }
        }
    }

    // MARK: The ready queue

    /// Runs what is ready: as much as was queued, or `leastStep`, or until the switch interval since the hub's last
    /// look at the clock is over, whichever comes first. So greenlets that yield forever starve neither timers nor
    /// descriptors.
    private func runReady() {
        let queued = Int(gevent_ready_count(pointer))
        if queued == 0 {
            frontBegan = nil
            return
        }
        let bound = max(queued, Hub.leastStep)
        var granted = 0
        var pace = readyPace
        pace.begin()
        var now = pointer.pointee.now
        let end = now &+ switchNanoseconds
        while granted < bound {
            var count = min(pace.count, bound - granted)
            // Those in front are counted apart.
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

    /// Uses up the grant. Returns whether the queue is empty.
    private func runChunk() -> Bool {
        while true {
            let result = gevent_run_ready(pointer)
            if result == GEVENT_RUN_DRAINED { return true }
            if result == GEVENT_RUN_GRANT_USED { return false }
            if result == GEVENT_RUN_VISIT {
                serveVisitors()
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
        // Null if there was no memory even for the first of its size.
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

    /// Whether anything is ready or can become ready.
    private var hasWork: Bool {
        gevent_ready_count(pointer) > 0 || pointer.pointee.timers.referenced_count > 0
            || pointer.pointee.descriptor_waiters > 0 || holdCount > 0 || handle.hasMail
            || gevent_first_idle_waiter(pointer) != nil || !events.isEmpty
    }

    /// Nothing can wake anyone. Main is parked, or the hub would not run: it is told.
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
        // Refused if a post has come in meanwhile: then the poll only looks.
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

    /// Polling itself fails only if the kernel is out of memory or the loop is broken. Main is told, and is the one to
    /// decide; the hub goes on.
    private func pollFailed(_ error: LoopError) {
        mainGreenlet.deliver(error)
    }

    /// Returns whether there is more to trim.
    private func trimIdleStacks() -> Bool {
        let most = 1024
        return gevent_hub_trim_stacks(pointer, Hub.warmStacks, most) == most
    }

    /// Gives back a part of what idle stacks hold. Returns when the hub has to look again, at `deadline` at the latest.
    private func shedIdleStacks(before deadline: LoopInstant?) -> LoopInstant? {
        let now = pointer.pointee.now
        let next = gevent_hub_shed_stacks(pointer, now)
        if next == .max || deadline == .distantPast { return deadline }
        if next <= now { return .distantPast }
        // Virtual time must not move for this.
        return hasVirtualTime ? deadline : min(deadline ?? .distantFuture, LoopInstant(nanoseconds: next))
    }

    /// Wakes the waiters of the next `count` events, if there are so many.
    ///
    /// An event can be out of date when its turn comes. So a wait that began after the poll is not ended by it: if the
    /// descriptor is still ready, the next poll reports it.
    private func handOut(_ count: Int) {
        let end = min(handedOut + count, events.count)
        for index in handedOut..<end {
            descriptors.distribute(events[index], latestWait)
        }
        handedOut = end
        if end == events.count {
            events.removeAll()
            handedOut = 0
        }
    }

    /// Whether the hub should poll again after a poll that brought a crowd: more events than are handed out at once.
    ///
    /// A loop is level-triggered: until the greenlets that a poll woke have run, each further poll reports their
    /// descriptors again. With 10,000 connections, polling after each switch interval doubled what a request cost. So
    /// the hub first hands out what it has, and polls again only when that poll was a small part of the work since.
    /// This is measured in processor time: on a busy machine both a poll and the work take longer by the clock.
    private func isPollDue() -> Bool {
        let isAllHandedOut = events.isEmpty
        if pointer.pointee.is_forked || (isAllHandedOut && gevent_ready_count(pointer) == 0) { return true }
        // What a poll costs is not part of virtual time, in which everything is to happen the same way each time.
        if hasVirtualTime { return isAllHandedOut }
        return gevent_thread_processor_time() >= nextPoll
    }

    /// Decides on the next poll after a crowd. `startedAt`: the processor time before the poll, nil if the poll before
    /// it had brought no crowd.
    private func setNextPoll(startedAt: Int64?) {
        if hasVirtualTime { return }
        let now = gevent_thread_processor_time()
        let cost = startedAt.map { now - $0 } ?? 0
        nextPoll =
            now + max(switchNanoseconds, min(cost * Hub.pollMultiple, switchNanoseconds * Hub.mostIntervalsWithoutPoll))
    }

    // MARK: Joining the hub

    /// Parks main until nothing is left to do, or for at most `timeout`. Returns whether the hub ran out of work.
    ///
    /// Greenlets parked where nobody can wake them do not count as work. From main only: elsewhere it throws
    /// ``HubError`` with `.invalidSwitch`. Repeatable; its own timeout does not keep the hub waiting.
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
