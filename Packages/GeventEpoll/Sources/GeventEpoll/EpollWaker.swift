internal import CGeventEpoll
internal import GeventLoop
internal import Glibc

/// Wakes an ``EpollLoop`` by an eventfd.
///
/// The waker owns the eventfd, and closes it when its last holder lets go. So a thread that wakes a loop which was
/// closed meanwhile writes to a counter nobody reads: it can never hit a descriptor number that was closed and reused,
/// and no lock is needed to be sure of that.
final class EpollWaker: LoopWaker {
    /// The eventfd. Its number never changes, not even in a forked child; what is behind it may.
    let fileDescriptor: CInt

    init() throws(LoopError) {
        let result = gevent_epoll_eventfd()
        if result < 0 { throw LoopError(errno: -result, operation: "eventfd") }
        fileDescriptor = result
    }

    deinit {
        _ = Glibc.close(fileDescriptor)
    }

    /// Adds one to the counter. `EAGAIN`, after 2^64 wakes, would mean that the loop has enough of them.
    func wake() {
        // A signal handler may call this: the code it interrupts must find its `errno` as it was.
        let saved = errno
        var one: UInt64 = 1
        _ = write(fileDescriptor, &one, MemoryLayout<UInt64>.size)
        errno = saved
    }

    /// Puts a fresh counter behind the same number: the old one is shared with the parent process, whose loop would
    /// be woken by this one's wakes.
    ///
    /// Replacing by `dup3` is atomic, so a `wake()` at the same moment reaches one of the two and never a closed number.
    func replaceAfterFork() throws(LoopError) {
        let fresh = gevent_epoll_eventfd()
        if fresh < 0 { throw LoopError(errno: -fresh, operation: "eventfd") }
        let result = gevent_epoll_replace(fileDescriptor, fresh)
        if result < 0 { throw LoopError(errno: -result, operation: "dup3") }
    }
}
