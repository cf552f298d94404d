internal import CGevent

/// Something that stays registered until it is cancelled: a link, a callback, a hook, a signal handler, a hold.
///
/// Calls that register a closure or a claim return one. The registration stays in force whether or not the object is
/// kept, unless the call says otherwise, and ends with its hub at the latest.
///
/// It is confined to the thread of its hub: `cancel()` on another thread is a programming error. A call whose
/// registrations may be cancelled on any thread returns `Registration & Sendable`.
///
/// gevent: a watcher's `stop()`, `unlink(callback)`, `remove_spawn_callback(callback)` and their like.
// Not Sendable, because it is a class that can be subclassed. An explicit unavailable conformance would say so, but
// would also forbid the Sendable subclasses.
open class Registration {
    /// For the library's own kinds.
    @_spi(GeventInternals) public init() {}

    /// Whether it is in force: not cancelled, and if its closure is called only once, not called yet.
    ///
    /// gevent: `callback.pending`, a watcher's `active`.
    open var isActive: Bool { preconditionFailure("overridden by every kind of registration") }

    /// Ends the registration: its closure is not called from now on, and what it captured is released. A call that has
    /// begun goes on. Repeatable; never parks.
    open func cancel() { preconditionFailure("overridden by every kind of registration") }

    /// Traps on a thread that is not the hub's. Returns that hub; nil if it was destroyed.
    static func requireThread(ofHub serial: UInt32) -> UnsafeMutablePointer<gevent_hub>? {
        if let hub = gevent_hub_current(), hub.pointee.serial == serial { return hub }
        if HubRegistry.contains(serial: serial) { fatalError("\(HubError.wrongThread)") }
        return nil
    }
}
