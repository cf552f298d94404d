internal import CGevent
internal import Glibc

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
/// child, whose posts to them are refused. The parent's is not touched. A child that is not to go on with what was begun
/// before ends itself, or destroys its hub, which then never runs or unwinds that.
///
/// **With other threads in the process the child may only exec**, or end by `_exit`: whatever lock another thread held,
/// in the C library or the Swift runtime, is held for ever. That is fork's own limit and there is no way around it.
///
/// Throws ``LoopError`` in the parent, if there can be no child. Written `Gevent.fork()`, since libc's is named alike.
///
/// gevent: `gevent.fork()`.
@available(*, noasync)
public func fork() throws -> ForkResult {
    let pid = gevent_fork()
    if pid < 0 { throw LoopError(errno: -pid, operation: "fork") }
    if pid > 0 { return .parent(pid) }
    // What fails here is tried again before the next poll, and then main is told. Thrown here, it would look as if
    // there were no child.
    if let hub = gevent_hub_current() { Hub.of(hub).noticeFork() }
    return .child
}

/// Repairs the hub in a child that was forked by other means than ``fork()``: by a C library, say.
///
/// A child that does not call it is repaired all the same before it polls or waits for a descriptor; called first thing,
/// it also tells apart exactly what was queued before the fork. Repeatable. Nothing happens without a hub or in a process
/// that was not forked. Never parks. Throws ``LoopError`` if the system cannot provide new kernel objects.
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
        markInherited()
        try loop.recoverAfterFork()
        pointer.pointee.is_forked = false
        process = getpid()
        LivingHubs.keepOnly(handle, serial: pointer.pointee.serial)
        for service in services { service.hubDidFork() }
        descriptors.rearmAll(loop)
    }

    /// What was begun before the fork is the parent's to end.
    private func markInherited() {
        for greenlet in greenletsOnStacks() where !greenlet.isCurrent { greenlet.isInherited = true }
        var record = gevent_first_delayed_start(pointer)
        while let delayed = record {
            delayedGreenlet(delayed).isInherited = true
            record = gevent_next_delayed_start(pointer, delayed)
        }
        for index in pointer.pointee.ready_head..<pointer.pointee.ready_tail {
            let entry = pointer.pointee.ready[Int(index & pointer.pointee.ready_mask)]
            let owner = UnsafeRawPointer(bitPattern: entry & ~UInt(GEVENT_READY_TAGS))
            switch Int(entry) & GEVENT_READY_TAGS {
            case GEVENT_READY_START:
                Unmanaged<AnyGreenlet>.fromOpaque(owner!).takeUnretainedValue().isInherited = true
            case GEVENT_READY_CALLBACK:
                Unmanaged<HubCallback>.fromOpaque(owner!).takeUnretainedValue().isInherited = true
            default:
                // Has a stack, and was marked with it.
                break
            }
        }
    }

    private func delayedGreenlet(_ record: UnsafeMutablePointer<gevent_deferred>) -> AnyGreenlet {
        Unmanaged<AnyGreenlet>.fromOpaque(record.pointee.timer.payload).takeUnretainedValue()
    }

    /// Sees to it that nothing from before the fork runs in this process any more: neither bodies nor their clean-up,
    /// which would be done twice. So nothing of it is released either. Returns how many stacks this leaves occupied.
    func abandonInherited() -> Int {
        for _ in 0..<gevent_ready_count(pointer) {
            let entry = gevent_ready_pop(pointer)
            if !isInherited(entry) { gevent_ready_push(pointer, entry.pointer, entry.tag) }
        }
        var record = gevent_first_delayed_start(pointer)
        while let delayed = record {
            record = gevent_next_delayed_start(pointer, delayed)
            let greenlet = delayedGreenlet(delayed)
            guard greenlet.isInherited else { continue }
            gevent_timers_cancel(&pointer.pointee.timers, &delayed.pointee.timer)
            gevent_node_unlink(&delayed.pointee.node)
            greenlet.details?.delay = nil
            abandon(greenlet)
        }
        var stacks = 0
        for greenlet in greenletsOnStacks() where greenlet.isInherited {
            abandon(greenlet)
            stacks += 1
        }
        return stacks
    }

    private func isInherited(_ entry: gevent_ready_entry) -> Bool {
        switch Int(entry.tag) {
        case GEVENT_READY_START:
            let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(entry.pointer).takeUnretainedValue()
            if greenlet.isInherited { abandon(greenlet) }
            return greenlet.isInherited
        case GEVENT_READY_CALLBACK:
            return Unmanaged<HubCallback>.fromOpaque(entry.pointer).takeUnretainedValue().isInherited
        default:
            guard let owner = gevent_stacks_find(&pointer.pointee.stacks, entry.pointer)?.pointee.owner else {
                return false
            }
            return Unmanaged<AnyGreenlet>.fromOpaque(owner).takeUnretainedValue().isInherited
        }
    }

    /// It never runs again. Its stack, if it has one, goes with the hub; what that holds is lost.
    func abandon(_ greenlet: AnyGreenlet) {
        greenlet.dropPendingErrors()
        if let context = greenlet.context {
            // Nothing that lives on may lead to a stack that does not.
            Timeout.cancelAll(of: context)
            gevent_wait_abandon(context)
            greenlet.dropLocals(of: context)
            context.pointee.owner = nil
        }
        greenlet.phase = .ended
        greenlet.context = nil
        // The group may go at least.
        greenlet.details?.membership = nil
        (greenlet as? JoinableGreenlet)?.outcomeError = GreenletExit()
    }
}
