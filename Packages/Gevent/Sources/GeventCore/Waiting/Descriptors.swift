// Waits for descriptors: a table indexed by descriptor number, one reader and one writer each, and lazy interest.

package import CGevent
internal import Glibc

/// The waiters of each descriptor, and the interest that is registered with the loop.
///
/// Interest is lazy: it stays registered after a wait. It is dropped when an event arrives for which there is no
/// waiter, before the descriptor is closed, and after a wait for a descriptor of another owner. So a connection that
/// reads repeatedly is registered only once.
package final class DescriptorTable {
    private static let chunkSize = 1024

    private let loop: any Loop

    /// The hub whose loop watches the descriptors; nil once it is destroyed.
    // Unchecked exclusivity, here and below: every wait accesses these, and no switch can happen during an access.
    @exclusivity(unchecked) private var hub: UnsafeMutablePointer<gevent_hub>?

    /// The chunks of the table. They never move, since parked contexts point into them.
    @exclusivity(unchecked) private var chunks: [UnsafeMutablePointer<gevent_descriptor>?] = []

    init(_ hub: UnsafeMutablePointer<gevent_hub>, _ loop: any Loop) {
        self.hub = hub
        self.loop = loop
    }

    /// Called when the hub is destroyed. The table is unusable afterwards.
    func close() { hub = nil }

    /// Whether the hub exists and belongs to the calling thread. Callers check this once per call, since a greenlet
    /// never changes its thread; the other functions of the table do not check it.
    @inline(__always)
    var isUsable: Bool { hub != nil && gevent_hub_current() == hub }

    /// Throws ``HubError`` unless the table is usable.
    @inline(__always)
    func checkThread() throws {
        if !isUsable { throw reasonNotUsable }
    }

    private var reasonNotUsable: HubError {
        @inline(never) get { hub == nil ? .destroyed : .wrongThread }
    }

    deinit {
        for chunk in chunks { chunk?.deallocate() }
    }

    @inline(__always)
    package func existing(_ fileDescriptor: CInt) -> UnsafeMutablePointer<gevent_descriptor>? {
        let (chunk, index) = Int(fileDescriptor).quotientAndRemainder(dividingBy: DescriptorTable.chunkSize)
        guard chunk < chunks.count, let base = chunks[chunk] else { return nil }
        return base + index
    }

    /// Returns the entry of a descriptor, which must not be negative; creates it if there is none.
    ///
    /// The table grows only for open descriptors, so the limit on open descriptors bounds its size. A number that would
    /// make it grow and is not open throws EBADF, so a bad number costs no memory.
    func entry(_ fileDescriptor: CInt) throws(LoopError) -> UnsafeMutablePointer<gevent_descriptor> {
        if let entry = existing(fileDescriptor) { return entry }
        if fcntl(fileDescriptor, F_GETFD) < 0 {
            throw LoopError(errno: EBADF, operation: "wait for a descriptor", fileDescriptor: fileDescriptor)
        }
        let (chunk, index) = Int(fileDescriptor).quotientAndRemainder(dividingBy: DescriptorTable.chunkSize)
        while chunks.count <= chunk { chunks.append(nil) }
        let base = UnsafeMutablePointer<gevent_descriptor>.allocate(capacity: DescriptorTable.chunkSize)
        base.initialize(repeating: gevent_descriptor(), count: DescriptorTable.chunkSize)
        chunks[chunk] = base
        return base + index
    }

    /// Wakes the waiters of an event, and drops interest that has no waiter.
    ///
    /// A greenlet that was woken but has not run yet keeps its interest. When many are ready, the hub polls between
    /// them, and would otherwise drop and renew each registration, at two system calls per wait. The event does not end
    /// a wait that began after `waitCutoff`, and that wait keeps its interest.
    @inline(__always)
    func distribute(_ event: ReadyEvent, _ waitCutoff: Int64) {
        // The event is stale if the number was closed and reopened after the event was collected.
        guard let entry = existing(event.fileDescriptor), entry.pointee.generation == event.generation else { return }
        if event.readiness.isEmpty { return rearm(event.fileDescriptor, entry) }
        var woken = Readiness(rawValue: entry.pointee.woken)
        var unwanted = Readiness()
        if event.readiness.contains(.read) {
            if let reader = entry.pointee.reader {
                if reader.pointee.wait_since <= waitCutoff {
                    woken.insert(.read)
                    gevent_wait_end(reader, UInt8(GEVENT_WAIT_WOKEN))
                }
            } else if let watch = entry.pointee.watch {
                // A descriptor of the library's own, which has no other waiters.
                return Unmanaged<DescriptorWatch>.fromOpaque(watch).takeUnretainedValue().becameReadable()
            } else if !woken.contains(.read), !notifyObservers(event.fileDescriptor, entry, .read) {
                unwanted.insert(.read)
            }
        }
        if event.readiness.contains(.write) {
            if let writer = entry.pointee.writer {
                if writer.pointee.wait_since <= waitCutoff {
                    woken.insert(.write)
                    gevent_wait_end(writer, UInt8(GEVENT_WAIT_WOKEN))
                }
            } else if !woken.contains(.write), !notifyObservers(event.fileDescriptor, entry, .write) {
                unwanted.insert(.write)
            }
        }
        entry.pointee.woken = woken.rawValue
        let armed = Readiness(rawValue: entry.pointee.armed)
        if !armed.isDisjoint(with: unwanted) {
            disarm(event.fileDescriptor, entry, keeping: armed.subtracting(unwanted))
        }
    }

    func arm(
        _ fileDescriptor: CInt, _ entry: UnsafeMutablePointer<gevent_descriptor>, _ readiness: Readiness
    ) throws(LoopError) {
        let armed = Readiness(rawValue: entry.pointee.armed)
        if armed.isSuperset(of: readiness) { return }
        // A forked child must recover its loop before it registers interest.
        if let hub, hub.pointee.is_forked { try Hub.of(hub).recoverFromFork() }
        let wanted = armed.union(readiness)
        do throws(LoopError) {
            try loop.setInterest(wanted, for: fileDescriptor, generation: entry.pointee.generation)
        } catch {
            // The loop now watches the descriptor in neither direction.
            fail(entry, error)
            throw error
        }
        entry.pointee.armed = wanted.rawValue
    }

    /// Resets the entry of a number that has just been opened, if the entry still has interest and no waiter. The
    /// previous owner may have closed the number without notifying the table, which removed the kernel's interest.
    func forget(_ fileDescriptor: CInt) {
        guard let entry = dropUnused(fileDescriptor) else { return }
        entry.pointee.generation &+= 1
        entry.pointee.woken = 0
    }

    /// Drops the loop's interest in a descriptor that has no waiters. Returns its entry if there was interest.
    @discardableResult
    func dropUnused(_ fileDescriptor: CInt) -> UnsafeMutablePointer<gevent_descriptor>? {
        guard fileDescriptor >= 0, let entry = existing(fileDescriptor), entry.pointee.armed != 0,
            entry.pointee.reader == nil, entry.pointee.writer == nil, entry.pointee.observers == nil
        else { return nil }
        disarm(fileDescriptor, entry, keeping: [])
        return entry
    }

    private func disarm(
        _ fileDescriptor: CInt, _ entry: UnsafeMutablePointer<gevent_descriptor>, keeping: Readiness
    ) {
        entry.pointee.armed = keeping.rawValue
        // A forked child must not change the parent's loop, and its own loop starts without registrations.
        if let hub, hub.pointee.is_forked { return }
        do throws(LoopError) {
            try loop.setInterest(keeping, for: fileDescriptor, generation: entry.pointee.generation)
        } catch {
            // Removing all interest does not fail. Keeping one direction may; its waiter must receive the error.
            fail(entry, error)
        }
    }

    /// Delivers an error to the waiters of a descriptor that the loop has stopped watching because of that error.
    private func fail(_ entry: UnsafeMutablePointer<gevent_descriptor>, _ error: LoopError) {
        entry.pointee.armed = 0
        deliver(error, to: entry)
        if let watch = entry.pointee.watch {
            Unmanaged<DescriptorWatch>.fromOpaque(watch).takeUnretainedValue().registrationFailed(error)
        }
    }

    /// Delivers an error to the waiters of the descriptor. The error is created only if there are any.
    private func deliver(_ error: @autoclosure () -> LoopError, to entry: UnsafeMutablePointer<gevent_descriptor>) {
        if let reader = entry.pointee.reader { throwError(error(), into: reader) }
        if let writer = entry.pointee.writer { throwError(error(), into: writer) }
        if entry.pointee.observers != nil { refuseObservers(entry, error()) }
    }

    private func throwError(_ error: LoopError, into waiter: UnsafeMutablePointer<gevent_context>) {
        Unmanaged<AnyGreenlet>.fromOpaque(waiter.pointee.owner).takeUnretainedValue().deliver(error)
    }

    /// Registers all interest that still has waiters with a recovered loop, which has no registrations.
    func rearmAll() {
        for (chunk, base) in chunks.enumerated() {
            guard let base else { continue }
            for index in 0..<DescriptorTable.chunkSize where base[index].armed != 0 {
                rearm(CInt(chunk * DescriptorTable.chunkSize + index), base + index)
            }
        }
    }

    /// Registers the interest that still has waiters with a loop that has lost the registration. If that fails, the
    /// waiters receive the error.
    private func rearm(_ fileDescriptor: CInt, _ entry: UnsafeMutablePointer<gevent_descriptor>) {
        var wanted: Readiness = []
        if entry.pointee.reader != nil || entry.pointee.watch != nil { wanted.insert(.read) }
        if entry.pointee.writer != nil { wanted.insert(.write) }
        wanted.formUnion(observedReadiness(entry))
        entry.pointee.armed = 0
        if wanted.isEmpty { return }
        do throws(LoopError) {
            try arm(fileDescriptor, entry, wanted)
        } catch {
            // `arm` has delivered the error to the waiters.
        }
    }

    // MARK: Waiting

    /// Parks until `fileDescriptor` is ready, or for at most `timeout`; returns whether it became ready.
    func wait(for readiness: Readiness, of fileDescriptor: CInt, timeout: Duration?) throws -> Bool {
        guard let hub else { throw HubError.destroyed }
        guard fileDescriptor >= 0 else {
            throw LoopError(errno: EBADF, operation: "wait for a descriptor", fileDescriptor: fileDescriptor)
        }
        if let timeout, timeout <= .zero { return try Self.isReadyNow(fileDescriptor, readiness) }
        try checkPending(hub)
        let entry = try entry(fileDescriptor)
        let isRead = readiness == .read
        guard (isRead ? entry.pointee.reader : entry.pointee.writer) == nil else {
            throw HubError(
                .concurrentUse,
                "descriptor \(fileDescriptor): another greenlet waits to \(isRead ? "read" : "write") it already")
        }
        try arm(fileDescriptor, entry, readiness)
        if let timeout { armTimeout(timeout, hub.pointee.current, hub) }
        gevent_wait_set_slot(hub, isRead ? gevent_descriptor_reader(entry) : gevent_descriptor_writer(entry))
        defer { entry.pointee.woken &= ~readiness.rawValue }
        return try GeventCore.wait(
            hub, isRead ? .readable : .writable, UnsafeRawPointer(bitPattern: UInt(fileDescriptor)))
    }

    /// Polls the descriptor without waiting.
    static func isReadyNow(_ fileDescriptor: CInt, _ readiness: Readiness) throws -> Bool {
        var query = pollfd(fd: fileDescriptor, events: Int16(readiness == .read ? POLLIN : POLLOUT), revents: 0)
        while Glibc.poll(&query, 1, 0) < 0 {
            guard errno == EINTR else {
                throw LoopError(errno: errno, operation: "poll", fileDescriptor: fileDescriptor)
            }
        }
        if query.revents & Int16(POLLNVAL) != 0 {
            throw LoopError(errno: EBADF, operation: "poll", fileDescriptor: fileDescriptor)
        }
        return query.revents != 0
    }

    /// Wakes the waiters for `readiness`. Their own system calls find out whether the descriptor is ready.
    func wake(_ readiness: Readiness, of fileDescriptor: CInt) {
        guard fileDescriptor >= 0, let entry = existing(fileDescriptor) else { return }
        if readiness.contains(.read), let reader = entry.pointee.reader {
            gevent_wait_end(reader, UInt8(GEVENT_WAIT_WOKEN))
        }
        if readiness.contains(.write), let writer = entry.pointee.writer {
            gevent_wait_end(writer, UInt8(GEVENT_WAIT_WOKEN))
        }
        for direction in [.read, .write] as [Readiness] where readiness.contains(direction) {
            _ = notifyObservers(fileDescriptor, entry, direction)
        }
    }

    /// Called before the descriptor is closed: drops the loop's interest and delivers EBADF to the waiters.
    func willClose(_ fileDescriptor: CInt) {
        guard fileDescriptor >= 0, let entry = existing(fileDescriptor) else { return }
        if entry.pointee.armed != 0 { disarm(fileDescriptor, entry, keeping: []) }
        entry.pointee.generation &+= 1
        entry.pointee.woken = 0
        deliver(
            LoopError(
                .closed, errno: EBADF, operation: "wait for a descriptor", fileDescriptor: fileDescriptor,
                message: "closed in another greenlet"), to: entry)
    }
}

