internal import CGevent

/// The registration of a closure that is told of started greenlets: what ``AnyGreenlet/addSpawnCallback(_:)`` returns.
public final class SpawnCallback {
    fileprivate var body: ((JoinableGreenlet) -> Void)?

    fileprivate init(_ body: @escaping (JoinableGreenlet) -> Void) { self.body = body }
}

@available(*, unavailable)
extension SpawnCallback: Sendable {}

extension AnyGreenlet {
    /// Calls `callback` with each greenlet of this thread that is started from now on, at once or later: in the call
    /// that starts it, before it is queued, and once for each registration, in no particular order.
    ///
    /// Not when a greenlet is made, and not for raw ones. The callback may end the greenlet, and then it never runs;
    /// one that starts greenlets itself is called for those too. Until it is removed it is kept, by this thread's hub.
    ///
    /// gevent: `Greenlet.add_spawn_callback(callback)`, which is told of every thread's.
    @discardableResult
    @available(*, noasync)
    public static func addSpawnCallback(_ callback: @escaping (JoinableGreenlet) -> Void) -> SpawnCallback {
        let hub = requireHub()
        let registration = SpawnCallback(callback)
        Hub.of(hub).spawnCallbacks.append(registration)
        hub.pointee.spawn_duties |= UInt32(GEVENT_SPAWN_CALLS)
        return registration
    }

    /// Removes a registration. One that was removed before is fine.
    ///
    /// gevent: `Greenlet.remove_spawn_callback(callback)`.
    @available(*, noasync)
    public static func removeSpawnCallback(_ callback: SpawnCallback) {
        // What the closure captured goes at the end: it may remove registrations itself.
        let forgotten = callback.body
        defer { withExtendedLifetime(forgotten) {} }
        callback.body = nil
        guard let hub = gevent_hub_current() else { return }
        let owner = Hub.of(hub)
        owner.spawnCallbacks.removeAll { $0 === callback }
        if owner.spawnCallbacks.isEmpty { hub.pointee.spawn_duties &= ~UInt32(GEVENT_SPAWN_CALLS) }
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
