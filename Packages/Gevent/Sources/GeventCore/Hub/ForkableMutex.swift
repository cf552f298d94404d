internal import Glibc

/// A lock and the value that it guards, usable in a forked child. A `Mutex` of the standard library traps there when
/// it is contended: it identifies its holder by a thread number that the forking thread caches from its parent.
///
/// Unchecked, because `value` is accessed only with the lock held.
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

    /// Resets the lock to unlocked. In a forked child, a thread that does not exist there may have held it.
    package func reset() { pthread_mutex_init(lock, nil) }

    package func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        return try body(&value)
    }
}
