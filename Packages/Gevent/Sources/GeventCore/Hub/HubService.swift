/// Something with threads, descriptors or registrations of its own that lives as long as a hub at most: what watches
/// signals, a monitor, a trace. The hub holds it from ``Hub/addService(_:)`` until it is removed or the hub goes.
package protocol HubService: AnyObject {
    /// The hub is being destroyed: gives back whatever the process or the loop holds for it. On the hub's thread, from
    /// main, before greenlets are ended. Must not park.
    func hubWillClose()

    /// This is a forked child, whose loop has been repaired and knows no descriptor any more: makes anew what a child
    /// does not inherit. On the hub's thread. Must not park.
    func hubDidFork()
}

extension Hub {
    /// The hub's service of this type, made and attached if there is none.
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
