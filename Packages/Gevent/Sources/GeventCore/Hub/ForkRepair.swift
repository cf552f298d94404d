internal import CGevent
internal import Glibc

extension Hub {
    /// Repairs the hub if it was forked; if that fails, the next poll tries again.
    package func noticeFork() {
        if !pointer.pointee.is_forked { return }
        do throws(LoopError) {
            try recoverFromFork()
        } catch {
            // The flag is still set.
        }
    }

    /// Repairs the hub in a child process, whose loop still uses the parent's kernel objects.
    package func recoverFromFork() throws(LoopError) {
        // Only once per fork: the repair below may be retried after the child has started work of its own.
        if inheritanceMarkedProcess != getpid() {
            inheritanceMarkedProcess = getpid()
            markInherited()
        }
        try loop.recoverAfterFork()
        pointer.pointee.is_forked = false
        process = getpid()
        HubRegistry.keepOnly(handle, serial: pointer.pointee.serial)
        // Notifying one service may remove another that was made for it.
        for service in services where services.contains(where: { $0 === service }) { service.hubDidFork() }
        descriptors.rearmAll()
    }

    /// Marks the greenlets and callbacks from before the fork, which only the parent may end.
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
                // Its greenlet has a stack, and was marked above.
                break
            }
        }
    }

    /// Prevents everything inherited from before the fork from running in this process: bodies and their clean-up would
    /// run twice. Therefore their memory is not released either. Returns how many stacks stay occupied.
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

    /// Returns whether the entry is inherited. Appends its greenlet to `unstarted` if the entry would start one.
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

    /// Abandons greenlets, which never run again. Their stacks, if they have any, are released with the hub; objects
    /// that the stacks retain are leaked. The caller must keep the greenlets alive during the call.
    func abandon(_ greenlets: [AnyGreenlet]) {
        // All are detached first: code that runs because of a release or a notification finds none of them.
        let states = greenlets.map { $0.isInherited ? detachInherited($0) : detach($0) }
        // A scope that continues need not wait for them.
        for greenlet in greenlets { if let member = greenlet.member { GreenletGroup.memberEnded(member) } }
        for state in states { state?.release(pointer) }
    }

    /// The resources that an abandoned greenlet's context held.
    private struct AbandonedState {
        /// Retained until all abandoned greenlets are detached.
        let errors: PendingErrors?
        let locals: UnsafeMutablePointer<gevent_locals>?

        func release(_ hub: UnsafeMutablePointer<gevent_hub>) {
            if let locals { LocalTable.free(locals, hub) }
        }
    }

    private func detach(_ greenlet: AnyGreenlet) -> AbandonedState {
        let state = AbandonedState(errors: greenlet.pendingErrors, locals: greenlet.context?.pointee.locals)
        greenlet.dropPendingErrors()
        if let context = greenlet.context {
            Timeout.cancelAll(of: context)
            context.pointee.locals = nil
        }
        markAbandoned(greenlet)
        return state
    }

    /// Detaches an inherited greenlet without releasing its locals; the parent process has them too and releases them.
    private func detachInherited(_ greenlet: AnyGreenlet) -> AbandonedState? {
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
            // No surviving list or table may reference the abandoned stack.
            gevent_wait_abandon(context)
            context.pointee.owner = nil
        }
        greenlet.phase = .ended
        greenlet.context = nil
        (greenlet as? JoinableGreenlet)?.outcomeError = GreenletExit()
    }
}
