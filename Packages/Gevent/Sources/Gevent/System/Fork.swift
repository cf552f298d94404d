internal import CGevent
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

extension Hub {
    /// Repairs the hub if it has to be, or leaves that to the next poll.
    func noticeFork() {
        if !pointer.pointee.is_forked { return }
        do throws(LoopError) {
            try recoverFromFork()
        } catch {
            // The flag is still set.
        }
    }

    /// This is a child process, whose loop still works on the parent's kernel objects.
    func recoverFromFork() throws(LoopError) {
        // Once for each fork: what fails below is tried again when the child has begun things of its own.
        if tellingApartProcess != getpid() {
            tellingApartProcess = getpid()
            markInherited()
        }
        try loop.recoverAfterFork()
        pointer.pointee.is_forked = false
        process = getpid()
        LivingHubs.keepOnly(handle, serial: pointer.pointee.serial)
        // One may be gone by its turn: it was made for another, which has no more use for it here.
        for service in services where services.contains(where: { $0 === service }) { service.hubDidFork() }
        descriptors.rearmAll()
    }

    /// What was begun before the fork is the parent's to end.
    private func markInherited() {
        for greenlet in greenletsOnStacks() where !greenlet.isCurrent { greenlet.isInherited = true }
        for greenlet in delayedGreenlets() { greenlet.isInherited = true }
        for index in pointer.pointee.ready_head..<pointer.pointee.ready_tail {
            let entry = pointer.pointee.ready[Int(index & pointer.pointee.ready_mask)]
            let owner = UnsafeRawPointer(bitPattern: entry & ~UInt(GEVENT_READY_TAGS))
            switch Int(entry) & GEVENT_READY_TAGS {
            case GEVENT_READY_START, GEVENT_READY_START_SIZED:
                Unmanaged<AnyGreenlet>.fromOpaque(owner!).takeUnretainedValue().isInherited = true
            case GEVENT_READY_CALLBACK:
                Unmanaged<HubCallback>.fromOpaque(owner!).takeUnretainedValue().isInherited = true
            default:
                // Has a stack, and was marked with it.
                break
            }
        }
    }

    /// Sees to it that nothing from before the fork runs in this process any more: neither bodies nor their clean-up,
    /// which would be done twice. So nothing of it is released either. Returns how many stacks this leaves occupied.
    func abandonInherited() -> Int {
        var inherited: [AnyGreenlet] = []
        for _ in 0..<gevent_ready_count(pointer) {
            let entry = gevent_ready_pop(pointer)
            if !isInherited(entry, &inherited) { gevent_ready_push(pointer, entry.pointer, entry.tag) }
        }
        for greenlet in delayedGreenlets() {
            guard greenlet.isInherited, let record = greenlet.delayRecord else { continue }
            gevent_deferred_cancel(pointer, record)
            greenlet.delayRecord = nil
            inherited.append(greenlet)
        }
        let onStacks = greenletsOnStacks().filter(\.isInherited)
        abandon(inherited + onStacks)
        return onStacks.count
    }

    /// Adds to `unstarted` what the entry would start.
    private func isInherited(_ entry: gevent_ready_entry, _ unstarted: inout [AnyGreenlet]) -> Bool {
        switch Int(entry.tag) {
        case GEVENT_READY_START, GEVENT_READY_START_SIZED:
            let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(entry.pointer).takeUnretainedValue()
            if greenlet.isInherited { unstarted.append(greenlet) }
            return greenlet.isInherited
        case GEVENT_READY_CALLBACK:
            return Unmanaged<HubCallback>.fromOpaque(entry.pointer).takeUnretainedValue().isInherited
        default:
            guard let owner = gevent_hub_find_stack(pointer, entry.pointer)?.pointee.owner else {
                return false
            }
            return Unmanaged<AnyGreenlet>.fromOpaque(owner).takeUnretainedValue().isInherited
        }
    }

    /// They never run again. Their stacks, if they have any, go with the hub; what those hold is lost. The caller's
    /// hold on the greenlets has to outlive the call.
    func abandon(_ greenlets: [AnyGreenlet]) {
        // All of them first: whatever runs because something is released or told finds none of them.
        let remains = greenlets.map { $0.isInherited ? leave($0) : takeApart($0) }
        // A scope that goes on need not wait for them.
        for greenlet in greenlets { if let member = greenlet.member { GreenletGroup.memberEnded(member) } }
        for remains in remains { remains?.release(pointer) }
    }

    /// What an abandoned greenlet's context held.
    private struct Remains {
        /// Held, so that they go when all are taken apart.
        let errors: PendingErrors?
        let locals: UnsafeMutablePointer<gevent_locals>?

        func release(_ hub: UnsafeMutablePointer<gevent_hub>) {
            if let locals { LocalTable.free(locals, hub) }
        }
    }

    private func takeApart(_ greenlet: AnyGreenlet) -> Remains {
        let remains = Remains(errors: greenlet.pendingErrors, locals: greenlet.context?.pointee.locals)
        greenlet.dropPendingErrors()
        if let context = greenlet.context {
            Timeout.cancelAll(of: context)
            context.pointee.locals = nil
        }
        markAbandoned(greenlet)
        return remains
    }

    /// The parent has it too, and releases what it held.
    private func leave(_ greenlet: AnyGreenlet) -> Remains? {
        if let context = greenlet.context {
            while !gevent_list_is_empty(&context.pointee.timeouts) {
                gevent_deferred_cancel(pointer, gevent_deferred_of_node(context.pointee.timeouts.next))
            }
            if let locals = context.pointee.locals { LocalTable.leave(locals, pointer) }
            context.pointee.locals = nil
        }
        if let locals = greenlet.details?.inheritedLocals { LocalTable.leave(locals, pointer) }
        greenlet.details?.inheritedLocals = nil
        markAbandoned(greenlet)
        return nil
    }

    private func markAbandoned(_ greenlet: AnyGreenlet) {
        if let context = greenlet.context {
            // Nothing that lives on may lead to a stack that does not.
            gevent_wait_abandon(context)
            context.pointee.owner = nil
        }
        greenlet.phase = .ended
        greenlet.context = nil
        (greenlet as? JoinableGreenlet)?.outcomeError = GreenletExit()
    }
}
