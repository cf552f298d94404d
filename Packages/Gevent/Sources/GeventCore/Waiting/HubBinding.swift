public import CGevent

/// Which hub an object belongs to: that of the thread that first uses it. Making the object makes no hub, so it may be
/// a global.
///
/// A number and not a reference: it stays comparable when the hub is gone.
@usableFromInline
package struct HubBinding {
    /// Zero until the first use; no hub has that serial.
    @usableFromInline var serial: UInt32 = 0

    @usableFromInline
    init() {}

    /// Whether the calling thread is the one, as far as that is settled: the whole check of a fast path.
    @inlinable
    var isHere: Bool {
        @inline(__always)
        get {
            guard let hub = gevent_hub_current() else { return false }
            return hub.pointee.serial == serial
        }
    }

    /// This thread's hub. Settles down at the first use; throws on any other thread from then on.
    @inlinable
    @inline(__always)
    package mutating func hub() throws -> UnsafeMutablePointer<gevent_hub> {
        if let hub = gevent_hub_current(), hub.pointee.serial == serial { return hub }
        return try settle()
    }

    /// The same for calls that cannot throw: misuse there is a programming error.
    @inlinable
    @inline(__always)
    mutating func requireHub() -> UnsafeMutablePointer<gevent_hub> {
        if let hub = gevent_hub_current(), hub.pointee.serial == serial { return hub }
        return bindOrTrap()
    }

    @usableFromInline
    @inline(never)
    mutating func settle() throws -> UnsafeMutablePointer<gevent_hub> {
        guard serial == 0 else { throw HubError.notHere(serial) }
        let hub = try currentHub()
        serial = hub.pointee.serial
        return hub
    }

    @usableFromInline
    @inline(never)
    mutating func bindOrTrap() -> UnsafeMutablePointer<gevent_hub> {
        if serial != 0 { fatalError("\(HubError.notHere(serial))") }
        let hub = GeventCore.requireHub()
        serial = hub.pointee.serial
        return hub
    }
}
