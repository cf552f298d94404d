internal import CGevent

/// A link, a callback, a hook, a signal handler or a hold that stays registered until it is cancelled.
///
/// Calls that register a closure or a hold return a registration. It stays in force whether or not the object is
/// retained, unless the call says otherwise, and ends with its hub at the latest.
///
/// A registration is confined to the thread of its hub: `cancel()` on another thread is a programming error. A call
/// whose registrations may be cancelled on any thread returns `Registration & Sendable`.
///
/// gevent: a watcher's `stop()`, `unlink(callback)`, `remove_spawn_callback(callback)` and similar calls.
// Not Sendable, because the class can be subclassed. An explicit unavailable conformance would say so, but would also
// forbid the Sendable subclasses.
open class Registration {
    /// Creates a registration; for the library's own subclasses.
    @_spi(GeventInternals) public init() {}

    /// Whether the registration is in force: not cancelled and, if its closure is called only once, not called yet.
    ///
    /// gevent: `callback.pending`, a watcher's `active`.
    open var isActive: Bool { preconditionFailure("overridden by every kind of registration") }

    /// Cancels the registration: its closure is not called from now on, and its captured objects are released. A call
    /// that has begun is not interrupted. Repeatable; never parks.
    open func cancel() { preconditionFailure("overridden by every kind of registration") }

    /// Returns the hub with this serial, or nil if it was destroyed. Traps on a thread that is not the hub's.
    static func requireThread(ofHub serial: UInt32) -> UnsafeMutablePointer<gevent_hub>? {
        if let hub = gevent_hub_current(), hub.pointee.serial == serial { return hub }
        if HubRegistry.contains(serial: serial) { fatalError("\(HubError.wrongThread)") }
        return nil
    }
}
