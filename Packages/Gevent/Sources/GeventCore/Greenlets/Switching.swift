// Explicit switches between greenlets, below the scheduler.

internal import CGevent

extension AnyGreenlet {
    /// Switches directly to this greenlet. The caller is parked until another greenlet switches back to it, or this
    /// greenlet ends.
    ///
    /// Not for applications: events and queues state what a greenlet waits for, and this call does not. It is for
    /// coroutines that hand control to each other. Only two kinds of greenlets can be switched to: one that is parked
    /// in `switchTo` or ``throwInto(_:)`` itself, and a ``RawGreenlet`` that has not been started, which then runs. A
    /// switch to any other greenlet throws ``HubError`` with `.invalidSwitch` and does not disturb that greenlet: one
    /// that waits for something else, is ready, was started in the usual way or has ended. Switching to the current
    /// greenlet does nothing.
    ///
    /// The parent of every greenlet is the hub: when this greenlet parks in the usual way, the hub runs what is ready.
    /// Kills and timeouts reach the caller as in any wait. Some switches pass through the ready queue, so that timers
    /// and descriptors are served.
    ///
    /// gevent: `greenlet.switch()`.
    @available(*, noasync)
    public final func switchTo() throws {
        let hub = try ownHub()
        if isCurrent { return }
        try checkPending(hub)
        if phase == .created, self is RawGreenlet {
            countStart(hub)
            let greenlet = Unmanaged.passRetained(self).toOpaque()
            let tag = startTag
            try parkBehind(hub) { gevent_wait_for_start(hub, $0, $1, greenlet, tag) }
        } else if let context, isSwitchedOut {
            try parkBehind(hub) { gevent_wait_for_switch(hub, $0, $1, context, UInt8(GEVENT_WAIT_WOKEN)) }
        } else {
            throw HubError(.invalidSwitch, "a switch into \(self), which \(whyNotSwitchable)")
        }
    }

    /// Raises `error` at once in this greenlet where it is parked: switches directly to it, and parks the caller as in
    /// ``switchTo()``.
    ///
    /// Not for applications, which use `kill`. A greenlet that has never run ends with `error` without a switch: its
    /// start is cancelled, its outcome recorded, its links notified. Called on the current greenlet, it throws `error`
    /// right here. Throws ``HubError`` with `.invalidSwitch`, and disturbs nothing, if the greenlet is not parked: it
    /// is ready, has ended, or is the hub.
    ///
    /// gevent: `greenlet.throw(error)`, `Greenlet.throw(error)`.
    @available(*, noasync)
    public final func throwInto(_ error: any Error) throws {
        try checkCanBeThrownInto()
        if isCurrent { throw error }
        if phase != .running && phase != .ended { return endUnstarted(error) }
        let hub = requireOwnHub()
        try checkPending(hub)
        guard let context, isParked else {
            throw HubError(.invalidSwitch, "an error thrown into \(self), which \(whyNotSwitchable)")
        }
        prepareToRaise(error, context)
        try parkBehind(hub) { gevent_wait_for_switch(hub, $0, $1, context, UInt8(GEVENT_WAIT_FAILED)) }
    }

    private var isParked: Bool { context?.pointee.wait_state == UInt8(GEVENT_WAIT_PARKED) }

    private var isSwitchedOut: Bool { isParked && context?.pointee.wait_kind == WaitKind.switchedOut.rawValue }

    /// Parks the caller, which switches to this greenlet: steps 2 and 3 of a wait. The end of this greenlet wakes the
    /// caller.
    private func parkBehind(
        _ hub: UnsafeMutablePointer<gevent_hub>, _ leave: (UInt8, UnsafeRawPointer) -> UInt8
    ) throws {
        let current = hub.pointee.current!
        append(&current.pointee.wait_link, kind: GEVENT_LINK_WAKE, payload: current, hub)
        let outcome = leave(WaitKind.switchedOut.rawValue, UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque()))
        if outcome == UInt8(GEVENT_WAIT_FAILED) { throw AnyGreenlet.current(of: hub).takePendingError() }
    }

    private var whyNotSwitchable: String {
        switch phase {
        case .created, .scheduled, .delayed:
            "has not run: only a raw greenlet that was not started can be switched to before it has run"
        case .running:
            isParked ? "waits for something else" : "is not parked: it is in the ready queue"
        case .ended:
            "has ended"
        }
    }
}
