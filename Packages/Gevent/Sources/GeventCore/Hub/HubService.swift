/// An object with threads, descriptors or registrations of its own that lives at most as long as a hub: a signal
/// watcher, a monitor, a trace. The hub retains it from ``Hub/addService(_:)`` until it is removed or the hub is
/// destroyed.
package protocol HubService: AnyObject {
    /// Releases the resources that the process or the loop holds for the service. Called when the hub is destroyed, on
    /// its thread, from main, before greenlets are ended. Must not park.
    func hubWillClose()

    /// Recreates the resources that a forked child does not inherit. Called in the child once its loop has been
    /// repaired and has no descriptors registered, on the hub's thread. Must not park.
    func hubDidFork()
}

extension Hub {
    /// Returns the hub's service of this type; makes and attaches one if there is none.
    package func service<Service: HubService>(orAdd make: () throws -> Service) rethrows -> Service {
        if let service = existingService(Service.self) { return service }
        let service = try make()
        addService(service)
        return service
    }

    package func existingService<Service: HubService>(_ type: Service.Type) -> Service? {
        for case let service as Service in services { return service }
        return nil
    }
}
