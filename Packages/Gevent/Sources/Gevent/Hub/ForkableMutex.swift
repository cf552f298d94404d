internal import Glibc

/// A lock with the value it guards, for what lives on in a forked child. There a `Mutex` of the standard library cannot
/// be contended for: it names its holder by a number that the forking thread remembers from its parent, and traps.
///
/// Unchecked, because `value` is touched only with the lock held.
final class ForkableMutex<Value>: @unchecked Sendable {
    private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var value: Value

    init(_ value: Value) {
        self.value = value
        makeAnew()
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(lock)
        condition.deallocate()
        lock.deallocate()
    }

    /// In a forked child: nobody holds it or waits, whatever a thread that is not there did.
    func makeAnew() {
        pthread_mutex_init(lock, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        return try body(&value)
    }

    /// The same, and whoever waits for a change looks again.
    func change<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        defer { pthread_cond_broadcast(condition) }
        return try withLock(body)
    }

    /// What `body` returns for once: until then it is asked after each change, and at the moment on the monotonic clock
    /// that it names.
    func wait<Result>(_ body: (inout Value) -> Waiting<Result>) -> Result {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        while true {
            switch body(&value) {
            case .over(let result):
                return result
            case .untilChange:
                pthread_cond_wait(condition, lock)
            case .until(let moment):
                var deadline = timespec(tv_sec: Int(moment / 1_000_000_000), tv_nsec: Int(moment % 1_000_000_000))
                pthread_cond_timedwait(condition, lock, &deadline)
            }
        }
    }

    /// What comes of looking at the value.
    enum Waiting<Result> {
        case over(Result)
        case untilChange
        case until(Int64)
    }
}
