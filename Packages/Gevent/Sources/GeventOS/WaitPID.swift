internal import CGevent
internal import CGeventSystem
internal import GeventCore
internal import Glibc

/// The options of ``waitPID(_:options:)``.
public struct ChildWaitOptions: OptionSet, Sendable, Hashable {
    public let rawValue: CInt

    public init(rawValue: CInt) { self.rawValue = rawValue }

    /// Returns at once instead of parking. gevent: `WNOHANG`.
    public static let noHang = ChildWaitOptions(rawValue: WNOHANG)
    /// Also reports children that were stopped. gevent: `WUNTRACED`.
    public static let stopped = ChildWaitOptions(rawValue: WUNTRACED)
    /// Also reports stopped children that were continued. gevent: `WCONTINUED`.
    public static let continued = ChildWaitOptions(rawValue: WCONTINUED)
}

/// Parks until a child process ends, takes its status, and returns its process ID and the status.
///
/// `pid` is a process ID, or as in `waitpid`: -1 for any child, 0 for any child in this process's group, less than -1
/// for any child in group -`pid`. If several match, the first to end is returned; if some have ended already, the
/// kernel chooses. With ``ChildWaitOptions/noHang`` it does not park, and returns process ID 0 if none has ended. A
/// wait for one child shares its status with the ``ChildWatch``es of this hub. So does a wait for any child if it takes
/// the status first. It does not see a status that a watch or another thread has taken.
///
/// If an error is delivered to the greenlet, the status is left for the next wait. Throws ``ChildError`` if there is no
/// such child, including a second wait for the same one; ``LoopError`` if no descriptors are left; and errors delivered
/// to the greenlet.
///
/// gevent: `gevent.os.waitpid(pid, options)`.
@available(*, noasync)
public func waitPID(_ pid: CInt, options: ChildWaitOptions = []) throws -> (pid: CInt, status: ChildStatus) {
    let hub = Hub.of(try currentHub())
    let service = hub.children
    let isPlain = options.isDisjoint(with: [.stopped, .continued])
    if pid > 0, isPlain, let watch = service.watch(of: pid) {
        if !options.contains(.noHang) {
            if let status = try watch.wait() { return (pid, status) }
        } else if let status = try watch.poll() {
            return (pid, status)
        }
        return (0, ChildStatus(rawValue: 0))
    }
    if let found = try takeStatus(pid, options, service) { return found }
    if options.contains(.noHang) { return (0, ChildStatus(rawValue: 0)) }
    if pid > 0, isPlain, service.usesDescriptors, let found = try waitByDescriptor(pid, options, service) {
        return found
    }
    return try waitBySignal(pid, options, hub, service)
}

/// Takes a status without waiting; returns nil if there is none.
private func takeStatus(
    _ pid: CInt, _ options: ChildWaitOptions, _ service: ChildService
) throws -> (pid: CInt, status: ChildStatus)? {
    var raw: CInt = 0
    while true {
        let found = waitpid(pid, &raw, options.rawValue | WNOHANG)
        if found == 0 { return nil }
        if found > 0 {
            let status = ChildStatus(rawValue: raw)
            if status.stoppingSignal == nil && !status.isContinued { service.ended(found, status) }
            return (found, status)
        }
        let error = errno
        if error != EINTR { throw ChildError.make(errno: error, pid: pid) }
    }
}

/// Waits through a pidfd; returns nil if this kernel has none. Each waiter has its own descriptor and takes the status
/// itself, so an interrupted waiter leaves it for others.
private func waitByDescriptor(
    _ pid: CInt, _ options: ChildWaitOptions, _ service: ChildService
) throws -> (pid: CInt, status: ChildStatus)? {
    let number = gevent_pidfd_open(pid)
    switch -number {
    case EMFILE, ENFILE, ENOMEM: throw SystemError(errno: -number, operation: "pidfd_open", object: "\(pid)")
    case let error where error > 0: return nil
    default: break
    }
    // The descriptor is closed on deinit.
    let descriptor = try WatchedDescriptor(number)
    while true {
        _ = try descriptor.waitReadable()
        if let found = try takeStatus(pid, options, service) { return found }
    }
}

/// Waits through SIGCHLD.
private func waitBySignal(
    _ pid: CInt, _ options: ChildWaitOptions, _ hub: Hub, _ service: ChildService
) throws -> (pid: CInt, status: ChildStatus) {
    service.signalUsers += 1
    // The hub must keep waiting for the children.
    let hold = hub.hold()
    defer {
        hold.cancel()
        service.signalUsers -= 1
        service.unwatchSignalIfUnused()
    }
    try service.watchSignal()
    while true {
        // Checked after the signal is watched, so a child that ends before the park still wakes it.
        if let found = try takeStatus(pid, options, service) { return found }
        _ = try service.changes.park(hub.pointer, .child, nil, showing: UnsafeRawPointer(bitPattern: Int(pid)))
    }
}