/// A file descriptor for repeated waits, which this object owns and closes: the base of sockets.
///
/// Confined to the thread of the hub on which it was created: on other threads its calls throw ``HubError`` with
/// `.wrongThread`, and with `.destroyed` once that hub is destroyed. At most one greenlet reads and one writes at a
/// time.
public final class WatchedDescriptor {
    private let table: DescriptorTable
    /// The descriptor, or -1 once it is closed or detached.
    public var fileDescriptor: CInt { number }
    // Separate stored properties, here and below: code in other modules would check exclusivity on each access.
    @exclusivity(unchecked) private var number: CInt

    /// Whether the latest read returned less than it asked for, so that the kernel's buffer was empty. For `GeventIO`.
    @_spi(GeventInternals)
    public var isDrained: Bool {
        get { hasReadAll }
        set { hasReadAll = newValue }
    }
    @exclusivity(unchecked) private var hasReadAll = false

    /// A closure called before a greenlet parks to read; if it throws, the greenlet does not park. For `GeventIO`.
    @_spi(GeventInternals)
    @exclusivity(unchecked) public var beforeWaitingToRead: (() throws -> Void)?

    /// Takes ownership of `fileDescriptor`: ``close()`` closes it, or the deallocation of the object.
    ///
    /// The descriptor must be non-blocking. Creates the thread's hub if there is none, and throws the errors of that.
    public init(_ fileDescriptor: CInt) throws {
        table = Hub.of(try currentHub()).descriptors
        number = fileDescriptor
        table.forget(fileDescriptor)
    }

