internal import Glibc
internal import Synchronization

/// A thread that runs a closure, for wakes and writes from another thread.
struct CheckThread {
    private let handle: pthread_t

    /// Starts the closure on a new thread.
    init(_ body: @escaping @Sendable () -> Void) {
        final class Box {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        var handle = pthread_t()
        let argument = Unmanaged.passRetained(Box(body)).toOpaque()
        let result = pthread_create(
            &handle, nil,
            { argument in
                // `passRetained` above gave this thread the only reference; a thread always gets its argument.
                if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, argument)
        precondition(result == 0, "cannot start a thread: errno \(result)")
        self.handle = handle
    }

    /// Waits for the closure to return.
    func join() {
        pthread_join(handle, nil)
    }

    /// Detaches the thread.
    func detach() {
        pthread_detach(handle)
    }
}

/// Runs the closure on a new thread.
///
/// - Returns: `.some(result)` if the closure returned in time, else nil.
func runOnThread(seconds: CInt, _ body: @escaping @Sendable () -> String?) -> String?? {
    final class Outcome: Sendable {
        let value = Mutex<String??>(nil)
    }
    let outcome = Outcome()
    // The closure signals its end through a pipe, which can be waited for with a timeout.
    var ends: [CInt] = [-1, -1]
    precondition(pipe(&ends) == 0, "cannot open a pipe: errno \(errno)")
    let (readEnd, writeEnd) = (ends[0], ends[1])
    let thread = CheckThread {
        let result = body()
        outcome.value.withLock { $0 = .some(result) }
        var byte: UInt8 = 1
        // Writes a byte instead of only closing, because a forked child may hold the write end open for longer.
        _ = write(writeEnd, &byte, 1)
        close(writeEnd)
    }
    var request = pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0)
    var count: CInt
    repeat { count = poll(&request, 1, seconds * 1000) } while count < 0 && errno == EINTR
    if count > 0 {
        thread.join()
        close(readEnd)
    } else {
        // The read end stays open, because a late byte would otherwise raise SIGPIPE.
        thread.detach()
    }
    return outcome.value.withLock { $0 }
}
