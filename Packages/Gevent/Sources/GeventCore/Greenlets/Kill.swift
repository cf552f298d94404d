internal import CGevent

extension JoinableGreenlet {
    /// Throws `error` into the greenlet and, unless `blocking` is false, parks until it is over, or for at most
    /// `timeout`.
    ///
    /// A greenlet that never ran never will: it is over at once, its links are told, and a later start does nothing.
    /// Otherwise the error is raised where it waits, or at its next switch point if it is ready: late, or never if its
    /// body ends first. It may catch the error or wait during its clean-up; a blocking kill waits until it really ends,
    /// and returns silently when the time is up. A blocking kill of oneself unwinds on the spot. No effect on the dead.
    ///
    /// A `sticky` error is raised again at every later call that would park, until the body ends: code that swallows it
    /// with `try?` gets no further, and clean-up that waits fails at once. What was thrown earlier and not raised yet
    /// comes first; whatever is thrown later, kills and timeouts alike, is never raised, since the sticky error always
    /// comes before it. Code that never parks runs on, and a loop that ignores the error for ever spins and stops its
    /// thread.
    ///
    /// Throws only when the caller itself is interrupted while it waits, never what becomes of the victim.
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

/// Throws `error` into any greenlet of this thread, main and raw ones included, without parking.
///
/// One that has not run never runs; no effect on the dead. A `sticky` error is raised again at every later call that
/// would park, see ``JoinableGreenlet/kill(throwing:blocking:timeout:sticky:)``; in main, which has no end, until its
/// hub is destroyed. Throws ``HubError`` with `.wrongThread` for a greenlet of another thread, and with
/// `.invalidSwitch` for the hub, into which nothing can be thrown.
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
            throw HubError(.invalidSwitch, "nothing can be thrown into the hub, which has to go on")
        }
    }
}

/// Throws `error` into all of `greenlets` and, unless `blocking` is false, parks until all are over.
///
/// First every member that has not run is ended, without a switch; then the error is thrown into the rest, in order.
/// Sets, duplicates, raw greenlets and empty collections are fine. Unlike a single kill's, its timeout **throws**: a
/// ``Timeout``, if a member survives. Throws what interrupts the caller, who is interrupted on the spot if they are
/// among the members. A `sticky` error is raised again at every later call that would park.
///
/// gevent: `gevent.killall(greenlets, exception=GreenletExit, block=True, timeout=None)`.
@available(*, noasync)
public func killAll<Member: AnyGreenlet>(
    _ greenlets: some Sequence<Member>, throwing error: any Error = GreenletExit(), blocking: Bool = true,
    timeout: Duration? = nil, sticky: Bool = false
) throws {
    try killMembers(greenlets.map { $0 }, throwing: error, blocking, timeout, sticky, try currentHub())
}

/// `killAll` for greenlets of any class.
func killMembers(
    _ members: [AnyGreenlet], throwing error: any Error, _ blocking: Bool, _ timeout: Duration?, _ sticky: Bool,
    _ hub: UnsafeMutablePointer<gevent_hub>
) throws {
    for member in members { try member.checkCanBeThrownInto() }
    for member in members where member.phase != .running { member.deliver(error, sticky: sticky) }
    for member in members where member.phase == .running { member.deliver(error, sticky: sticky) }
    guard blocking else { return }
    if members.contains(where: \.isCurrent) { try checkPending(hub) }
    // Main never ends, so nobody waits for it.
    let mortals = members.filter { !$0.isMain }
    let counter = try mortals.withUnsafeBufferPointer {
        try waitForEnds(of: $0, wanted: $0.count, timeout: timeout, stopsAtFailure: false, hub)
    }
    if counter.ended.count < mortals.count { throw Timeout(timeout) }
}
