// Switching by hand, below the scheduler.

internal import CGevent

extension AnyGreenlet {
    /// Hands control straight to this greenlet; the caller stays behind until somebody switches back to it, or this
    /// greenlet ends.
    ///
    /// Not for applications: events and queues say what is waited for, and this does not. It is for coroutines that
    /// hand control to each other. Only two kinds of greenlets can be switched to: one that left by `switchTo` or
    /// ``throwInto(_:)`` itself, and a ``RawGreenlet`` that has not been started, which then runs. Any other switch,
    /// into a greenlet that waits for something else, is ready, was started in the usual way or is over, is thrown back
    /// as ``HubError`` with `.invalidSwitch` and does not disturb that greenlet. Switching to oneself does nothing.
    ///
    /// The parent of every greenlet is the hub: when this one waits in the usual way, what is ready runs. Kills and
    /// timeouts reach the caller as in any wait. To keep timers and descriptors going, now and then a switch takes the
    /// way over the ready queue.
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
            try stayBehind(hub) { gevent_wait_for_start(hub, $0, $1, greenlet, tag) }
        } else if let context, isSwitchedOut {
            try stayBehind(hub) { gevent_wait_for_switch(hub, $0, $1, context, UInt8(GEVENT_WAIT_WOKEN)) }
        } else {
            throw HubError(.invalidSwitch, "a switch into \(self), which \(whyNotSwitchable)")
        }
    }

    /// Raises `error` in this greenlet where it waits, at once: control goes straight to it, and the caller stays
    /// behind as in ``switchTo()``.
    ///
    /// Not for applications, which use `kill`. One that has never run ends with `error` without a switch: its start is
    /// cancelled, its outcome recorded, its links are told. Thrown into oneself it is thrown right here. Throws
    /// ``HubError`` with `.invalidSwitch`, and disturbs nothing, if the greenlet does not wait: it is ready, over, or
    /// the hub.
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
        try stayBehind(hub) { gevent_wait_for_switch(hub, $0, $1, context, UInt8(GEVENT_WAIT_FAILED)) }
    }

    private var isParked: Bool { context?.pointee.wait_state == UInt8(GEVENT_WAIT_PARKED) }

    private var isSwitchedOut: Bool { isParked && context?.pointee.wait_kind == WaitKind.switchedOut.rawValue }

    /// Steps 2 and 3 of the wait of a caller that gives way to this greenlet. The end of this greenlet wakes it.
    private func stayBehind(
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
            "has not run: of those, only a raw greenlet that was not started can be switched to"
        case .running:
            isParked ? "waits for something else" : "does not wait: it is ready and runs in its turn"
        case .ended:
            "is over"
        }
    }
}
