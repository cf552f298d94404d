internal import Glibc

/// A buffer borrowed from the pool, and the bytes that were read into it.
@usableFromInline
struct BorrowedBuffer {
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

/// The read buffers of one thread. Reads borrow them, so that a connection that waits for data holds none. Otherwise
/// ten thousand idle connections would each hold at least a page.
final class BufferPool {
    static let bufferSize = 64 << 10
    /// The maximum number of free buffers the pool keeps. It deallocates further ones, so a burst of slow writers does
    /// not cost memory permanently.
    private static let maxFreeBuffers = 16

    // Exclusivity is unchecked: each access is a call of an array's method that runs no other code, and each read on a
    // socket makes two.
    @exclusivity(unchecked) private var free: [UnsafeMutableRawPointer] = []

    private init() {
        free.reserveCapacity(BufferPool.maxFreeBuffers)
    }

    deinit {
        for buffer in free { buffer.deallocate() }
    }

    func acquire() -> UnsafeMutableRawBufferPointer {
        let start = free.popLast() ?? .allocate(byteCount: BufferPool.bufferSize, alignment: 64)
        return UnsafeMutableRawBufferPointer(start: start, count: BufferPool.bufferSize)
    }

    func release(_ buffer: UnsafeMutableRawBufferPointer) {
        guard let start = buffer.baseAddress else { return }
        if free.count < BufferPool.maxFreeBuffers {
            free.append(start)
        } else {
            start.deallocate()
        }
    }

    // MARK: One pool per thread

    /// The calling thread's pool. Greenlets never change threads, so a buffer returns to the pool it came from.
    static var current: BufferPool {
        if let pool = pthread_getspecific(key) {
            return Unmanaged<BufferPool>.fromOpaque(pool).takeUnretainedValue()
        }
        let pool = BufferPool()
        pthread_setspecific(key, Unmanaged.passRetained(pool).toOpaque())
        return pool
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
