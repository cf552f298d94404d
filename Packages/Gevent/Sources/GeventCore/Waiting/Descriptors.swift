// Waiting for descriptors: a flat table by number, one reader and one writer each, and lazy interest.

internal import CGevent
internal import Glibc

/// Who waits on which descriptor, and what the loop was asked to watch.
///
/// Interest is lazy: it stays armed after a wait and is dropped when an event arrives that nobody wants, so a
/// connection that reads again and again costs one registration in its life.
final class DescriptorTable {
    private static let chunkSize = 1024

    private let loop: any Loop

    /// The hub whose loop watches the descriptors; nil once it is destroyed.
    // Unchecked exclusivity, here and below: no access can be switched away from, and every wait makes some.
    @exclusivity(unchecked) private var hub: UnsafeMutablePointer<gevent_hub>?

    /// Chunks never move, since parked contexts point into them.
    @exclusivity(unchecked) private var chunks: [UnsafeMutablePointer<gevent_descriptor>?] = []

    init(_ hub: UnsafeMutablePointer<gevent_hub>, _ loop: any Loop) {
        self.hub = hub
        self.loop = loop
    }

    /// The hub is destroyed. From here on the table is not usable.
    func close() { hub = nil }

    /// Whether the hub exists and is the calling thread's. Callers ask once per call, since a greenlet never changes
    /// thread; nothing else here asks.
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
    func existing(_ fileDescriptor: CInt) -> UnsafeMutablePointer<gevent_descriptor>? {
        let (chunk, index) = Int(fileDescriptor).quotientAndRemainder(dividingBy: DescriptorTable.chunkSize)
        guard chunk < chunks.count, let base = chunks[chunk] else { return nil }
        return base + index
    }

    /// The entry of a descriptor that is not negative, made if there is none.
    ///
    /// The table grows only for a number that is open, which the limit on open descriptors bounds: throws EBADF for
    /// others, so that a bad number costs no memory.
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

