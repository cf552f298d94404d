internal import CGeventSystem
internal import Glibc

/// A waker made of an eventfd: what a loop that can watch a descriptor needs to be woken.
///
/// The loop watches ``fileDescriptor`` for reading. Either edge-triggered, and each ``wake()`` is one event; or
/// level-triggered, and it calls ``drain()`` when the event comes.
///
/// The waker owns the eventfd, and closes it when its last holder lets go. So a thread that wakes a loop which was
/// closed meanwhile writes to a counter nobody reads: it can never hit a descriptor number that was closed and reused,
/// and no lock is needed to be sure of that. The wakers of C libraries cannot promise it: `uv_async_send` and
/// `ev_async_send` must not be called once the loop is being closed.
public final class EventWaker: LoopWaker {
    /// The eventfd. Its number never changes, not even in a forked child; what is behind it may.
    public let fileDescriptor: CInt

    /// A waker that nobody has woken.
    ///
    /// - Throws: ``LoopError`` with code `outOfResources` if there are no descriptors left.
    public init() throws(LoopError) {
        fileDescriptor = try LoopError.check(gevent_eventfd(), "eventfd")
    }

    deinit {
        _ = Glibc.close(fileDescriptor)
    }

    /// Adds one to the counter. `EAGAIN`, after 2^64 wakes, would mean that the loop has enough of them.
    ///
    /// A write that a signal interrupts is repeated: nothing else would wake the loop.
    public func wake() {
        // A signal handler may call this: the code it interrupts must find its `errno` as it was.
        let saved = errno
        var one: UInt64 = 1
        while write(fileDescriptor, &one, MemoryLayout<UInt64>.size) < 0 && errno == EINTR {}
        errno = saved
    }

    /// Takes all wakes out of the counter: they become one. For the thread of the loop.
    public func drain() {
        var count: UInt64 = 0
        _ = read(fileDescriptor, &count, MemoryLayout<UInt64>.size)
    }

    /// Puts a fresh counter behind the same number: the old one is shared with the parent process, whose loop would
    /// be woken by this one's wakes. For ``Loop/recoverAfterFork()``.
    ///
    /// Replacing by `dup3` is atomic, so a `wake()` at the same moment reaches one of the two and never a closed
    /// number.
    ///
    /// - Throws: ``LoopError`` with code `outOfResources` if there are no descriptors left.
    public func replaceAfterFork() throws(LoopError) {
        let fresh = try LoopError.check(gevent_eventfd(), "eventfd")
        try LoopError.check(gevent_replace(fileDescriptor, fresh), "dup3")
    }
}
