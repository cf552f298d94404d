internal import CGevent

/// Greenlets that are parked until the same thing happens. Whatever else ends a wait takes it out of the list.
final class WaiterList {
    private let list: UnsafeMutablePointer<gevent_links>

    init() {
        list = .allocate(capacity: 1)
        list.initialize(to: gevent_links())
        gevent_list_init(&list.pointee.list)
    }

    deinit {
        // Whoever waits holds what the list belongs to, so it is empty.
        list.deallocate()
    }

    var isEmpty: Bool { gevent_list_is_empty(&list.pointee.list) }

    /// Hooks the current context in, as the second step of a wait.
    func hook(_ hub: UnsafeMutablePointer<gevent_hub>) { gevent_wait_set_list(hub, &list.pointee.list) }

    /// Makes all of them ready, in the order in which they came.
    func wakeAll() {
        while let link = gevent_links_first(list) {
            gevent_node_unlink(&link.pointee.node)
            gevent_wait_end(link.pointee.payload.assumingMemoryBound(to: gevent_context.self), UInt8(GEVENT_WAIT_WOKEN))
        }
    }
}
