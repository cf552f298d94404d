internal import CGevent

extension JoinableGreenlet {
    /// Delivers `error` to the greenlet. Unless `blocking` is false, parks until the greenlet has ended, or for at most
    /// `timeout`.
    ///
    /// A greenlet that has not run ends at once and never runs: its links are notified, and a later start does nothing.
    /// Otherwise the error is raised where the greenlet is parked. In a ready greenlet it is raised at the next switch
    /// point: late, or never if the body ends first. The greenlet may catch the error, or park during its clean-up. A
    /// blocking kill waits for the actual end, and returns silently when the time expires. A greenlet that kills itself
    /// with a blocking kill unwinds on the spot. No effect on a greenlet that has ended.
    ///
    /// A `sticky` error is raised again at every later call that would park, until the body ends. Code that swallows it
    /// with `try?` gets no further, and clean-up that parks fails at once. Errors that were pending before it are
    /// raised first. A later error, whether a kill or a timeout, is never raised, because the sticky error always comes
    /// before it. Code that never parks keeps running, and a loop that ignores the error spins and blocks its thread.
    ///
    /// Throws only if the caller itself is interrupted while it waits, never the outcome of the killed greenlet.
    ///
    /// gevent: `Greenlet.kill(exception=GreenletExit, block=True, timeout=None)`.
    @available(*, noasync)
    public final func kill(
        throwing error: any Error = GreenletExit(), blocking: Bool = true, timeout: Duration? = nil,
        sticky: Bool = false
    ) throws {
        _ = try ownHub()
        if isDead { return }
        if blocking && isCurrent {
            if sticky { deliver(error, sticky: true) }
            throw error
        }
        deliver(error, sticky: sticky)
        if blocking { _ = try waitForEnd(timeout: timeout) }
    }
}

/// Delivers `error` to any greenlet of this thread, main and raw greenlets included, without parking.
///
/// A greenlet that has not run never runs; there is no effect on one that has ended. A `sticky` error is raised again
/// at every later call that would park; see ``JoinableGreenlet/kill(throwing:blocking:timeout:sticky:)``. In main,
/// which has no end, it is raised until the hub is destroyed. Throws ``HubError`` with `.wrongThread` for a greenlet of
/// another thread. Throws `.invalidSwitch` for the hub, to which no error can be delivered.
///
/// gevent: `gevent.kill(greenlet, exception=GreenletExit)`.
@available(*, noasync)
public func kill(
    _ greenlet: AnyGreenlet, throwing error: any Error = GreenletExit(), sticky: Bool = false
) throws {
    try greenlet.checkCanBeThrownInto()
    greenlet.deliver(error, sticky: sticky)
}

extension AnyGreenlet {
    /// Throws unless this is a greenlet of the calling thread and not its hub.
    final func checkCanBeThrownInto() throws {
        _ = try ownHub()
        if isHub {
            throw HubError(.invalidSwitch, "nothing can be thrown into the hub, which must keep running")
        }
    }
}

/// Delivers `error` to all of `greenlets`. Unless `blocking` is false, parks until all have ended.
///
/// First, every member that has not run is ended, without a switch. Then the error is delivered to the others, in
/// order. Sets, duplicates, raw greenlets and empty collections are fine. Unlike the timeout of a single kill, this one
/// **throws**: a ``Timeout``, if a member has not ended in time. Throws what interrupts the caller; a caller that is
/// among the members is interrupted on the spot. A `sticky` error is raised again at every later call that would park.
///
/// gevent: `gevent.killall(greenlets, exception=GreenletExit, block=True, timeout=None)`.
@available(*, noasync)
public func killAll<Member: AnyGreenlet>(
    _ greenlets: some Sequence<Member>, throwing error: any Error = GreenletExit(), blocking: Bool = true,
    timeout: Duration? = nil, sticky: Bool = false
) throws {
    try killMembers(greenlets.map { $0 }, throwing: error, blocking, timeout, sticky, try currentHub())
}

/// Implements `killAll` for greenlets of any class.
func killMembers(
    _ members: [AnyGreenlet], throwing error: any Error, _ blocking: Bool, _ timeout: Duration?, _ sticky: Bool,
    _ hub: UnsafeMutablePointer<gevent_hub>
) throws {
    for member in members { try member.checkCanBeThrownInto() }
    for member in members where member.phase != .running { member.deliver(error, sticky: sticky) }
    for member in members where member.phase == .running { member.deliver(error, sticky: sticky) }
    guard blocking else { return }
    if members.contains(where: \.isCurrent) { try checkPending(hub) }
    // Main never ends, so this does not wait for it.
    let awaited = members.filter { !$0.isMain }
    let counter = try awaited.withUnsafeBufferPointer {
        try waitForEnds(of: $0, wanted: $0.count, timeout: timeout, stopsAtFailure: false, hub)
    }
    if counter.ended.count < awaited.count { throw Timeout(timeout) }
}
