package import CGevent

/// A flag that greenlets can wait for.
///
/// ```swift
/// let ready = Event()
/// spawn { try ready.wait(); serve() }
/// ready.set()
/// ```
///
/// It may be created before any hub exists, and belongs to the thread that first uses it.
///
/// gevent: `gevent.event.Event`.
public final class Event: _WaitableObject, CustomStringConvertible {
    /// Whether the flag is set.
    ///
    /// gevent: `Event.is_set()`.
    @exclusivity(unchecked) public private(set) var isSet = false

    /// Creates an event that is not set.
    public override init() { super.init() }

    /// The same as ``isSet``.
    public override var isReady: Bool { isSet }

    /// Sets the flag and makes all waiters ready, in the order of their arrival. They run when the caller next parks.
    /// Their waits succeed even if the flag is cleared before they run. Never parks; works in a hub callback. Traps on
    /// a foreign thread.
    ///
    /// gevent: `Event.set()`.
    @available(*, noasync)
    public func set() {
        set(on: hubBinding.requireHub())
    }

    /// Sets the flag like ``set()``, for callers in the library that have the hub.
    @inline(__always)
    package func set(on hub: UnsafeMutablePointer<gevent_hub>) {
        if !isSet {
            isSet = true
            recordReadiness(hub)
        }
        notifyAll(hub)
    }

    /// Clears the flag: later waits last until the next ``set()``. Traps on a foreign thread.
    ///
    /// gevent: `Event.clear()`.
    public func clear() {
        _ = hubBinding.requireHub()
        isSet = false
    }

    /// Parks until the event is set, or for at most `timeout`. Returns true if it was set, and false if `timeout`
    /// expired.
    ///
    /// If the event is set, returns true without a wait; waiters that were woken and have not run yet run first. With a
    /// timeout of zero or less it only checks the flag. Throws an error delivered to the greenlet meanwhile, such as a
    /// kill or another ``Timeout``; and ``HubError`` with `.wouldBlockForever` in main, `.wrongThread`,
    /// `.blockedInHub`.
    ///
    /// gevent: `Event.wait(timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public func wait(timeout: Duration? = nil) throws -> Bool {
        let hub = try hubBinding.hub()
        if isSet {
            yieldToEarlierWaiters(hub, timeout)
            return true
        }
        return try park(hub, .event, timeout)
    }

    /// "<Event set>" or "<Event clear>", with the number of waiters.
    public var description: String {
        "<Event \(isSet ? "set" : "clear")\(waiters.waitingText)>"
    }
}
