internal import CGevent
internal import Synchronization

/// The handles of the process's hubs, for what concerns all threads.
final class LivingHubs: Sendable {
    private static let shared = LivingHubs()

    private let table = Mutex<[UInt32: HubHandle]>([:])

    private func withTable<Value>(_ body: (inout sending [UInt32: HubHandle]) -> sending Value) -> Value {
        let object = UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
        return table.withLock { table in
            gevent_annotate_acquire(object)
            defer { gevent_annotate_release(object) }
            return body(&table)
        }
    }

    static func add(_ handle: HubHandle, serial: UInt32) { shared.withTable { $0[serial] = handle } }
    static func remove(serial: UInt32) { shared.withTable { $0[serial] = nil } }

    static var handles: [(serial: UInt32, handle: HubHandle)] {
        shared.withTable { table in table.map { ($0.key, $0.value) } }
    }
}
