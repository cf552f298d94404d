internal import CGevent
internal import Synchronization

/// The way into a hub from other threads, and the only one.
///
/// Sendable, and safe to keep after the hub is gone: posts are then refused.
public final class HubHandle: Sendable {
    private typealias Job = @Sendable () -> Void

    /// Jobs that the hub has not taken yet, in the order of their posts. They lie in chunks, which the hub takes and
    /// gives back one at a time: however many are posted in a burst, none of their memory outlives it.
    private struct Mailbox {
        static var chunkSize: Int { 1024 }

        /// Full chunks; those before `firstFull` are taken.
        var full: [[Job]] = []
        var firstFull = 0
        /// The chunk that is being filled.
        var latest: [Job] = []
        /// Jobs that were ever accepted.
        var acceptedCount: UInt64 = 0
        /// The hub polls, or is about to, and will not look at the mailbox before the poll returns.
        var hubMaySleep = false
        var isClosed = false

        mutating func add(_ job: @escaping Job) {
            acceptedCount += 1
            latest.append(job)
            if latest.count < Mailbox.chunkSize { return }
            full.append(latest)
            latest = []
        }

        /// Puts the jobs that were posted first into `chunk`, which is empty. Returns whether there are more.
        mutating func take(into chunk: inout [Job]) -> Bool {
            if firstFull == full.count {
                // Its memory is used again.
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

    /// Everything in it is looked at with the lock held.
    nonisolated(unsafe) private var mailbox = Mailbox()
    /// What the hub has taken and not run: in reverse order, so that each job is released as soon as it has run.
    /// `nonisolated(unsafe)`: on the hub's thread only.
    nonisolated(unsafe) private var taken: [Job] = []
    /// Not a Mutex, which does not survive a fork. Also known to the hub's C part, so as to be held while the process
    /// is copied. `nonisolated(unsafe)`: a C lock, made for use from any thread, and never another one.
    nonisolated(unsafe) let lock = gevent_mailbox_lock_create()!
    /// A hint for the hub, so that an iteration without mail takes no lock. Changed inside the lock, so that a hub that
    /// takes the lock and finds no job cannot miss it.
    private let mailFlag = Atomic<Bool>(false)
    /// Jobs that have run. Only the hub changes it. Others compare it with the number of accepted ones, inside the
    /// lock: an earlier value than the latest only lets more jobs seem to wait.
    private let ranCount = Atomic<UInt64>(0)
    private let waker: any LoopWaker

    init(waker: any LoopWaker) {
        self.waker = waker
    }

    deinit { gevent_mailbox_lock_destroy(lock) }

    /// Calls `job` on the hub's thread, soon; posts of one thread in their order. Returns whether the hub is there to
    /// do so. Any thread; never parks and never blocks longer than another post.
    ///
    /// The job runs on the hub and must not park; it may spawn. Jobs run between timers and descriptors, for at most
    /// ``Hub/switchInterval`` at a time, so a flood of posts does not starve them; but each post takes memory until its
    /// job has run. A thread that may post faster than the hub can keep up calls ``post(limit:_:)``.
    ///
    /// A hub in which nothing else can happen reports that it would block forever although a post might come:
    /// ``Hub/hold()`` makes it wait. In a forked child the hubs of other threads do not exist, and refuse.
    ///
    /// gevent: `loop.run_callback_threadsafe(func)`.
    @discardableResult
    public func post(_ job: @escaping @Sendable () -> Void) -> Bool { accept(job, limit: .max) }

    /// Calls `job` on the hub's thread like ``post(_:)``, unless `limit` jobs or more wait there already, by whomever
    /// they were posted. Returns whether it will be called: false if it was refused for that reason, or because the hub
    /// is gone.
    ///
    /// For a thread that may post faster than the hub can keep up. One that is refused drops what it had, combines it
    /// with what comes next, or waits before it tries again. Any thread; never parks.
    public func post(limit: Int, _ job: @escaping @Sendable () -> Void) -> Bool { accept(job, limit: limit) }

    private func accept(_ job: @escaping Job, limit: Int) -> Bool {
        // The race: the hub may be on its way into a poll that would not see this job. Both sides go through the lock.
        // Either the hub comes first and has set `hubMaySleep`: then the poll is woken, which is sticky, so it does not
        // matter whether it has begun. Or the post comes first: then the hub finds the job and does not sleep.
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

    /// Inside the lock.
    private func waitingCount(of box: borrowing Mailbox) -> Int {
        Int(box.acceptedCount - ranCount.load(ordering: .relaxed))
    }

    /// For the hub's own thread, which is there.
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

    /// Announces a poll that may sleep. Refused if there is mail.
    func prepareToSleep() -> Bool {
        if !taken.isEmpty { return false }
        return withMailbox { box in
            if !box.latest.isEmpty || !box.full.isEmpty { return false }
            box.hubMaySleep = true
            return true
        }
    }

    /// The poll is over.
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
        // Released outside the lock: what a job captured may post when it goes.
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
