internal import CGeventSystem
@_spi(GeventInternals) internal import GeventLoop
internal import Glibc

/// A waker on a pipe. Each byte in the pipe is a pending wake.
///
/// It owns both ends and closes them when its last reference is released. A wake after the loop was closed therefore
/// fills a pipe that has no reader, and never hits a reused number.
final class WakePipe: LoopWaker {
    let readEnd: CInt
    private let writeEnd: CInt

    init() throws(LoopError) {
        (readEnd, writeEnd) = try Self.open()
    }

    deinit {
        _ = Glibc.close(readEnd)
        _ = Glibc.close(writeEnd)
    }

    /// Writes a byte. The failure on a full pipe is ignored, because wakes are already pending.
    func wake() {
        // A signal handler may call this, so `errno` is restored for the interrupted code.
        let saved = errno
        var byte: UInt8 = 1
        _ = write(writeEnd, &byte, 1)
        errno = saved
    }

    /// Reads all bytes, which coalesces the pending wakes into one.
    func drain() {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { bytes in
            while read(readEnd, bytes.baseAddress, bytes.count) > 0 {}
        }
    }

    /// Replaces the pipe, which is shared with the parent process, by a new one under the same numbers.
    func replaceAfterFork() throws(LoopError) {
        let fresh = try Self.open()
        for result in [gevent_replace(readEnd, fresh.0), gevent_replace(writeEnd, fresh.1)] {
            try LoopError.check(result, "dup3")
        }
    }

    private static func open() throws(LoopError) -> (CInt, CInt) {
        var ends: [CInt] = [-1, -1]
        try LoopError.check(gevent_pipe(&ends), "pipe2")
        return (ends[0], ends[1])
    }
}
