internal import CGeventSystem
internal import Glibc

/// A waker on an eventfd, for any loop that can watch a descriptor.
///
/// The loop watches ``fileDescriptor`` for reading. If the loop watches it edge-triggered, each ``wake()`` is one
/// event. If level-triggered, the loop calls ``drain()`` on the event.
///
/// The waker owns the eventfd and closes it when its last reference is released. A thread that wakes a closed loop
/// therefore writes to a counter that no loop reads, and never to a descriptor number that was closed and reused. This
/// needs no lock. The wakers of C libraries have no such guarantee: `uv_async_send` and `ev_async_send` must not be
/// called once the loop is being closed.
public final class EventWaker: LoopWaker {
    /// The eventfd. Its number never changes, not even in a forked child, where the open file is replaced.
    public let fileDescriptor: CInt

    /// Creates a waker without a pending wake.
    ///
    /// - Throws: ``LoopError`` with code `outOfResources` if there are no descriptors left.
    public init() throws(LoopError) {
        fileDescriptor = try LoopError.check(gevent_eventfd(), "eventfd")
    }

    deinit {
        _ = Glibc.close(fileDescriptor)
    }

    /// Adds one to the counter. `EAGAIN`, after 2^64 wakes, is ignored because wakes are already pending.
    ///
    /// A write that a signal interrupts is repeated, because nothing else would wake the loop.
    public func wake() {
        // A signal handler may call this, so `errno` is restored for the interrupted code.
        let saved = errno
        var one: UInt64 = 1
        while write(fileDescriptor, &one, MemoryLayout<UInt64>.size) < 0 && errno == EINTR {}
        errno = saved
    }

    /// Resets the counter, which coalesces all pending wakes into one. Only the loop's thread may call it.
    public func drain() {
        var count: UInt64 = 0
        _ = read(fileDescriptor, &count, MemoryLayout<UInt64>.size)
    }

    /// Replaces the counter by a new one under the same number. The old counter is shared with the parent process,
    /// whose loop this waker would otherwise wake. For ``Loop/recoverAfterFork()``.
    ///
    /// `dup3` replaces atomically, so a concurrent `wake()` reaches one of the two counters and never a closed number.
    ///
    /// - Throws: ``LoopError`` with code `outOfResources` if there are no descriptors left.
    public func replaceAfterFork() throws(LoopError) {
        let fresh = try LoopError.check(gevent_eventfd(), "eventfd")
        try LoopError.check(gevent_replace(fileDescriptor, fresh), "dup3")
    }
}
