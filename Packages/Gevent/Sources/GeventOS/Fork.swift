internal import CGevent
internal import GeventCore
internal import Glibc
internal import Synchronization

/// Which of the two processes this is.
public enum ForkResult: Sendable, Hashable {
    /// The one that called, and the identifier of its new child.
    case parent(CInt)
    /// The new one.
    case child
}

/// Copies the process. Returns in both, from any greenlet, and never parks.
///
/// Only the calling thread goes on in the child, with its hub: the loop is repaired there, and greenlets that wait or
/// are queued, timers and signal registrations exist in both processes. The hubs of other threads do not exist in the
/// child, whose posts to them are refused. The parent's is not touched. A child that is not to go on with what was
/// begun before ends itself, or destroys its hub, which then never runs or unwinds that.
///
/// **With other threads in the process the child may only exec**, or end by `_exit`: whatever lock another thread held,
/// in the C library or the Swift runtime, is held for ever. That is fork's own limit and there is no way around it. The
/// thread of a ``Monitor`` does not count: a fork waits until it is done with the report, function or hook that it is
/// at. If there are others, the first fork of a process warns of that on standard error; `allowingThreads` says that
/// the caller knows.
///
/// Throws ``LoopError`` in the parent, if there can be no child. Written `Gevent.fork()`, since libc's is named alike.
///
/// gevent: `gevent.fork()`.
@available(*, noasync)
public func fork(allowingThreads: Bool = false) throws -> ForkResult {
    if !allowingThreads { warnOfThreads() }
    let pid = gevent_fork()
    if pid < 0 { throw LoopError(errno: -pid, operation: "fork") }
    if pid > 0 { return .parent(pid) }
    // What fails here is tried again before the next poll, and then main is told. Thrown here, it would look as if
    // there were no child.
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
        whatever lock they hold is held in it for ever. fork(allowingThreads: true) leaves this out.

        """)
}

/// Repairs the hub in a child that was forked by other means than ``fork(allowingThreads:)``: by a C library, say.
///
/// A child that does not call it is repaired all the same before it polls or waits for a descriptor; called first
/// thing, it also tells apart exactly what was queued before the fork. Repeatable. Nothing happens without a hub or in
/// a process that was not forked. Never parks. Throws ``LoopError`` if the system cannot provide new kernel objects.
///
/// gevent: `gevent.reinit()`.
public func reinit() throws {
    guard let pointer = gevent_hub_current() else { return }
    let hub = Hub.of(pointer)
    // A fork past the C library is noticed here only.
    if pointer.pointee.is_forked || hub.process != getpid() { try hub.recoverFromFork() }
}
