internal import Synchronization

/// The handles of the process's hubs, for what concerns all threads.
enum LivingHubs {
    private static let table = Mutex<[UInt32: HubHandle]>([:])

    static func add(_ handle: HubHandle, serial: UInt32) { table.withLock { $0[serial] = handle } }
    static func remove(serial: UInt32) { table.withLock { _ = $0.removeValue(forKey: serial) } }

    static var handles: [(serial: UInt32, handle: HubHandle)] {
        table.withLock { $0.map { ($0.key, $0.value) } }
    }
}
