internal import CGevent
internal import CGeventSystem
public import GeventCore
internal import Glibc

/// A watch of a child process, which takes the child's status once and delivers it to all waiters.
///
/// The watch becomes ready when the child ends. It can be made after the child has ended, if its status has not been
/// taken yet. It stays active until it is ready, is cancelled or its hub is destroyed, even without references. By
/// default it keeps the hub waiting. The kernel reports the end through a pidfd, or by SIGCHLD before Linux 5.3.
/// Confined to the thread of its hub.
///
/// gevent: `loop.child(pid)`.
public final class ChildWatch: Waitable, CustomStringConvertible {
    /// The process ID of the child.
    ///
    /// gevent: `child.rpid`.
    public let pid: CInt
    /// The child's status; nil until it has ended.
    ///
    /// gevent: `child.rstatus`.
    public private(set) var status: ChildStatus?
    /// The reason that there will be no status; nil if none is known.
    public private(set) var error: (any Error)?
    /// Whether the watch has a status or an error.
    public var isReady: Bool { status != nil || error != nil }

    private let hub: Hub
    /// Set when the watch becomes ready.
    private let ended = Event()
    private var pidfd: CInt = -1
    private var watch: DescriptorWatch?
    private var hold: Registration?

    /// Watches `pid`, a child of this process whose status has not been taken.
    ///
    /// Creates the thread's hub if there is none. Throws ``ChildError`` if `pid` is not such a child, and ``LoopError``
    /// if no descriptors are left.
    public init(pid: CInt, referenced: Bool = true) throws {
        hub = Hub.of(try currentHub())
        self.pid = pid
        // Binds the event to this hub.
        ended.clear()
        if pid <= 0 { throw ChildError(.invalidIdentifier, pid: pid) }
        let ended = gevent_child_has_ended(pid)
        if ended < 0 { throw ChildError.make(errno: -ended, pid: pid) }
        let service = hub.children
        if try !watchDescriptor(service) { try service.watchSignal() }
        if referenced { hold = hub.hold() }
        service.add(self)
        // The child may have ended before the kernel could report it.
        check()
    }

    /// Whether the watch keeps the hub waiting.
    ///
    /// gevent: `watcher.ref`.
    public var isReferenced: Bool {
        get { hold != nil }
        set {
            if isReady || newValue == isReferenced { return }
            hold = newValue ? hub.hold() : nil
        }
    }

    /// Parks until the child ends, for at most `timeout`. Returns its status, or nil if the timeout expires.
    ///
    /// Any number of greenlets may wait. Throws ``ChildError`` if another wait took the status or the watch was
    /// cancelled, ``HubError`` with `.wrongThread`, and errors delivered to the greenlet, which leave the watch active.
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
        // A parked waiter keeps the hub waiting even if the watch does not.
        let hold = hub.hold()
        defer { hold.cancel() }
        return try ended.park(hub.pointer, .child, timeout, showing: UnsafeRawPointer(bitPattern: UInt(pid)))
    }

    /// Returns the status if the child has ended, otherwise nil. Never parks, and works even in a loop that never lets
    /// the hub run.
    ///
    /// gevent: `Popen.poll()`.
    public func poll() throws -> ChildStatus? {
        try checkThread()
        check()
        if let error { throw error }
        return status
    }

    /// Stops watching and leaves the status for another wait. Waiting greenlets receive ``ChildError`` with
    /// `.cancelled`. Repeatable. Does nothing if the watch is ready.
    public func cancel() throws {
        try checkThread()
        settle(ChildError(.cancelled, pid: pid))
    }

    public var description: String {
        "<ChildWatch of \(pid): \(status.map(\.description) ?? error.map { "\($0)" } ?? "running")>"
    }

    private func checkThread() throws {
        // A ready watch no longer uses the hub.
        if isReady { return }
        if gevent_hub_current() != hub.pointer { throw HubError.wrongThread }
    }

    // MARK: Waitable

    /// The order in which the watch became ready; see ``Waitable/readyOrder()``.
    public func readyOrder() throws -> UInt64? { try ended.readyOrder() }

    /// See ``Waitable/enlist(_:)``.
    public func enlist(_ waiter: Enlistment<Void>) throws { try ended.enlist(waiter) }

    /// See ``Waitable/withdraw(_:)``.
    public func withdraw(_ waiter: Enlistment<Void>) { ended.withdraw(waiter) }

    /// The number of waiting greenlets and linked callbacks. Takes linear time; for tests and reports.
    public var linkCount: Int { ended.linkCount }

    // MARK: The hub's side

    /// Watches the child through a pidfd. Returns false if the kernel has none.
    private func watchDescriptor(_ service: ChildService) throws -> Bool {
        if !service.usesDescriptors { return false }
        let result = gevent_pidfd_open(pid)
        switch -result {
        case EMFILE, ENFILE, ENOMEM: throw SystemError(errno: -result, operation: "pidfd_open", object: "\(pid)")
        case let error where error > 0: return false
        default: break
        }
        do {
            watch = try DescriptorWatch(result, on: hub, referenced: false) { [unowned self] in check() }
        } catch {
            close(result)
            throw error
        }
        pidfd = result
        return true
    }

    /// Takes the status if the child has ended.
    func check() {
        if isReady { return }
        var raw: CInt = 0
        switch waitpid(pid, &raw, WNOHANG) {
        case 0: return
        case pid: hub.children.ended(pid, ChildStatus(rawValue: raw))
        default: if errno != EINTR { settle(ChildError.make(errno: errno, pid: pid)) }
        }
    }

    func settle(_ status: ChildStatus) {
        if isReady { return }
        self.status = status
        finish()
    }

    func settle(_ error: any Error) {
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
        ended.set(on: hub.pointer)
        hub.existingService(ChildService.self)?.remove(self)
    }
}