    deinit {
        // A waiting greenlet retains the object, so none is waiting.
        if fileDescriptor >= 0 { closeNow() }
    }

    /// Parks until a read would not block, or for at most `timeout`. Returns whether the descriptor became ready.
    ///
    /// Readiness may be spurious: retry on EAGAIN. Throws ``LoopError`` with EBADF if the descriptor is closed before
    /// or during the wait; ``HubError`` with `.concurrentUse` if another greenlet waits to read; and an error delivered
    /// to the greenlet meanwhile.
    @available(*, noasync)
    public func waitReadable(timeout: Duration? = nil) throws -> Bool {
        try checkThread()
        return try wait(for: .read, timeout: timeout)
    }

    /// Parks until a write would not block; otherwise like ``waitReadable(timeout:)``.
    @available(*, noasync)
    public func waitWritable(timeout: Duration? = nil) throws -> Bool {
        try checkThread()
        return try wait(for: .write, timeout: timeout)
    }

    /// Parks until the descriptor is ready. The caller has checked the thread.
    package func wait(for readiness: Readiness, timeout: Duration?) throws -> Bool {
        try table.wait(for: readiness, of: fileDescriptor, timeout: timeout)
    }

    /// Whether `greenlet` is parked until a read would not block. False from the moment it is woken.
    @_spi(GeventInternals)
    public func isReader(_ greenlet: AnyGreenlet) -> Bool {
        guard fileDescriptor >= 0, table.isUsable, let reader = table.existing(fileDescriptor)?.pointee.reader else {
            return false
        }
        return reader == greenlet.context
    }

