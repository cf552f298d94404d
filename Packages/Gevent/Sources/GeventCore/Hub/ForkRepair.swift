internal import CGevent
internal import Glibc

extension Hub {
    /// Repairs the hub if it has to be, or leaves that to the next poll.
    package func noticeFork() {
        if !pointer.pointee.is_forked { return }
        do throws(LoopError) {
            try recoverFromFork()
        } catch {
            // The flag is still set.
        }
    }

    /// This is a child process, whose loop still works on the parent's kernel objects.
    package func recoverFromFork() throws(LoopError) {
        // Once for each fork: what fails below is tried again when the child has begun things of its own.
        if inheritanceMarkedProcess != getpid() {
            inheritanceMarkedProcess = getpid()
            markInherited()
        }
        try loop.recoverAfterFork()
        pointer.pointee.is_forked = false
        process = getpid()
        HubRegistry.keepOnly(handle, serial: pointer.pointee.serial)
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
