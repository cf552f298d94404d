internal import CGevent

/// A closure that is called for each started greenlet. Returned by ``AnyGreenlet/addSpawnCallback(_:)``.
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
        // Released at the end of this function: a `deinit` of a captured object may cancel registrations itself.
        let released = body
        body = nil
        if let hub {
            let owner = Hub.of(hub)
            owner.spawnCallbacks.removeAll { $0 === self }
            if owner.spawnCallbacks.isEmpty { hub.pointee.spawn_flags &= ~UInt32(GEVENT_SPAWN_CALLS) }
        }
        withExtendedLifetime(released) {}
    }
}

extension AnyGreenlet {
    /// Calls `callback` with each greenlet of this thread that is started from now on, with or without a delay. The
    /// call happens inside the call that starts the greenlet, before the greenlet is queued, and once for each
    /// registration, in no particular order.
    ///
    /// Making a greenlet does not call it, and neither do raw greenlets. The callback may end the greenlet, which then
    /// never runs. If the callback starts greenlets, it is called for those too. It stays registered until the
    /// registration is cancelled or the thread's hub is destroyed.
    ///
    /// gevent: `Greenlet.add_spawn_callback(callback)`, which is called for the greenlets of every thread, and
    /// `remove_spawn_callback(callback)`.
    @discardableResult
    @available(*, noasync)
    public static func addSpawnCallback(_ callback: @escaping (JoinableGreenlet) -> Void) -> Registration {
        let hub = requireHub()
        let registration = SpawnCallback(hub, callback)
        Hub.of(hub).spawnCallbacks.append(registration)
        hub.pointee.spawn_flags |= UInt32(GEVENT_SPAWN_CALLS)
        return registration
    }
}

extension JoinableGreenlet {
    /// The spawn duties that `notifyOfStart` handles.
    @inline(__always)
    static var observedStarts: UInt32 { UInt32(GEVENT_SPAWN_CALLS | GEVENT_SPAWN_TRACES) }

    /// Notifies the switch watch and the spawn callbacks that this greenlet is started.
    @inline(never)
    final func notifyOfStart(_ hub: UnsafeMutablePointer<gevent_hub>) {
        let owner = Hub.of(hub)
        owner.switchWatch?.spawned(self)
        // Iterates over a copy: a callback may add callbacks, and remove itself or others.
        for callback in owner.spawnCallbacks { callback.body?(self) }
    }
}
