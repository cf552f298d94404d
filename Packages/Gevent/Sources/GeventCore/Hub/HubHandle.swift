internal import CGevent
internal import Synchronization

/// The handle through which other threads reach a hub; there is no other way.
///
/// Sendable, and safe to keep after the hub is destroyed: posts are then refused.
public final class HubHandle: Sendable {
    private typealias Job = @Sendable () -> Void

    /// Jobs that the hub has not taken yet, in the order of their posts. They are stored in chunks, which the hub takes
    /// and releases one at a time, so no memory of a burst of posts outlives the burst.
    private struct Mailbox {
        static var chunkSize: Int { 1024 }

        /// Full chunks; those before `firstFull` are taken.
        var full: [[Job]] = []
        var firstFull = 0
        /// The chunk that is being filled.
        var latest: [Job] = []
        /// The number of jobs ever accepted.
        var acceptedCount: UInt64 = 0
        /// Whether the hub polls, or is about to, and checks the mailbox only after the poll returns.
        var hubMaySleep = false
        var isClosed = false

        mutating func add(_ job: @escaping Job) {
            acceptedCount += 1
            latest.append(job)
            if latest.count < Mailbox.chunkSize { return }
            full.append(latest)
            latest = []
        }

        /// Moves the oldest chunk of jobs into `chunk`, which is empty. Returns whether there are more.
        mutating func take(into chunk: inout [Job]) -> Bool {
            if firstFull == full.count {
                // The memory of `chunk` is reused.
                swap(&chunk, &latest)
                return false
            }
            swap(&chunk, &full[firstFull])
            full[firstFull] = []
            firstFull += 1
            if firstFull == full.count { (full, firstFull) = ([], 0) }
            return !full.isEmpty || !latest.isEmpty
        }
    }

    /// `nonisolated(unsafe)`: accessed only with the lock held.
    nonisolated(unsafe) private var mailbox = Mailbox()
    /// The jobs that the hub has taken and not run, in reverse order, so that each is released as soon as it has run.
    /// `nonisolated(unsafe)`: accessed on the hub's thread only.
    nonisolated(unsafe) private var taken: [Job] = []
    /// Not a Mutex, which does not survive a fork. The hub's C part also knows it, and holds it during a fork.
    /// `nonisolated(unsafe)`: a C lock, made for use from any thread, and never replaced.
    nonisolated(unsafe) let lock = gevent_mailbox_lock_create()!
    /// A hint for the hub, so that an iteration without mail takes no lock. It is changed with the lock held, so a hub
    /// that takes the lock and finds no job cannot miss it.
    private let mailFlag = Atomic<Bool>(false)
    /// The number of jobs that have run. Only the hub changes it. Posts compare it with the accepted count, with the
    /// lock held: a stale value only makes more jobs appear to wait.
    private let ranCount = Atomic<UInt64>(0)
    private let waker: any LoopWaker

    init(waker: any LoopWaker) {
        self.waker = waker
    }

    deinit { gevent_mailbox_lock_destroy(lock) }

    /// Calls `job` on the hub's thread, soon; jobs posted by one thread run in order. Returns whether the job was
    /// accepted: false if the hub is destroyed. Any thread; never parks and never blocks longer than another post.
    ///
    /// The job runs on the hub and must not park; it may spawn. Jobs run before timers, for at most
    /// ``Hub/switchInterval`` at a time, so a flood of posts does not starve them. Each post takes memory until its job
    /// has run, so a thread that may post faster than the hub can run the jobs calls ``post(limit:_:)``.
    ///
    /// A hub with nothing else pending reports that it would block forever, although a post might arrive;
    /// ``Hub/hold()`` makes it wait. In a forked child the hubs of other threads do not exist and refuse posts.
    ///
    /// gevent: `loop.run_callback_threadsafe(func)`.
    @discardableResult
    public func post(_ job: @escaping @Sendable () -> Void) -> Bool { accept(job, limit: .max) }

