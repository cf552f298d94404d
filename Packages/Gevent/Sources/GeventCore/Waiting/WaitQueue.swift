public import CGevent

/// Who waits for an object, in the order in which they came. A record of the hub's, taken for the first and kept until
/// the object goes, so that waiting allocates nothing.
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

    /// Linear.
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

    /// How many wait, for descriptions: "", ", 3 waiting". Counted no further than a report would be read.
    var waitingText: String {
        let most = 100
        guard let record else { return "" }
        var count = 0
        var node = record.pointee.list.next
        while let one = node, one != gevent_links_list(record), count < most {
            count += 1
            node = one.pointee.next
        }
        return count == 0 ? "" : count < most ? ", \(count) waiting" : ", \(most) or more waiting"
    }

    /// Adds a link. The node's owner sees to it that it outlives its membership.
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

    /// The object is going away. Whoever waits for it keeps it, so what is linked is closures; or the waits of
    /// greenlets that were abandoned with their stacks.
    @usableFromInline
    mutating func drop(home: HubBinding) {
        guard let record else { return }
        while let link = gevent_links_first(record) {
            gevent_node_unlink(&link.pointee.node)
            if link.pointee.kind == GEVENT_LINK_SOON {
                Unmanaged<CallbackWaiter>.fromOpaque(link.pointee.payload).release()
            }
        }
        gevent_links_release(home.isHere ? gevent_hub_current() : nil, record)
        self.record = nil
    }
}
