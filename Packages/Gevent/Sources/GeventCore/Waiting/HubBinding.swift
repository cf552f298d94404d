public import CGevent

/// The hub that an object belongs to: the hub of the thread that first uses the object. Creating the object creates no
/// hub, so the object may be a global.
///
/// The binding is a number and not a reference, so it can still be compared after the hub is destroyed.
@usableFromInline
package struct HubBinding {
    /// The hub's serial number; 0, which no hub has, until the first use.
    @usableFromInline var serial: UInt32 = 0

    @usableFromInline
    init() {}

    /// Whether the object is bound to the calling thread's hub. A fast path needs no other check.
    @inlinable
    var isCurrent: Bool {
        @inline(__always)
        get {
            guard let hub = gevent_hub_current() else { return false }
            return hub.pointee.serial == serial
        }
    }

    /// Returns the calling thread's hub. The first use binds the object to it; later uses throw on other threads.
    @inlinable
    @inline(__always)
    package mutating func hub() throws -> UnsafeMutablePointer<gevent_hub> {
        if let hub = gevent_hub_current(), hub.pointee.serial == serial { return hub }
        return try bindOrThrow()
    }

    /// Returns the hub like ``hub()``, but traps where that would throw: for calls that cannot throw.
    @inlinable
    @inline(__always)
    mutating func requireHub() -> UnsafeMutablePointer<gevent_hub> {
        if let hub = gevent_hub_current(), hub.pointee.serial == serial { return hub }
        return bindOrTrap()
    }

    @usableFromInline
    @inline(never)
    mutating func bindOrThrow() throws -> UnsafeMutablePointer<gevent_hub> {
        guard serial == 0 else { throw HubError.wrongHubError(serial) }
        let hub = try currentHub()
        serial = hub.pointee.serial
        return hub
    }

    @usableFromInline
    @inline(never)
    mutating func bindOrTrap() -> UnsafeMutablePointer<gevent_hub> {
        if serial != 0 { fatalError("\(HubError.wrongHubError(serial))") }
        let hub = GeventCore.requireHub()
        serial = hub.pointee.serial
        return hub
    }
}