    /// Wakes the waiters an event is for, and drops the interest nobody has any more.
    ///
    /// Who was woken and has not run yet still has its interest: when many are ready the hub polls between them, and
    /// would otherwise drop and renew the registration of each, two system calls per wait. A wait that began after
    /// `latestWait` is left alone, and its interest too.
    @inline(__always)
    func distribute(_ event: ReadyEvent, _ latestWait: Int64) {
        // Of an earlier life of this number, closed and opened again since the event was collected.
        guard let entry = existing(event.fileDescriptor), entry.pointee.generation == event.generation else { return }
        if event.readiness.isEmpty { return rearm(event.fileDescriptor, entry) }
        var woken = Readiness(rawValue: entry.pointee.woken)
        var unwanted = Readiness()
        if event.readiness.contains(.read) {
            if let reader = entry.pointee.reader {
                if reader.pointee.wait_since <= latestWait {
                    woken.insert(.read)
                    gevent_wait_end(reader, UInt8(GEVENT_WAIT_WOKEN))
                }
            } else if let watch = entry.pointee.watch {
                // One of the library's own, on which nobody else waits.
                return Unmanaged<DescriptorWatch>.fromOpaque(watch).takeUnretainedValue().becameReadable()
            } else if !woken.contains(.read), !notifyObservers(event.fileDescriptor, entry, .read) {
                unwanted.insert(.read)
            }
        }
        if event.readiness.contains(.write) {
            if let writer = entry.pointee.writer {
                if writer.pointee.wait_since <= latestWait {
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
        // In a child, the loop must not be told before it is the child's own.
        if let hub, hub.pointee.is_forked { try Hub.of(hub).recoverFromFork() }
        let wanted = armed.union(readiness)
        do throws(LoopError) {
            try loop.setInterest(wanted, for: fileDescriptor, generation: entry.pointee.generation)
        } catch {
            // The loop watches it in neither direction now.
            fail(entry, error)
            throw error
        }
        entry.pointee.armed = wanted.rawValue
    }

    /// Forgets what is known of a number that has just been opened: whoever had it before may have closed it without a
    /// word to us, and the kernel's interest went with it.
    func forget(_ fileDescriptor: CInt) {
        guard let entry = dropUnused(fileDescriptor) else { return }
        entry.pointee.generation &+= 1
        entry.pointee.woken = 0
    }

    /// Drops the loop's interest in a descriptor for which no greenlet waits. Returns its entry if there was interest.
    @discardableResult
    func dropUnused(_ fileDescriptor: CInt) -> UnsafeMutablePointer<gevent_descriptor>? {
        guard fileDescriptor >= 0, let entry = existing(fileDescriptor), entry.pointee.armed != 0,
            entry.pointee.reader == nil, entry.pointee.writer == nil, entry.pointee.observers == nil
        else { return nil }
        disarm(fileDescriptor, entry, keeping: [])
        return entry
    }

    func disarm(
        _ fileDescriptor: CInt, _ entry: UnsafeMutablePointer<gevent_descriptor>, keeping: Readiness
    ) {
        entry.pointee.armed = keeping.rawValue
        // The parent's loop is not ours to change, and our own will begin without any registration.
        if let hub, hub.pointee.is_forked { return }
        do throws(LoopError) {
            try loop.setInterest(keeping, for: fileDescriptor, generation: entry.pointee.generation)
        } catch {
            // Removing interest does not fail. Keeping a part of it may: the waiter in that direction must learn of it.
            fail(entry, error)
        }
    }

    /// The loop does not watch the descriptor any more, for this reason: the waiters are thrown it.
    private func fail(_ entry: UnsafeMutablePointer<gevent_descriptor>, _ error: LoopError) {
        entry.pointee.armed = 0
        deliver(error, to: entry)
        if let watch = entry.pointee.watch {
            Unmanaged<DescriptorWatch>.fromOpaque(watch).takeUnretainedValue().registrationFailed(error)
        }
    }

    /// Throws an error, which is made only then, into the greenlets that wait for the descriptor.
    private func deliver(_ error: @autoclosure () -> LoopError, to entry: UnsafeMutablePointer<gevent_descriptor>) {
        if let reader = entry.pointee.reader { throwError(error(), into: reader) }
        if let writer = entry.pointee.writer { throwError(error(), into: writer) }
        if entry.pointee.observers != nil { refuseObservers(entry, error()) }
    }

    private func throwError(_ error: LoopError, into waiter: UnsafeMutablePointer<gevent_context>) {
        Unmanaged<AnyGreenlet>.fromOpaque(waiter.pointee.owner).takeUnretainedValue().deliver(error)
    }

    /// Tells a loop that has been recovered, and so has no registrations, what is still waited for.
    func rearmAll() {
        for (chunk, base) in chunks.enumerated() {
            guard let base else { continue }
            for index in 0..<DescriptorTable.chunkSize where base[index].armed != 0 {
                rearm(CInt(chunk * DescriptorTable.chunkSize + index), base + index)
            }
        }
    }

    /// Registers what is still waited for with a loop that has lost the registration. If it cannot be registered again,
    /// the waiters are thrown the reason.
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
            // Delivered to the waiters.
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

    /// Looks without waiting.
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

    /// Whoever waits for `readiness` finds out by their own system call whether it is there.
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

    /// The descriptor is about to be closed: the loop forgets it, and who waits on it is thrown EBADF.
    func closing(_ fileDescriptor: CInt) {
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

/// A file descriptor that is waited on again and again, and closed through this object: the base of sockets.
///
/// Confined to the thread of the hub it was made on: elsewhere its calls throw ``HubError`` with `.wrongThread`, and
/// with `.destroyed` once that hub is gone. At most one greenlet reads and one writes at a time.
public final class WatchedDescriptor {
    private let table: DescriptorTable
    /// The number, or -1 once it is closed.
    public var fileDescriptor: CInt { number }
    // Properties of their own, here and below: code in another module would check the exclusivity of each access.
    @exclusivity(unchecked) private var number: CInt

    /// The latest read got less than it had room for, so the kernel's buffer was empty then. For `GeventIO`.
    @_spi(GeventInternals)
    public var isDrained: Bool {
        get { hasReadAll }
        set { hasReadAll = newValue }
    }
    @exclusivity(unchecked) private var hasReadAll = false

    /// Called before a greenlet parks to read, and may throw into it instead. For `GeventIO`.
    @_spi(GeventInternals)
    @exclusivity(unchecked) public var beforeWaitingToRead: (() throws -> Void)?

    /// Takes `fileDescriptor` over: it will be closed by ``close()``, or when the object goes.
    ///
    /// The caller has set it non-blocking. Makes the thread's hub if there is none and throws what that throws.
    public init(_ fileDescriptor: CInt) throws {
        table = Hub.of(try currentHub()).descriptors
        number = fileDescriptor
        table.forget(fileDescriptor)
    }

    deinit {
        // Whoever waits holds the object, so nobody does.
        if fileDescriptor >= 0 { closeNow() }
    }

    /// Parks until a read would not block, or for at most `timeout`; returns whether it became ready.
    ///
    /// Readiness may be spurious: retry on EAGAIN. Throws ``LoopError`` with EBADF when it is closed, also while
    /// waiting; ``HubError`` with `.concurrentUse` if another greenlet waits to read; and what interrupts the greenlet.
    @available(*, noasync)
    public func waitReadable(timeout: Duration? = nil) throws -> Bool {
        try checkThread()
        return try wait(for: .read, timeout: timeout)
    }

    /// Parks until a write would not block; otherwise as ``waitReadable(timeout:)``.
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

    /// Ends the waits for `readiness` as if it had come. Never parks.
    ///
    /// For changes that the kernel does not report: shutting a Unix socket down for writing wakes nobody who waits for
    /// room in it.
    @_spi(GeventInternals)
    public func wake(_ readiness: Readiness) throws {
        try checkThread()
        table.wake(readiness, of: fileDescriptor)
    }

    /// Closes the descriptor. Greenlets that wait on it are thrown ``LoopError`` with EBADF. Repeatable. Never parks.
    public func close() throws {
        try checkThread()
        if fileDescriptor >= 0 { closeNow() }
    }

    /// Gives the descriptor up without closing it. Greenlets that wait on it are thrown ``LoopError`` with EBADF.
    public func detach() throws -> CInt {
        try checkThread()
        defer { number = -1 }
        table.closing(fileDescriptor)
        return fileDescriptor
    }

    /// Throws unless the calling thread is the hub's.
    @_spi(GeventInternals)
    public func checkThread() throws { try table.checkThread() }

    private func closeNow() {
        // A hub that is gone has closed its loop, so nothing is left to forget.
        if table.isUsable { table.closing(fileDescriptor) }
        // EINTR leaves the descriptor closed on Linux; retrying could close somebody else's.
        _ = Glibc.close(fileDescriptor)
        number = -1
    }
}

@available(*, unavailable)
extension WatchedDescriptor: Sendable {}

/// Parks until `fileDescriptor`, of whatever kind and owner, is readable: the key to C libraries that own their
/// descriptors.
///
/// Throws `error`, or a ``Timeout``, when `timeout` is over; ``LoopError`` for a bad or unpollable descriptor;
/// ``HubError`` with `.concurrentUse` if another greenlet waits to read it; and what interrupts the greenlet. The loop
/// forgets the descriptor when the wait is over, so its owner may close it then.
///
/// gevent: `gevent.socket.wait_read(fileno, timeout, timeout_exc)`.
@available(*, noasync)
public func waitRead(_ fileDescriptor: CInt, timeout: Duration? = nil, throwing error: (any Error)? = nil) throws {
    try waitOnce(fileDescriptor, .read, timeout, error)
}

/// Parks until `fileDescriptor` is writable; otherwise as ``waitRead(_:timeout:throwing:)``.
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
    // Who owns the descriptor may close it without a word to us, so no interest is left behind.
    defer { table.dropUnused(fileDescriptor) }
    if try !table.wait(for: readiness, of: fileDescriptor, timeout: timeout) { throw error ?? Timeout(timeout) }
}
