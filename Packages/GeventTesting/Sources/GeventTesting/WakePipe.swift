internal import CGeventSystem
@_spi(GeventInternals) internal import GeventLoop
internal import Glibc

/// A waker made of a pipe: a byte in it is a wake that was not yet seen.
///
/// It owns both ends and closes them when its last holder lets go, so a wake after the loop was closed fills a pipe
/// that nobody reads and can never hit a number that was reused.
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

    /// Writes a byte. A full pipe has plenty of wakes in it already, so that failure is a success.
    func wake() {
        // A signal handler may call this: the code it interrupts must find its `errno` as it was.
        let saved = errno
        var byte: UInt8 = 1
        _ = write(writeEnd, &byte, 1)
        errno = saved
    }

    /// Takes all wakes out: they become one.
    func drain() {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { bytes in
            while read(readEnd, bytes.baseAddress, bytes.count) > 0 {}
        }
    }

    /// Puts a fresh pipe behind the same numbers; the old one is shared with the parent process.
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