    /// Ends the waits for `readiness` as if the descriptor had become ready. Never parks.
    ///
    /// For changes that the kernel does not report: shutting down a Unix socket for writing wakes no greenlet that is
    /// parked to write to it.
    @_spi(GeventInternals)
    public func wake(_ readiness: Readiness) throws {
        try checkThread()
        table.wake(readiness, of: fileDescriptor)
    }

    /// Closes the descriptor. Its waiters receive ``LoopError`` with EBADF. Repeatable. Never parks.
    public func close() throws {
        try checkThread()
        if fileDescriptor >= 0 { closeNow() }
    }

    /// Releases the descriptor without closing it, and returns it. Its waiters receive ``LoopError`` with EBADF.
    public func detach() throws -> CInt {
        try checkThread()
        defer { number = -1 }
        table.willClose(fileDescriptor)
        return fileDescriptor
    }

    /// Throws unless the calling thread is the hub's.
    @_spi(GeventInternals)
    public func checkThread() throws { try table.checkThread() }

    private func closeNow() {
        // A destroyed hub has closed its loop, so there is no interest to drop.
        if table.isUsable { table.willClose(fileDescriptor) }
        // After EINTR the descriptor is closed on Linux; a retry could close a new descriptor with the same number.
        _ = Glibc.close(fileDescriptor)
        number = -1
    }
}

