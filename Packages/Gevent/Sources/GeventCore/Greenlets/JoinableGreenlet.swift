public import CGevent

/// The part of ``Greenlet`` that does not depend on the output type: an outcome, `join`, `kill` and links.
///
/// Use it as the element type of a list of greenlets with different outputs. Subclass it through ``Greenlet`` only.
open class JoinableGreenlet: AnyGreenlet {
    /// The error that the greenlet ended with: a failure or an exit.
    @usableFromInline @exclusivity(unchecked) package final var outcomeError: (any Error)?
    /// The value that the greenlet ended with, if `hasValue`; see `storeValue`.
    @usableFromInline @exclusivity(unchecked) final var valueRoom: ValueRoom = (0, 0)

    @usableFromInline
    override init(hub: UnsafeMutablePointer<gevent_hub>) {
        var spawnNode: UInt = 0
        var site: UnsafePointer<gevent_spawn_site>?
        let duties = hub.pointee.spawn_flags
        if duties & UInt32(GEVENT_SPAWN_TRACKS) != 0 {
            (spawnNode, site) = recordSpawner(hub)
            // Called directly, because a separate function would add a frame to the spawn site.
            site = gevent_hub_capture_spawn_site(hub, site)
        }
        super.init(hub: hub, spawnNode: spawnNode, spawnSite: site)
        if duties & UInt32(GEVENT_SPAWN_INHERITS) != 0 { inheritLocals(hub) }
    }

    // MARK: Outcome

    /// Whether the outcome is recorded. It is recorded before links are notified. Also true if the greenlet was killed
    /// before it ran.
    ///
    /// gevent: `Greenlet.ready()`.
    @inlinable
    public final var isReady: Bool { phase == .ended }

    /// Whether the greenlet ended with a value or silently, by an exit. False until it ends, and after an error.
    ///
    /// gevent: `Greenlet.successful()`.
    public final var isSuccessful: Bool { phase == .ended && error == nil }

    /// The error that the body failed with; nil before the end, on success and after a silent death.
    ///
    /// gevent: `Greenlet.exception`.
    public final var error: (any Error)? {
        guard phase == .ended, let outcomeError, !isExit(outcomeError) else { return nil }
        return outcomeError
    }

    /// The exit that the greenlet was killed with, or that its body threw.
    ///
    /// gevent keeps it in `Greenlet.value`.
    public final var exit: (any GreenletExitError)? {
        phase == .ended ? outcomeError as? any GreenletExitError : nil
    }

    // MARK: Starting

    /// Adds the greenlet to the ready queue and returns without a switch. It runs when the caller next parks, in order
    /// with other starts and hub callbacks.
    ///
    /// A second start is ignored, and so is one after a kill or the end. Traps on another thread than the greenlet's
    /// own.
    ///
    /// gevent: `Greenlet.start()`.
    @available(*, noasync)
    public final func start() {
        let hub = requireOwnHub()
        guard phase == .created else { return }
        phase = .scheduled
        hub.pointee.spawn_count &+= 1
        if hub.pointee.spawn_flags & Self.observedStarts != 0 { notifyOfStart(hub) }
        gevent_ready_push(hub, Unmanaged.passRetained(self).toOpaque(), startTag)
    }

    /// Adds the greenlet to the ready queue after `delay`, and returns at once.
    ///
    /// The greenlet counts as started at once. Zero and negative delays are accepted, and still wait until the hub next
    /// checks its timers. A later `start()` does not shorten the delay.
    ///
    /// gevent: `Greenlet.start_later(seconds)`.
    @available(*, noasync)
    public final func start(after delay: Duration) {
        let hub = requireOwnHub()
        guard phase == .created else { return }
        phase = .delayed
        hub.pointee.spawn_count &+= 1
        if hub.pointee.spawn_flags & Self.observedStarts != 0 {
            notifyOfStart(hub)
            // A spawn callback may have ended the greenlet.
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

    /// Adds the greenlet to the ready queue, like `start()`. Called when the delay has expired.
    final func delayExpired(_ hub: UnsafeMutablePointer<gevent_hub>) {
        delayRecord = nil
        phase = .scheduled
        gevent_ready_push(hub, Unmanaged.passRetained(self).toOpaque(), startTag)
    }

    // MARK: Running

    /// Runs the body and stores its value. Overridden by `Greenlet`, where the output type is known.
    func runAndStore() throws {
        preconditionFailure("overridden by Greenlet")
    }

    /// Releases a body that will never run.
    func dropBody() {
        preconditionFailure("overridden by Greenlet")
    }

    final override func runOnStack(_ context: UnsafeMutablePointer<gevent_context>) {
        // Killed while it was in the ready queue.
        if phase == .ended { return detachOwner(context) }
        enter(context)
        let error = runBody()
        end(error, context)
    }

    /// Runs the body in a separate function. The body and its captures are released when this returns, before any link
    /// is notified.
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
        // Links that the error handler or a `deinit` adds from here on are notified with the others.
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
        // A greenlet in the ready queue stays there; when it is dequeued, its phase shows that it has ended.
        outcomeError = error
        recordUnstartedEnd(error, hub)
        // Last, because releasing its captures may run user code, which may park.
        dropBody()
    }

    // MARK: Waiting for the end

    /// Parks until the greenlet has ended, or for at most `timeout`.
    ///
    /// Returns at once, without a switch, if the greenlet has ended. Returns nothing, whether or not it ended in time,
    /// and never throws its error. Throws what interrupts the caller: a kill, a ``Timeout`` started elsewhere, or
    /// ``HubError`` with `.wouldBlockForever` in main, `.wrongThread` or `.blockedInHub`. A greenlet that joins itself
    /// gets `.wouldBlockForever` at once.
    ///
    /// gevent: `Greenlet.join(timeout=None)`.
    @available(*, noasync)
    public final func join(timeout: Duration? = nil) throws {
        _ = try waitForEnd(timeout: timeout)
    }
}
