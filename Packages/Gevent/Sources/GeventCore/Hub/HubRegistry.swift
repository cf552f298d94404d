/// The handles of the process's hubs, for operations that concern all threads.
enum HubRegistry {
    private static let table = ForkableMutex<[UInt32: HubHandle]>([:])

    static func add(_ handle: HubHandle, serial: UInt32) { table.withLock { $0[serial] = handle } }
    static func remove(serial: UInt32) { table.withLock { $0[serial] = nil } }

    static func contains(serial: UInt32) -> Bool { table.withLock { $0[serial] != nil } }

    /// Removes all handles but one. Called in a forked child, where only this hub's thread exists; another thread may
    /// have held the lock during the fork.
    static func keepOnly(_ handle: HubHandle, serial: UInt32) {
        table.reset()
        table.withLock { $0 = [serial: handle] }
    }

    static var handles: [(serial: UInt32, handle: HubHandle)] {
        table.withLock { table in table.map { ($0.key, $0.value) } }
    }
}
