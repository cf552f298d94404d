// Finds, once per process, the runtime's thread-local words that must be switched with a greenlet. See
// gevent_thread_words.h.

internal import CGevent
internal import Glibc
internal import Synchronization

/// The locations of the runtime's thread-local words.
struct RuntimeWords: Sendable {
    /// The head of the list of open exclusive accesses.
    var accessHead = gevent_thread_word()
    /// The task-local fallback: the last word of the Concurrency runtime's block. The current task is two words before
    /// it.
    var taskLocalFallback = gevent_thread_word()

    /// The locations, found once on a new thread, because the caller's thread may be running a task or have
    /// task-locals.
    static let found: RuntimeWords = {
        let result = Mutex(RuntimeWords())
        onFreshThread { result.withLock { $0 = RuntimeWords.probe() } }
        return result.withLock { $0 }
    }()

    private static func probe() -> RuntimeWords {
        var words = RuntimeWords()
        words.accessHead = gevent_find_access_head()
        words.taskLocalFallback = findTaskLocalFallback()
        return words
    }

    /// Finds the word that changes when a task-local is bound outside a task. Not found unless the current task is
    /// stored two words before it.
    private static func findTaskLocalFallback() -> gevent_thread_word {
        let before = gevent_thread_snapshot_take()
        var inside: OpaquePointer?
        var deeper: OpaquePointer?
        Probe.$value.withValue(1) {
            inside = gevent_thread_snapshot_take()
            Probe.$value.withValue(2) { deeper = gevent_thread_snapshot_take() }
        }
        let after = gevent_thread_snapshot_take()
        defer { for snapshot in [before, inside, deeper, after] { gevent_thread_snapshot_free(snapshot) } }
        var word = gevent_find_pushed_word(before, inside, deeper, after)
        if word.found && !currentTaskStands(twoWordsBefore: word) { word.found = false }
        return word
    }

    /// Runs a task on the calling thread and checks whether the runtime's current task is where the layout says.
    private static func currentTaskStands(twoWordsBefore word: gevent_thread_word) -> Bool {
        let executor = InlineExecutor()
        let verdict = Verdict()
        Task(executorPreference: executor) {
            guard let task = gevent_current_task(), let block = gevent_thread_word_address(word, -2, 3) else { return }
            verdict.isRight.store(block[0] == task, ordering: .relaxed)
        }
        executor.runJobs()
        return verdict.isRight.load(ordering: .relaxed)
    }

    private enum Probe {
        @TaskLocal static var value = 0
    }

    private final class Verdict: Sendable {
        let isRight = Atomic<Bool>(false)
    }
}

/// Runs jobs on the thread that calls `runJobs`, so that probing starts no thread pool.
private final class InlineExecutor: TaskExecutor {
    private let jobs = Mutex<[UnownedJob]>([])

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        jobs.withLock { $0.append(job) }
    }

    func runJobs() {
        while let job = jobs.withLock({ $0.popLast() }) {
            job.runSynchronously(on: asUnownedTaskExecutor())
        }
    }
}

/// Calls `body` on a new thread and waits for it. Does not call it if no thread can be made.
private func onFreshThread(_ body: @escaping @Sendable () -> Void) {
    final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    let box = Unmanaged.passRetained(Box(body))
    var thread = pthread_t()
    let error = pthread_create(
        &thread, nil,
        { argument in
            Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body()
            return nil
        }, box.toOpaque())
    if error != 0 {
        box.release()
        return
    }
    pthread_join(thread, nil)
}
