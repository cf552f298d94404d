public import CGevent

/// The waiters of an object, in the order of their arrival. The list is a record from the hub's pool, taken for the
/// first waiter and released with the object, so that waiting allocates nothing.
@usableFromInline
package struct WaitQueue {
    @usableFromInline var record: UnsafeMutablePointer<gevent_links>?

    @usableFromInline
    init() {}

    @inlinable
    package var isEmpty: Bool {
        @inline(__always)
        get {
            guard let record else { return true }
            return gevent_list_is_empty(&record.pointee.list)
        }
    }

    @inlinable
    var first: UnsafeMutablePointer<gevent_link>? {
        @inline(__always)
        get {
            guard let record else { return nil }
            return gevent_links_first(record)
        }
    }

    /// The number of waiters. Linear.
    var count: Int {
        guard let record else { return 0 }
        var count = 0
        var node = record.pointee.list.next
        while let one = node, one != gevent_links_list(record) {
            count += 1
            node = one.pointee.next
        }
        return count
    }

    /// The number of waiters for descriptions: "" or ", 3 waiting". Counts to 100 at most, to keep reports cheap.
    var waitingText: String {
        let limit = 100
        guard let record else { return "" }
        var count = 0
        var node = record.pointee.list.next
        while let one = node, one != gevent_links_list(record), count < limit {
            count += 1
            node = one.pointee.next
        }
        return count == 0 ? "" : count < limit ? ", \(count) waiting" : ", \(limit) or more waiting"
    }

    /// Adds a link. The owner of the link keeps it in memory until it is unlinked.
    @inline(__always)
    mutating func append(
        _ link: UnsafeMutablePointer<gevent_link>, kind: Int, payload: UnsafeMutableRawPointer?,
        _ hub: UnsafeMutablePointer<gevent_hub>
    ) {
        link.pointee.kind = UInt32(kind)
        link.pointee.payload = payload
        gevent_list_append(gevent_links_list(ensureRecord(hub)), &link.pointee.node)
    }

    @inline(__always)
    mutating func ensureRecord(_ hub: UnsafeMutablePointer<gevent_hub>) -> UnsafeMutablePointer<gevent_links> {
        if let record { return record }
        let taken = gevent_links_take(hub)!
        record = taken
        return taken
    }

    /// Unlinks all waiters and releases the record, when the object is deallocated. A waiting greenlet retains the
    /// object, so the links left are those of callbacks, and of greenlets that were abandoned with their stacks.
    @usableFromInline
    mutating func release(_ hubBinding: HubBinding) {
        guard let record else { return }
        while let link = gevent_links_first(record) {
            gevent_node_unlink(&link.pointee.node)
            if link.pointee.kind == GEVENT_LINK_CALLBACK {
                Unmanaged<CallbackWaiter>.fromOpaque(link.pointee.payload).release()
            }
        }
        gevent_links_release(hubBinding.isCurrent ? gevent_hub_current() : nil, record)
        self.record = nil
    }
}
