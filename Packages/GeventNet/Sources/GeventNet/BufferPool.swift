internal import Glibc

/// A buffer on loan, and the bytes that were read into it.
@usableFromInline
struct BufferLoan {
    private let pool: BufferPool
    private let buffer: UnsafeMutableRawBufferPointer
    @usableFromInline let bytes: UnsafeRawBufferPointer

    init(_ pool: BufferPool, _ buffer: UnsafeMutableRawBufferPointer, count: Int) {
        self.pool = pool
        self.buffer = buffer
        bytes = UnsafeRawBufferPointer(rebasing: buffer.prefix(count))
    }

    @usableFromInline
    func release() { pool.release(buffer) }
}

/// The buffers one thread lends to reads, so that a connection that waits for data holds none: ten thousand idle ones
/// would otherwise keep a page each, at the least.
final class BufferPool {
    static let bufferSize = 64 << 10
    /// Beyond these, buffers go back to the system: a burst of slow writers should not be paid for ever after.
    private static let mostKept = 16

    // Unchecked exclusivity: each access is a call of an array's that runs nothing of anybody else's, and each read on
    // a socket makes two.
    @exclusivity(unchecked) private var free: [UnsafeMutableRawPointer] = []

    private init() {
        free.reserveCapacity(BufferPool.mostKept)
    }

    deinit {
        for buffer in free { buffer.deallocate() }
    }

    func take() -> UnsafeMutableRawBufferPointer {
        let start = free.popLast() ?? .allocate(byteCount: BufferPool.bufferSize, alignment: 64)
        return UnsafeMutableRawBufferPointer(start: start, count: BufferPool.bufferSize)
    }

    func release(_ buffer: UnsafeMutableRawBufferPointer) {
        guard let start = buffer.baseAddress else { return }
        if free.count < BufferPool.mostKept {
            free.append(start)
        } else {
            start.deallocate()
        }
    }

    // MARK: One per thread

    /// The calling thread's pool. Greenlets never change thread, so whoever takes here gives back here.
    static var current: BufferPool {
        if let found = pthread_getspecific(key) {
            return Unmanaged<BufferPool>.fromOpaque(found).takeUnretainedValue()
        }
        let made = BufferPool()
        pthread_setspecific(key, Unmanaged.passRetained(made).toOpaque())
        return made
    }

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key) { pool in
            guard let pool else { return }
            Unmanaged<BufferPool>.fromOpaque(pool).release()
        }
        return key
    }()
}
