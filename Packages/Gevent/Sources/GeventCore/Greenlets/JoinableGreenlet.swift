public import CGevent

/// What all ``Greenlet``s have in common, whatever their output: an outcome, `join`, `kill` and links.
///
/// The type of a list of greenlets with different outputs. It is subclassed through ``Greenlet`` only.
open class JoinableGreenlet: AnyGreenlet {
    /// The error it ended with: a failure or an exit.
    @usableFromInline @exclusivity(unchecked) package final var outcomeError: (any Error)?
    /// The value it ended with, if `hasValue`; see `storeValue`.
    @usableFromInline @exclusivity(unchecked) final var valueRoom: ValueRoom = (0, 0)

    @usableFromInline
    override init(hub: UnsafeMutablePointer<gevent_hub>) {
        var spawnNode: UInt = 0
        var site: UnsafePointer<gevent_spawn_site>?
        let duties = hub.pointee.spawn_duties
        if duties & UInt32(GEVENT_SPAWN_TRACKS) != 0 {
            (spawnNode, site) = recordSpawner(hub)
            // Here and not in a function of its own, which would be one more frame of the site.
            site = gevent_hub_capture_spawn_site(hub, site)
        }
        super.init(hub: hub, spawnNode: spawnNode, spawnSite: site)
        if duties & UInt32(GEVENT_SPAWN_INHERITS) != 0 { inheritLocals(hub) }
    }

    // MARK: Outcome

    /// Whether the outcome is recorded, which is before links are told. Also true if it was killed before it ran.
    ///
    /// gevent: `Greenlet.ready()`.
    @inlinable
    public final var isReady: Bool { phase == .ended }

    /// Whether it ended with a value or silently, by an exit. False while it lives, and after an error.
    ///
    /// gevent: `Greenlet.successful()`.
    public final var isSuccessful: Bool { phase == .ended && error == nil }

    /// The error the body failed with; nil before the end, on success and after a silent death.
    ///
    /// gevent: `Greenlet.exception`.
    public final var error: (any Error)? {
        guard phase == .ended, let outcomeError, !isExit(outcomeError) else { return nil }
        return outcomeError
    }

    /// The exit it was killed with, or that its body threw.
    ///
    /// gevent keeps it in `Greenlet.value`.
    public final var exit: (any GreenletExitError)? {
        phase == .ended ? outcomeError as? any GreenletExitError : nil
    }

    // MARK: Starting

    /// Queues the greenlet and returns without switching; it runs when the caller next parks, in turn with other
    /// starts and hub callbacks.
    ///
    /// A second start, or one after a kill or the end, is ignored. Traps on another thread than the greenlet's own.
    ///
    /// gevent: `Greenlet.start()`.
    @available(*, noasync)
    public final func start() {
        let hub = requireOwnHub()
        guard phase == .created else { return }
        phase = .scheduled
        hub.pointee.spawn_count &+= 1
        if hub.pointee.spawn_duties & Self.toldOfStarts != 0 { tellOfStart(hub) }
        gevent_ready_push(hub, Unmanaged.passRetained(self).toOpaque(), startTag)
    }

    /// Queues the greenlet `delay` from now.
    ///
    /// It counts as started at once. Zero and negative delays are accepted and still wait for the hub's next look at
    /// its timers. A later `start()` does not hurry it.
    ///
    /// gevent: `Greenlet.start_later(seconds)`.
    @available(*, noasync)
    public final func start(after delay: Duration) {
        let hub = requireOwnHub()
        guard phase == .created else { return }
        phase = .delayed
        hub.pointee.spawn_count &+= 1
        if hub.pointee.spawn_duties & Self.toldOfStarts != 0 {
            tellOfStart(hub)
            // One of them may have ended it.
            if phase != .delayed { return }
        }
        let record = gevent_deferred_take(hub)!
        record.pointee.timer.kind = UInt8(GEVENT_TIMER_START)
        record.pointee.timer.payload = Unmanaged.passRetained(self).toOpaque()
        record.pointee.timer.referenced = true
        delayRecord = record
        gevent_list_append(&hub.pointee.delayed_starts, &record.pointee.node)
        let now = Hub.of(hub).now
        gevent_timers_start(
            &hub.pointee.timers, &record.pointee.timer, now.advanced(by: delay).nanoseconds, now.nanoseconds)
    }

    /// The delay is over: from here on like any start.
    final func delayIsOver(_ hub: UnsafeMutablePointer<gevent_hub>) {
        delayRecord = nil
        phase = .scheduled
        gevent_ready_push(hub, Unmanaged.passRetained(self).toOpaque(), startTag)
    }

    // MARK: Running

    /// Runs the body and stores its value. Overridden where the output's type is known.
    func runAndStore() throws {
        preconditionFailure("overridden by Greenlet")
    }

    /// Lets go of a body that will never run.
    func dropBody() {
        preconditionFailure("overridden by Greenlet")
    }

    final override func runOnStack(_ context: UnsafeMutablePointer<gevent_context>) {
        // Killed while it stood in the ready queue.
        if phase == .ended { return disown(context) }
        enter(context)
        let error = runBody()
        end(error, context)
    }

    /// Apart from `runOnStack`, so that the body and all it captured are released when this returns, before anybody is
    /// told of the end.
    @inline(never)
    private func runBody() -> (any Error)? {
        do {
            try runAndStore()
            return nil
        } catch {  // control: the greenlet's outermost frame; a kill becomes its outcome
            return error
        }
    }

    private func end(_ error: (any Error)?, _ context: UnsafeMutablePointer<gevent_context>) {
        let hub = context.pointee.hub!
        if let error { outcomeError = error }
        // Links that are made from here on, by the error handler or by what is released, are notified with the others.
        isNotifying = true
        recordEnd(error, hub)
        leave(context)
        notifyLinks(hub)
    }

    final override func endUnstarted(_ error: any Error) {
        let hub = requireOwnHub()
        if let record = delayRecord {
            delayRecord = nil
            gevent_deferred_cancel(hub, record)
            gevent_record_release(hub, record)
            Unmanaged.passUnretained(self).release()
        }
        // One that stands in the ready queue stays there; when its turn comes it is found dead.
        outcomeError = error
        recordUnstartedEnd(error, hub)
        // Last, since what it captured may run code of its own, and park, when it goes.
        dropBody()
    }

    // MARK: Waiting for the end

    /// Parks until the greenlet is over, or for at most `timeout`.
    ///
    /// Returns at once, without a switch, if it is over. Returns nothing whether or not it ended, and never throws its
    /// error. Throws what interrupts the caller: a kill, a ``Timeout`` started elsewhere, ``HubError`` with
    /// `.wouldBlockForever` in main, `.wrongThread`, `.blockedInHub`. A greenlet that joins itself is thrown
    /// `.wouldBlockForever` at once.
    ///
    /// gevent: `Greenlet.join(timeout=None)`.
    @available(*, noasync)
    public final func join(timeout: Duration? = nil) throws {
        _ = try waitForEnd(timeout: timeout)
    }
}
