internal import Glibc

/// A lock with the value it guards, for what lives on in a forked child. There a `Mutex` of the standard library cannot
/// be contended for: it names its holder by a number that the forking thread remembers from its parent, and traps.
///
/// Unchecked, because `value` is touched only with the lock held.
package final class ForkableMutex<Value>: @unchecked Sendable {
    private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private var value: Value

    package init(_ value: Value) {
        self.value = value
        reset()
    }

    deinit {
        pthread_mutex_destroy(lock)
        lock.deallocate()
    }

    /// Makes the lock free. In a forked child, a thread that does not exist there may have held it.
    package func reset() { pthread_mutex_init(lock, nil) }

    package func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        return try body(&value)
    }
}