@available(*, unavailable)
extension WatchedDescriptor: Sendable {}

/// Parks until `fileDescriptor` is readable. The descriptor may be of any kind and have any owner, such as a C library.
///
/// Throws `error`, or a ``Timeout``, when `timeout` expires; ``LoopError`` for a bad or unpollable descriptor;
/// ``HubError`` with `.concurrentUse` if another greenlet waits to read it; and an error delivered to the greenlet
/// meanwhile. The loop drops the descriptor at the end of the wait, so its owner may close it then.
///
/// gevent: `gevent.socket.wait_read(fileno, timeout, timeout_exc)`.
@available(*, noasync)
public func waitRead(_ fileDescriptor: CInt, timeout: Duration? = nil, throwing error: (any Error)? = nil) throws {
    try waitOnce(fileDescriptor, .read, timeout, error)
}

/// Parks until `fileDescriptor` is writable; otherwise like ``waitRead(_:timeout:throwing:)``.
///
/// gevent: `gevent.socket.wait_write(fileno, timeout, timeout_exc)`.
@available(*, noasync)
public func waitWrite(_ fileDescriptor: CInt, timeout: Duration? = nil, throwing error: (any Error)? = nil) throws {
    try waitOnce(fileDescriptor, .write, timeout, error)
}

private func waitOnce(
    _ fileDescriptor: CInt, _ readiness: Readiness, _ timeout: Duration?, _ error: (any Error)?
) throws {
    let table = Hub.of(try currentHub()).descriptors
    // The owner may close the descriptor without notifying the table, so no interest may remain.
    defer { table.dropUnused(fileDescriptor) }
    if try !table.wait(for: readiness, of: fileDescriptor, timeout: timeout) { throw error ?? Timeout(timeout) }
}