    /// Calls `job` on the hub's thread like ``post(_:)``, unless `limit` or more jobs already wait there, from any
    /// thread. Returns whether the job was accepted: false if the limit is reached or the hub is destroyed.
    ///
    /// For a thread that may post faster than the hub can run the jobs. If a post is refused, the thread can drop the
    /// job, combine it with the next one, or wait before it tries again. Any thread; never parks.
    public func post(limit: Int, _ job: @escaping @Sendable () -> Void) -> Bool { accept(job, limit: limit) }

    private func accept(_ job: @escaping Job, limit: Int) -> Bool {
        // The race: the hub may be about to start a poll that would not see this job. Both sides take the lock. If the
        // hub is first, it has set `hubMaySleep`: then the poll is woken, and since wakes are sticky it does not matter
        // whether the poll has begun. If the post is first, the hub finds the job and does not sleep.
        guard gevent_mailbox_lock_acquire(lock) else { return false }
        var isTaken = false
        var mustWake = false
        if !mailbox.isClosed && (limit == .max || waitingCount(of: mailbox) < limit) {
            isTaken = true
            mailbox.add(job)
            mailFlag.store(true, ordering: .releasing)
            // One wake is enough until the hub has been awake again.
            mustWake = mailbox.hubMaySleep
            mailbox.hubMaySleep = false
        }
        gevent_mailbox_lock_release(lock)
        if mustWake { waker.wake() }
        return isTaken
    }

    /// Returns how many jobs of `box` have not run. The lock must be held.
    private func waitingCount(of box: borrowing Mailbox) -> Int {
        Int(box.acceptedCount - ranCount.load(ordering: .relaxed))
    }

    /// Calls `body` with the lock held. For the hub's own thread, for which taking the lock never fails.
    private func withMailbox<Value>(_ body: (inout Mailbox) -> Value) -> Value {
        _ = gevent_mailbox_lock_acquire(lock)
        defer { gevent_mailbox_lock_release(lock) }
        return body(&mailbox)
    }

    // MARK: The hub's side

    var hasMail: Bool { !taken.isEmpty || mailFlag.load(ordering: .acquiring) }

    /// How many jobs were accepted, and how many of them have not run.
    var counts: (accepted: UInt64, waiting: Int) {
        withMailbox { box in (box.acceptedCount, waitingCount(of: box)) }
    }

    /// Announces a poll that may sleep. Returns false if there is mail.
    func prepareToSleep() -> Bool {
        if !taken.isEmpty { return false }
        return withMailbox { box in
            if !box.latest.isEmpty || !box.full.isEmpty { return false }
            box.hubMaySleep = true
            return true
        }
    }

    /// Announces the end of the poll.
    func awake() {
        withMailbox { $0.hubMaySleep = false }
    }

    /// Runs the next `count` jobs. At least `count` jobs must be waiting.
    func runJobs(_ count: Int) {
        for _ in 0..<count {
            if taken.isEmpty { takeJobs() }
            guard let job = taken.popLast() else { return }
            job()
            ranCount.store(ranCount.load(ordering: .relaxed) + 1, ordering: .relaxed)
        }
    }

    private func takeJobs() {
        var chunk: [Job] = []
        swap(&chunk, &taken)
        withMailbox { box in
            let hasMore = box.take(into: &chunk)
            mailFlag.store(hasMore, ordering: .relaxed)
        }
        chunk.reverse()
        taken = chunk
    }

    func close() {
        // Released without the lock: the objects that a job captured may post when they are deallocated.
        let dropped = withMailbox { box in
            box.isClosed = true
            defer { (box.full, box.firstFull, box.latest) = ([], 0, []) }
            return (box.full, box.latest)
        }
        let droppedToo = taken
        taken = []
        ranCount.store(counts.accepted, ordering: .relaxed)
        withExtendedLifetime((dropped, droppedToo)) {}
    }
}
