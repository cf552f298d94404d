internal import CGevent
internal import CGeventSystem
internal import GeventCore
internal import Glibc
internal import Synchronization

/// The result of a fork, which differs between parent and child.
public enum ForkResult: Sendable, Hashable {
    /// The calling process, with the process ID of its new child.
    case parent(CInt)
    /// The new process.
    case child
}

/// Forks the process, and returns in the parent and in the child. May be called in any greenlet. Never parks.
///
/// In the child only the calling thread and its hub continue. The child's loop is repaired. Parked and ready greenlets,
/// timers and signal registrations exist in both processes. The hubs of other threads do not exist in the child, which
/// cannot post to them. The parent's hub is unchanged. If the child should not continue the greenlets that existed
/// before the fork, it exits or destroys its hub, which then neither runs nor unwinds them.
///
/// **If the process has other threads, the child may only exec** or end by `_exit`: a lock that another thread held in
/// the C library or the Swift runtime stays locked in the child. This is a limit of fork without a workaround. The
/// thread of a ``Monitor`` is safe, because a fork waits for its current report, function or hook. If there are other
/// threads, the first fork of a process prints a warning to standard error; `allowingThreads` suppresses it.
///
/// Throws ``SystemError`` in the parent if the fork fails. Write `Gevent.fork()`, because libc has a `fork()` too.
///
/// gevent: `gevent.fork()`.
@available(*, noasync)
public func fork(allowingThreads: Bool = false) throws -> ForkResult {
    if !allowingThreads { warnOfThreads() }
    let pid = gevent_fork()
    if pid < 0 { throw SystemError(errno: -pid, operation: "fork") }
    if pid > 0 { return .parent(pid) }
    // A repair that fails here is retried before the next poll, and its error is then delivered to main. Throwing it
    // here would look like a failed fork.
    if let hub = gevent_hub_current() { Hub.of(hub).noticeFork() }
    return .child
}

private let hasWarnedOfThreads = Atomic(false)

private func warnOfThreads() {
    if hasWarnedOfThreads.load(ordering: .relaxed) { return }
    let count = gevent_other_threads()
    if count == 0 || hasWarnedOfThreads.exchange(true, ordering: .relaxed) { return }
    printToStandardError(
        """
        gevent: fork() beside \(count) other thread\(count == 1 ? "" : "s"): the child may only exec or _exit, since \
        a lock they hold stays locked in it. fork(allowingThreads: true) suppresses this warning.

        """)
}

/// Repairs the hub in a child that was forked without ``fork(allowingThreads:)``, for example by a C library.
///
/// Without this call the hub is repaired before it polls or waits for a descriptor. If called right after the fork, it
/// also marks exactly the work inherited from before the fork. Repeatable. Does nothing without a hub or in a process
/// that was not forked. Never parks. Throws ``LoopError`` if the system cannot provide new kernel objects.
///
/// gevent: `gevent.reinit()`.
public func reinit() throws {
    guard let pointer = gevent_hub_current() else { return }
    let hub = Hub.of(pointer)
    // A fork that bypassed the C library is detected only here, by the process ID.
    if pointer.pointee.is_forked || hub.process != getpid() { try hub.recoverFromFork() }
}
