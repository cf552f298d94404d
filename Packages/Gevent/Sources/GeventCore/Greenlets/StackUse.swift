internal import CGevent

extension AnyGreenlet {
    /// The bytes of its stack that have been in use at the deepest, so far; nil if it has no stack of the library's:
    /// main, a greenlet that has not run, one that is over.
    ///
    /// An upper bound: stacks are used again, and what an earlier greenlet has touched counts too. What an idle stack
    /// has given back to the system counts in whole pages. Nothing is recorded while greenlets run; asking looks
    /// through the stack's memory, which takes microseconds.
    public final var stackHighWaterMark: Int? {
        let hub = requireOwnHub()
        guard let context, context != gevent_hub_main(hub) else { return nil }
        return gevent_stack_used(context)
    }
}

extension Hub {
    /// The bytes in use at the deepest on any of the thread's stacks of the default size whose memory is still held, in
    /// use or idle; nil if there is none. With this and ``usableStackSize``, `GEVENT_STACK_SIZE` can be chosen. Stacks
    /// of a size of their own do not count; see ``Gevent/spawn(stackSize:_:)``.
    ///
    /// Linear in the stacks ever used, at about a microsecond each.
    public var deepestStack: Int? {
        if isDestroyed { return nil }
        let used = gevent_stacks_most_used(&pointer.pointee.stacks)
        return used > 0 ? used : nil
    }

    /// The bytes of a stack of the default size that a greenlet can use: its size without the guard.
    public var usableStackSize: Int {
        isDestroyed ? 0 : pointer.pointee.stacks.slot_size - pointer.pointee.stacks.guard_size
    }
}
