internal import Gevent
internal import Glibc

/// A byte in the pipe is a wake that was not seen yet. The pipe lives as long as anybody holds the waker, so that a wake
/// after the loop was closed cannot hit a descriptor that took the number.
final class WakePipe: LoopWaker {
    let readEnd: CInt
    private let writeEnd: CInt

    init() throws(LoopError) {
        (readEnd, writeEnd) = try Self.open()
    }

    deinit {
        close(readEnd)
        close(writeEnd)
    }

    func wake() {
        // A signal handler may call this, and must leave errno as it was.
        let saved = errno
        var byte: UInt8 = 1
        // If the pipe is full, there are wakes enough in it.
        _ = write(writeEnd, &byte, 1)
        errno = saved
    }

    func drain() {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { bytes in
            while read(readEnd, bytes.baseAddress, bytes.count) > 0 {}
        }
    }

    /// The pipe is shared with the parent: a fresh one takes its place behind the same numbers.
    func replaceAfterFork() throws(LoopError) {
        let fresh = try Self.open()
        defer {
            close(fresh.0)
            close(fresh.1)
        }
        for (number, end) in [(readEnd, fresh.0), (writeEnd, fresh.1)] {
            if dup2(end, number) < 0 { throw LoopError(errno: errno, operation: "dup2") }
            _ = fcntl(number, F_SETFD, FD_CLOEXEC)
        }
    }

    private static func open() throws(LoopError) -> (CInt, CInt) {
        var ends: [CInt] = [-1, -1]
        if pipe(&ends) < 0 { throw LoopError(errno: errno, operation: "pipe") }
        for end in ends {
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
        }
        return (ends[0], ends[1])
    }
}
