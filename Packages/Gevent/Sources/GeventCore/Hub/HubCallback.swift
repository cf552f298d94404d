internal import CGevent

/// A closure that is queued to run on the hub, as returned by ``Hub/runCallback(_:)``.
final class HubCallback: Registration {
    private var body: (() throws -> Void)?
    private let hubSerial: UInt32
    /// Whether the library queued it, to call a link. Such a callback runs even if the hub is destroyed first.
    let isInternal: Bool
    /// Whether it was queued before the fork that created this process.
    var isInherited = false

    init(_ hub: UnsafeMutablePointer<gevent_hub>, isInternal: Bool, _ body: @escaping () throws -> Void) {
        hubSerial = hub.pointee.serial
        self.isInternal = isInternal
        self.body = body
    }

    override var isActive: Bool { body != nil }

    override func cancel() {
        if body == nil { return }
        _ = Registration.requireThread(ofHub: hubSerial)
        // Releasing the captured objects may run code that queries this callback, so `body` is cleared first.
        let forgotten = body
        body = nil
        withExtendedLifetime(forgotten) {}
    }

    func call(on hub: Hub) {
        guard let body else { return }
        self.body = nil
        do {
            try body()
        } catch {  // control: callbacks run on the hub, where no kill can arrive.
            hub.callbackFailed(error)
        }
    }
}

extension Hub {
    /// Queues `body` to run on the hub, after greenlets that were started or woken before.
    ///
    /// `body` must not park; parking throws ``HubError`` with `.blockedInHub`. An error that it throws is reported, or
    /// raised in main if it is one of ``systemErrors``. Call it on this hub's own thread only; other threads use
    /// ``HubHandle/post(_:)``. Cancelling the registration prevents the call.
    ///
    /// gevent: `loop.run_callback(func)`.
    @discardableResult
    public func runCallback(_ body: @escaping () throws -> Void) -> Registration {
        if isDestroyed { fatalError("\(HubError.destroyed)") }
        if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        return enqueue(isInternal: false, body)
    }

    @discardableResult
    func enqueue(isInternal: Bool = true, _ body: @escaping () throws -> Void) -> HubCallback {
        let callback = HubCallback(pointer, isInternal: isInternal, body)
        gevent_ready_push(pointer, Unmanaged.passRetained(callback).toOpaque(), UInt32(GEVENT_READY_CALLBACK))
        return callback
    }
}
