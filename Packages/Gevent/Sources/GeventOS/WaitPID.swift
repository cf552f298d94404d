internal import CGevent
internal import GeventCore
internal import Glibc

/// What ``waitPID(_:options:)`` is to look for.
public struct ChildWaitOptions: OptionSet, Sendable, Hashable {
    public let rawValue: CInt

    public init(rawValue: CInt) { self.rawValue = rawValue }

    /// Look, and do not park. gevent: `WNOHANG`.
    public static let noHang = ChildWaitOptions(rawValue: WNOHANG)
    /// Children that have been stopped, too. gevent: `WUNTRACED`.
    public static let stopped = ChildWaitOptions(rawValue: WUNTRACED)
    /// Children that were stopped and go on, too. gevent: `WCONTINUED`.
    public static let continued = ChildWaitOptions(rawValue: WCONTINUED)
}

/// Parks until a child process is over, takes its status, and returns its identifier and the status.
///
/// `pid` is one process, or as in `waitpid`: -1 for any child, 0 for one of this process's group, less than -1 for one
/// of group -`pid`. Of several, it is the first to end from now on; if some are over already, whichever the kernel
/// names. With ``ChildWaitOptions/noHang`` it does not park, and returns process 0 if none is over. A wait for one
/// child shares its status with the ``ChildWatch``es of this hub. A wait for any does so too when it is the first to
/// take it; what a watch has taken, or a wait in another thread, it does not see.
///
/// Interrupted, it leaves the status to the next one who waits. Throws ``ChildError`` if there is no such child, which
/// includes a second wait for the same one; ``LoopError`` if there are no descriptors left; and what interrupts the
/// greenlet.
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
    if let found = try look(pid, options, service) { return found }
    if options.contains(.noHang) { return (0, ChildStatus(rawValue: 0)) }
    if pid > 0, isPlain, service.usesDescriptors, let found = try waitByDescriptor(pid, options, service) {
        return found
    }
    return try waitBySignal(pid, options, hub, service)
}

/// Takes a status without waiting; nil if there is none.
private func look(
    _ pid: CInt, _ options: ChildWaitOptions, _ service: ChildService
) throws(ChildError) -> (pid: CInt, status: ChildStatus)? {
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
        if error != EINTR { throw ChildError(errno: error, pid: pid) }
    }
}

/// Each waiter has a descriptor of its own and takes the status itself, so one who is interrupted leaves it to others.
/// Nil if this kernel has no such descriptors.
private func waitByDescriptor(
    _ pid: CInt, _ options: ChildWaitOptions, _ service: ChildService
) throws -> (pid: CInt, status: ChildStatus)? {
    let number = gevent_pidfd_open(pid)
    switch -number {
    case EMFILE, ENFILE, ENOMEM: throw LoopError(errno: -number, operation: "pidfd_open")
    case let error where error > 0: return nil
    default: break
    }
    // Closes it when it goes.
    let descriptor = try WatchedDescriptor(number)
    while true {
        _ = try descriptor.waitReadable()
        if let found = try look(pid, options, service) { return found }
    }
}

private func waitBySignal(
    _ pid: CInt, _ options: ChildWaitOptions, _ hub: Hub, _ service: ChildService
) throws -> (pid: CInt, status: ChildStatus) {
    service.signalUsers += 1
    // The children are reason enough to wait.
    let hold = hub.hold()
    defer {
        hold.release()
        service.signalUsers -= 1
        service.unwatchSignalIfUnused()
    }
    try service.watchSignal()
    while true {
        // After the signal is watched: a child that ends between the look and the wait wakes the wait.
        if let found = try look(pid, options, service) { return found }
        _ = try service.changes.park(hub.pointer, .child, nil, showing: UnsafeRawPointer(bitPattern: Int(pid)))
    }
}
