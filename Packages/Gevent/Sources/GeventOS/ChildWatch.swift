internal import CGevent
public import GeventCore
internal import Glibc

/// Watches a child process and takes its status when it ends, once, for everybody who waits for it.
///
/// It becomes ready when the child is over. Making one for a child that has ended is fine, as long as nobody has waited
/// for it. It goes on until it is ready, is cancelled or its hub is destroyed, whoever holds it; it keeps the hub
/// waiting unless told otherwise. The kernel reports the end through a descriptor, or by SIGCHLD where it is too old
/// for that (before Linux 5.3). Confined to the thread of its hub.
///
/// gevent: `loop.child(pid)`.
public final class ChildWatch: WaitableObject, CustomStringConvertible {
    /// The process identifier.
    ///
    /// gevent: `child.rpid`.
    public let pid: CInt
    /// How the child ended; nil until it has.
    ///
    /// gevent: `child.rstatus`.
    public private(set) var status: ChildStatus?
    /// Why there will be no status; nil unless that has turned out.
    public private(set) var error: ChildError?
    /// Whether there is a status, or will never be one.
    public override var isReady: Bool { status != nil || error != nil }

    private let hub: Hub
    private var pidfd: CInt = -1
    private var watch: DescriptorWatch?
    private var hold: HubHold?

    /// Watches `pid`, a child of this process that nobody has waited for.
    ///
    /// Makes the thread's hub if there is none. Throws ``ChildError`` if it is no such child, and ``LoopError`` if
    /// there are no descriptors left.
    public init(pid: CInt, referenced: Bool = true) throws {
        hub = Hub.of(try currentHub())
        self.pid = pid
        super.init()
        _ = try home.hub()
        if pid <= 0 { throw ChildError(.invalidIdentifier, pid: pid) }
        let ended = gevent_child_has_ended(pid)
        if ended < 0 { throw ChildError(errno: -ended, pid: pid) }
        let service = hub.children
        if try !watchDescriptor(service) { try service.watchSignal() }
        if referenced { hold = hub.hold() }
        service.add(self)
        // It may be over since before there was anything to report it.
        check()
    }

    /// Whether it keeps the hub waiting.
    ///
    /// gevent: `watcher.ref`.
    public var isReferenced: Bool {
        get { hold != nil }
        set {
            if isReady || newValue == isReferenced { return }
            hold = newValue ? hub.hold() : nil
        }
    }

    /// Parks until the child is over, or for at most `timeout`; returns how it ended, or nil when the time is up.
    ///
    /// Any number of greenlets may wait. Throws ``ChildError`` if the status went to somebody else or the watch was
    /// cancelled, ``HubError`` with `.wrongThread`, and what interrupts the greenlet, which does not concern the watch.
    @available(*, noasync)
    public func wait(timeout: Duration? = nil) throws -> ChildStatus? {
        try checkThread()
        if !isReady {
            check()
            if !isReady {
                if let timeout, timeout <= .zero { return nil }
                if try !park(timeout) { return nil }
            }
        }
        if let error { throw error }
        return status
    }

    private func park(_ timeout: Duration?) throws -> Bool {
        // Whoever is parked keeps the hub waiting, whether or not the watch does.
        let hold = hub.hold()
        defer { hold.release() }
        return try park(hub.pointer, .child, timeout, showing: UnsafeRawPointer(bitPattern: UInt(pid)))
    }

    /// Looks, without parking, whether the child is over: also in a loop that gives the hub no chance to.
    ///
    /// gevent: `Popen.poll()`.
    public func poll() throws -> ChildStatus? {
        try checkThread()
        check()
        if let error { throw error }
        return status
    }

    /// Stops watching, and leaves the child to others. Greenlets that wait are thrown ``ChildError`` with `.cancelled`.
    /// Repeatable; no effect once it is ready.
    public func cancel() throws {
        try checkThread()
        settle(ChildError(.cancelled, pid: pid))
    }

    public var description: String {
        "<ChildWatch of \(pid): \(status.map(\.description) ?? error.map(\.description) ?? "running")>"
    }

    private func checkThread() throws {
        // What is ready needs no hub any more.
        if isReady { return }
        if gevent_hub_current() != hub.pointer { throw HubError.wrongThread }
    }

    // MARK: The hub's side

    /// Returns whether the kernel can report the end through a descriptor.
    private func watchDescriptor(_ service: ChildService) throws(LoopError) -> Bool {
        if !service.usesDescriptors { return false }
        let result = gevent_pidfd_open(pid)
        switch -result {
        case EMFILE, ENFILE, ENOMEM: throw LoopError(errno: -result, operation: "pidfd_open")
        case let error where error > 0: return false
        default: break
        }
        do throws(LoopError) {
            watch = try DescriptorWatch(result, on: hub, referenced: false) { [unowned self] in check() }
        } catch {
            close(result)
            throw error
        }
        pidfd = result
        return true
    }

    /// Takes the status if there is one.
    func check() {
        if isReady { return }
        var raw: CInt = 0
        switch waitpid(pid, &raw, WNOHANG) {
        case 0: return
        case pid: hub.children.ended(pid, ChildStatus(rawValue: raw))
        default: if errno != EINTR { settle(ChildError(errno: errno, pid: pid)) }
        }
    }

    func settle(_ status: ChildStatus) {
        if isReady { return }
        self.status = status
        finish()
    }

    func settle(_ error: ChildError) {
        if isReady { return }
        self.error = error
        finish()
    }

    private func finish() {
        watch?.close()
        watch = nil
        if pidfd >= 0 { close(pidfd) }
        pidfd = -1
        hold = nil
        recordReadiness(hub.pointer)
        tellAll(hub.pointer)
        hub.existingService(ChildService.self)?.remove(self)
    }
}
