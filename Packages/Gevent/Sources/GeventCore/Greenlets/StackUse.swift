internal import CGevent

extension AnyGreenlet {
    /// The largest number of bytes of its stack that have been in use so far; nil if it does not run on a stack of the
    /// library: main, a greenlet that has not run, or one that has ended.
    ///
    /// The value is an upper bound: stacks are reused, and bytes that an earlier greenlet touched count too, except on
    /// pages that were returned to the system while the stack was idle. Nothing is recorded while greenlets run;
    /// reading this property scans the stack's memory, which takes microseconds.
    public final var stackHighWaterMark: Int? {
        let hub = requireOwnHub()
        guard let context, context != gevent_hub_main(hub) else { return nil }
        return gevent_stack_used(context)
    }
}

extension Hub {
    /// The largest number of bytes in use so far on any default-size stack of the thread whose memory is still held, in
    /// use or idle; nil if there is none. Compare it with ``usableStackSize`` to choose `GEVENT_STACK_SIZE`. Stacks of
    /// other sizes do not count; see ``Gevent/spawn(stackSize:_:)``.
    ///
    /// Linear in the number of stacks ever used, at about a microsecond each.
    public var deepestStack: Int? {
        if isDestroyed { return nil }
        let used = gevent_stacks_most_used(&pointer.pointee.stacks)
        return used > 0 ? used : nil
    }

    /// The number of bytes of a default-size stack that a greenlet can use: its size without the guard.
    public var usableStackSize: Int {
        isDestroyed ? 0 : pointer.pointee.stacks.slot_size - pointer.pointee.stacks.guard_size
    }
}
