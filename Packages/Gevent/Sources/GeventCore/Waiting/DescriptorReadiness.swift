internal import CGevent
internal import Glibc

/// The readiness of a descriptor for reading or writing, as an object that can be waited for together with others.
///
/// ```swift
/// let (input, finished) = (DescriptorReadiness(0, .read), Event())
/// let ready = try wait([input, finished], count: 1)
/// ```
///
/// The object becomes ready when the kernel reports that a call would not block, when the peer has closed its end, and
/// on an error. Readiness may be spurious: retry on EAGAIN. Any number of greenlets may wait in this way. A greenlet
/// that is parked to read or write the descriptor itself is woken first, and may consume the data.
///
/// The descriptor may be of any kind that the loop can watch. The object does not own it: its owner may close it once
/// the waits have ended. Closing it through the library, by ``WatchedDescriptor`` or a socket, ends the waits with
/// ``LoopError``, EBADF. Belongs to the thread that first waits for it.
///
/// gevent: a watcher of `loop.io(fd, events)`.
public final class DescriptorReadiness: Waitable {
    /// The number of the descriptor.
    public let fileDescriptor: CInt
    /// `.read` or `.write`.
    public let readiness: Readiness
    private var hubBinding = HubBinding()

    /// Creates an object for `readiness`, which is either `.read` or `.write`; any other value is a programming error
    /// and traps. Never parks. The descriptor is not accessed before the first wait.
    public init(_ fileDescriptor: CInt, _ readiness: Readiness) {
        if readiness != .read && readiness != .write {
            fatalError("a DescriptorReadiness is for .read or for .write, not for \(readiness)")
        }
        self.fileDescriptor = fileDescriptor
        self.readiness = readiness
    }

    /// Whether a call would not block. Makes a system call. True if the descriptor is not open: a wait throws at once.
    public var isReady: Bool {
        // control: does not park
        (try? DescriptorTable.isReadyNow(fileDescriptor, readiness)) ?? true
    }

    /// Returns `UInt64.max` if the descriptor is ready; see ``Waitable/readyOrder()``. Throws ``LoopError`` if it is
    /// not open.
    public func readyOrder() throws -> UInt64? {
        _ = try hubBinding.hub()
        return try DescriptorTable.isReadyNow(fileDescriptor, readiness) ? .max : nil
    }

    /// See ``Waitable/enlist(_:)``. Throws ``LoopError`` for a descriptor that the loop cannot watch.
    public func enlist(_ waiter: Enlistment<Void>) throws {
        let hub = Hub.of(try hubBinding.hub())
        guard fileDescriptor >= 0 else {
            throw LoopError(errno: EBADF, operation: "wait for a descriptor", fileDescriptor: fileDescriptor)
        }
        try hub.descriptors.enlist(waiter, fileDescriptor, readiness, hub)
    }

    /// See ``Waitable/withdraw(_:)``.
    public func withdraw(_ waiter: Enlistment<Void>) {
        waiter.leaveList()
        guard fileDescriptor >= 0, hubBinding.isCurrent, let pointer = gevent_hub_current() else { return }
        let hub = Hub.of(pointer)
        guard let entry = hub.descriptors.existing(fileDescriptor) else { return }
        hub.descriptors.releaseUnusedObservers(fileDescriptor, entry)
    }
}

@available(*, unavailable)
extension DescriptorReadiness: Sendable {}

/// The observers of one descriptor: waiters that wait for its readiness through `DescriptorReadiness`.
private final class DescriptorObservers {
    @exclusivity(unchecked) var readers = WaitQueue()
    @exclusivity(unchecked) var writers = WaitQueue()
    private var hubBinding = HubBinding()

    init() throws { _ = try hubBinding.hub() }

    deinit {
        readers.release(hubBinding)
        writers.release(hubBinding)
    }

    static func of(_ entry: UnsafeMutablePointer<gevent_descriptor>) -> DescriptorObservers? {
        entry.pointee.observers.map { Unmanaged<DescriptorObservers>.fromOpaque($0).takeUnretainedValue() }
    }
}

extension DescriptorTable {
    func enlist(
        _ waiter: Enlistment<Void>, _ fileDescriptor: CInt, _ readiness: Readiness, _ hub: Hub
    ) throws {
        let entry = try entry(fileDescriptor)
        try arm(fileDescriptor, entry, readiness)
        let observers = try DescriptorObservers.of(entry) ?? DescriptorObservers()
        if entry.pointee.observers == nil {
            entry.pointee.observers = Unmanaged.passRetained(observers).toOpaque()
            hub.pointer.pointee.descriptor_waiters += 1
        }
        if readiness == .read {
            observers.readers.append(waiter, hub.pointer)
        } else {
            observers.writers.append(waiter, hub.pointer)
        }
    }

    /// Chooses the observers that wait for `readiness`. Returns whether there were any.
    func notifyObservers(
        _ fileDescriptor: CInt, _ entry: UnsafeMutablePointer<gevent_descriptor>, _ readiness: Readiness
    ) -> Bool {
        guard let observers = DescriptorObservers.of(entry) else { return false }
        var hadObservers = false
        while let link = readiness == .read ? observers.readers.first : observers.writers.first {
            EnlistedWaiter.choose(link)
            hadObservers = true
        }
        releaseUnusedObservers(fileDescriptor, entry)
        return hadObservers
    }

    func refuseObservers(_ entry: UnsafeMutablePointer<gevent_descriptor>, _ error: LoopError) {
        guard let observers = DescriptorObservers.of(entry) else { return }
        while let link = observers.readers.first ?? observers.writers.first {
            EnlistedWaiter.choose(link, throwing: error)
        }
        _ = releaseUnused(entry)
    }

    func observedReadiness(_ entry: UnsafeMutablePointer<gevent_descriptor>) -> Readiness {
        guard let observers = DescriptorObservers.of(entry) else { return [] }
        var observed: Readiness = []
        if !observers.readers.isEmpty { observed.insert(.read) }
        if !observers.writers.isEmpty { observed.insert(.write) }
        return observed
    }

    /// Drops the interest once there are no waiters: the owner may close the descriptor without notifying the table.
    func releaseUnusedObservers(_ fileDescriptor: CInt, _ entry: UnsafeMutablePointer<gevent_descriptor>) {
        if releaseUnused(entry) { dropUnused(fileDescriptor) }
    }

    private func releaseUnused(_ entry: UnsafeMutablePointer<gevent_descriptor>) -> Bool {
        guard let observers = DescriptorObservers.of(entry), observedReadiness(entry).isEmpty else { return false }
        entry.pointee.observers = nil
        Unmanaged.passUnretained(observers).release()
        gevent_hub_current()?.pointee.descriptor_waiters -= 1
        return true
    }
}
