package import CGevent

/// A flag that greenlets wait for.
///
/// ```swift
/// let ready = Event()
/// spawn { try ready.wait(); serve() }
/// ready.set()
/// ```
///
/// May be made before any hub exists; belongs to the thread that first uses it.
///
/// gevent: `gevent.event.Event`.
public final class Event: _WaitableObject, CustomStringConvertible {
    /// Whether it is set.
    ///
    /// gevent: `Event.is_set()`.
    @exclusivity(unchecked) public private(set) var isSet = false

    /// An event that is not set.
    public override init() { super.init() }

    /// The same as ``isSet``.
    public override var isReady: Bool { isSet }

    /// Sets the flag and makes everyone who waits ready, in the order in which they came; they run when the caller next
    /// parks. All of them find that the wait succeeded, even if the flag is cleared before they run. Never parks; works
    /// in a hub callback. Traps on a foreign thread.
    ///
    /// gevent: `Event.set()`.
    @available(*, noasync)
    public func set() {
        set(on: home.requireHub())
    }

    /// The same for the library's own, which knows the hub.
    @inline(__always)
    package func set(on hub: UnsafeMutablePointer<gevent_hub>) {
        if !isSet {
            isSet = true
            recordReadiness(hub)
        }
        notifyAll(hub)
    }

    /// Clears the flag: waits that begin now last until the next ``set()``. Traps on a foreign thread.
    ///
    /// gevent: `Event.clear()`.
    public func clear() {
        _ = home.requireHub()
        isSet = false
    }

    /// Parks until the event is set, or for at most `timeout`. Returns whether it was set; that the time is up is no
    /// error.
    ///
    /// Returns true at once if it is set, but comes after those who had to wait and have not run yet. A timeout of zero
    /// or less only looks. Throws what is thrown into the greenlet meanwhile: a kill, a ``Timeout`` started elsewhere;
    /// and ``HubError`` with `.wouldBlockForever` in main, `.wrongThread`, `.blockedInHub`.
    ///
    /// gevent: `Event.wait(timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public func wait(timeout: Duration? = nil) throws -> Bool {
        let hub = try home.hub()
        if isSet {
            yieldToEarlierWaiters(hub, timeout)
            return true
        }
        return try park(hub, .event, timeout)
    }

    /// "<Event set>" or "<Event clear>", and how many wait.
    public var description: String {
        "<Event \(isSet ? "set" : "clear")\(line.waitingText)>"
    }
}
