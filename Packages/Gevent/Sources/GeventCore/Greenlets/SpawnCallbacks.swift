internal import CGevent

/// A closure that is called for started greenlets: what ``AnyGreenlet/addSpawnCallback(_:)`` returns.
final class SpawnCallback: Registration {
    fileprivate private(set) var body: ((JoinableGreenlet) -> Void)?
    private let hubSerial: UInt32

    fileprivate init(_ hub: UnsafeMutablePointer<gevent_hub>, _ body: @escaping (JoinableGreenlet) -> Void) {
        self.body = body
        hubSerial = hub.pointee.serial
    }

    override var isActive: Bool { body != nil }

    override func cancel() {
        if body == nil { return }
        let hub = Registration.requireThread(ofHub: hubSerial)
        // Released at the end: what the closure captured may cancel registrations itself.
        let forgotten = body
        body = nil
        if let hub {
            let owner = Hub.of(hub)
            owner.spawnCallbacks.removeAll { $0 === self }
            if owner.spawnCallbacks.isEmpty { hub.pointee.spawn_duties &= ~UInt32(GEVENT_SPAWN_CALLS) }
        }
        withExtendedLifetime(forgotten) {}
    }
}

extension AnyGreenlet {
    /// Calls `callback` with each greenlet of this thread that is started from now on, at once or later: in the call
    /// that starts it, before it is queued, and once for each registration, in no particular order.
    ///
    /// Not when a greenlet is made, and not for raw ones. The callback may end the greenlet, and then it never runs;
    /// one that starts greenlets itself is called for those too. It stays registered until the registration is
    /// cancelled or the thread's hub is destroyed.
    ///
    /// gevent: `Greenlet.add_spawn_callback(callback)`, which is called for every thread's, and
    /// `remove_spawn_callback(callback)`.
    @discardableResult
    @available(*, noasync)
    public static func addSpawnCallback(_ callback: @escaping (JoinableGreenlet) -> Void) -> Registration {
        let hub = requireHub()
        let registration = SpawnCallback(hub, callback)
        Hub.of(hub).spawnCallbacks.append(registration)
        hub.pointee.spawn_duties |= UInt32(GEVENT_SPAWN_CALLS)
        return registration
    }
}

extension JoinableGreenlet {
    /// The duties of a start that ``tellOfStart(_:)`` sees to.
    @inline(__always)
    static var toldOfStarts: UInt32 { UInt32(GEVENT_SPAWN_CALLS | GEVENT_SPAWN_TRACES) }

    @inline(never)
    final func tellOfStart(_ hub: UnsafeMutablePointer<gevent_hub>) {
        let owner = Hub.of(hub)
        owner.switchWatch?.spawned(self)
        // Those of now: a callback may add some, and remove itself or others.
        for callback in owner.spawnCallbacks { callback.body?(self) }
    }
}
