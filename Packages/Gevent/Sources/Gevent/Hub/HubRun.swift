// One iteration of the hub: the same on every loop.

internal import CGevent

extension Hub {
    /// How many handovers a step of the ready queue may take even if fewer were queued when it began. A poll costs as
    /// much as a hundred switches, so two greenlets that yield to each other must not cause one each time round; the
    /// switch interval bounds what this may delay.
    private static var leastStep: Int { 4096 }

    /// How many handovers there are at most between two looks at the clock.
    private static var mostBetweenLooks: Int { 128 }

    /// Stacks kept warm however few are in use. Beyond these and beyond as many as are in use, idle memory goes back.
    private static var warmStacks: Int { 1024 }

    /// What runs on the hub's own stack, until the hub is destroyed.
    func run() {
        // The hub may run for the first time because a greenlet has something to report.
        serveVisitors()
        while !isDestroyed { iterate() }
    }

    private func iterate() {
        if handle.hasMail { handle.runJobs() }
        fireTimers()
        runReady()
        if isDestroyed { return }
        if !hasWork { runOutOfWork() }
        poll()
        pointer.pointee.now = loop.now.nanoseconds
        distributeEvents()
        if gevent_first_idle_waiter(pointer) != nil { wakeIdle() }
    }

    // MARK: Timers

    func fireTimers() {
        while let timer = gevent_fire_timers(pointer, pointer.pointee.now) {
            let record = UnsafeMutableRawPointer(timer).assumingMemoryBound(to: gevent_deferred.self)
            if timer.pointee.kind == UInt8(GEVENT_TIMER_TIMEOUT) {
                Timeout.fire(record, pointer)
            } else if timer.pointee.kind == UInt8(GEVENT_TIMER_CALLBACK) {
                HubTimer.fire(record)
            } else {
                let greenlet = Unmanaged<JoinableGreenlet>.fromOpaque(timer.pointee.payload).takeRetainedValue()
                gevent_node_unlink(&record.pointee.node)
                gevent_record_give_back(pointer, record)
                greenlet.delayIsOver(pointer)
            }
        }
    }

    // MARK: The ready queue

    /// Runs what is ready: as much as was queued, or `leastStep`, or until the switch interval is over, whichever
    /// comes first. So greenlets that yield forever starve neither timers nor descriptors.
    private func runReady() {
        let queued = Int(gevent_ready_count(pointer))
        if queued == 0 { return }
        let bound = max(queued, Hub.leastStep)
        var granted = 0
        // The clock is read rarely while handovers are fast and often while they are slow.
        var chunk = 1
        var deadline: LoopInstant?
        while granted < bound {
            let count = min(chunk, bound - granted)
            gevent_ready_grant(pointer, UInt64(count))
            granted += count
            if runChunk() { break }
            let now = Hub.time(pointer)
            if let deadline {
                if now >= deadline { break }
            } else {
                deadline = now.advanced(by: switchInterval)
            }
            chunk = min(chunk * 2, Hub.mostBetweenLooks)
        }
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
            || gevent_first_idle_waiter(pointer) != nil
    }

    /// Nothing can wake anyone. Main is parked, or the hub would not run: it is told.
    private func runOutOfWork() {
        let main = gevent_hub_main(pointer)!
        if main.pointee.wait_kind == WaitKind.hubJoin.rawValue {
            gevent_wait_end(main, UInt8(GEVENT_WAIT_WOKEN))
        } else {
            mainGreenlet.deliver(HubError(.wouldBlockForever, deadlockReport()))
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
                    nanoseconds: gevent_timers_next(&pointer.pointee.timers, pointer.pointee.now))
            }
            if trimIdleStacks() { deadline = .distantPast }
            deadline = shedIdleStacks(before: deadline)
        }
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
        // Time that a test moves must not move for this.
        return keepsSystemTime ? min(deadline ?? .distantFuture, LoopInstant(nanoseconds: next)) : deadline
    }

    private func distributeEvents() {
        if events.isEmpty { return }
        for index in 0..<events.count {
            descriptors.distribute(events[index], loop)
        }
        events.removeAll()
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
        try attend(pointer)
        if let timeout {
            let now = Hub.time(pointer)
            gevent_wait_set_timer(
                pointer, main, now.advanced(by: timeout).nanoseconds, now.nanoseconds, UInt32(GEVENT_TIMER_EXPIRE),
                false)
        }
        return try wait(pointer, .hubJoin, nil)
    }
}
