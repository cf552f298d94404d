internal import CGevent

/// A closure queued to run on the hub: what ``Hub/runCallback(_:)`` returns.
public final class HubCallback {
    private var body: (() throws -> Void)?
    /// One of the library's: it calls a link, and does so even if the hub is destroyed first.
    let isOwn: Bool
    /// Queued before the process that destroys the hub was forked off.
    var isInherited = false

    init(isOwn: Bool, _ body: @escaping () throws -> Void) {
        self.isOwn = isOwn
        self.body = body
    }

    /// Whether it is still to be called.
    ///
    /// gevent: `callback.pending`.
    public var isPending: Bool { body != nil }

    /// Prevents the call if it has not been made. On the hub's own thread.
    ///
    /// gevent: `callback.stop()`.
    public func stop() {
        // What the closure captured goes when this has forgotten it: it may ask about this callback.
        let forgotten = body
        body = nil
        withExtendedLifetime(forgotten) {}
    }

    func call(on hub: Hub) {
        guard let body else { return }
        self.body = nil
        do {
            try body()
        } catch {  // control: callbacks run on the hub, into which nothing can be thrown.
            hub.callbackFailed(error)
        }
    }
}

@available(*, unavailable)
extension HubCallback: Sendable {}

extension Hub {
    /// Calls `body` on the hub soon, in turn with greenlets that were started or woken before.
    ///
    /// It must not park: that throws ``HubError`` with `.blockedInHub`. An error it throws is reported, or raised in
    /// main if it is one of ``systemErrors``. On this hub's own thread only; other threads use ``HubHandle/post(_:)``.
    ///
    /// gevent: `loop.run_callback(func)`.
    @discardableResult
    public func runCallback(_ body: @escaping () throws -> Void) -> HubCallback {
        if isDestroyed { fatalError("\(HubError.destroyed)") }
        if gevent_hub_current() != pointer { fatalError("\(HubError.wrongThread)") }
        return enqueue(isOwn: false, body)
    }

    @discardableResult
    func enqueue(isOwn: Bool = true, _ body: @escaping () throws -> Void) -> HubCallback {
        let callback = HubCallback(isOwn: isOwn, body)
        gevent_ready_push(pointer, Unmanaged.passRetained(callback).toOpaque(), UInt32(GEVENT_READY_CALLBACK))
        return callback
    }
}
