internal import CGevent
internal import Synchronization

/// The way into a hub from other threads, and the only one.
///
/// Sendable, and safe to keep after the hub is gone: posts are then refused.
public final class HubHandle: Sendable {
    private struct Mailbox {
        var jobs: [@Sendable () -> Void] = []
        /// The hub polls, or is about to, and will not look at the mailbox before the poll returns.
        var hubMaySleep = false
        var isClosed = false
    }

    /// Everything in it is looked at with the lock held.
    nonisolated(unsafe) private var mailbox = Mailbox()
    /// Not a Mutex, which does not survive a fork. Also known to the hub's C part, so as to be held while the process
    /// is copied. `nonisolated(unsafe)`: a C lock, made for use from any thread, and never another one.
    nonisolated(unsafe) let lock = gevent_mailbox_lock_create()!
    /// A hint for the hub, so that an iteration without mail takes no lock. Set inside the lock, so that a hub that
    /// takes the lock and finds no job cannot miss it.
    private let mailFlag = Atomic<Bool>(false)
    private let waker: any LoopWaker

    init(waker: any LoopWaker) {
        self.waker = waker
    }

    deinit { gevent_mailbox_lock_destroy(lock) }

    /// Calls `job` on the hub's thread, soon; posts of one thread in their order. Returns whether the hub is there to
    /// do so. Any thread; never parks and never blocks longer than another post.
    ///
    /// The job runs on the hub and must not park; it may spawn. A hub in which nothing else can happen reports that it
    /// would block forever although a post might come: ``Hub/hold()`` makes it wait. In a forked child the hubs of
    /// other threads do not exist, and refuse.
    ///
    /// gevent: `loop.run_callback_threadsafe(func)`.
    @discardableResult
    public func post(_ job: @escaping @Sendable () -> Void) -> Bool {
        // The race: the hub may be on its way into a poll that would not see this job. Both sides go through the lock.
        // Either the hub comes first and has set `hubMaySleep`: then the poll is woken, which is sticky, so it does not
        // matter whether it has begun. Or the post comes first: then the hub finds the job and does not sleep.
        guard gevent_mailbox_lock_acquire(lock) else { return false }
        var isTaken = false
        var mustWake = false
        if !mailbox.isClosed {
            isTaken = true
            mailbox.jobs.append(job)
            mailFlag.store(true, ordering: .releasing)
            // One wake is enough until the hub has been awake again.
            mustWake = mailbox.hubMaySleep
            mailbox.hubMaySleep = false
        }
        gevent_mailbox_lock_release(lock)
        if mustWake { waker.wake() }
        return isTaken
    }

    /// For the hub's own thread, which is there.
    private func withMailbox<Value>(_ body: (inout Mailbox) -> Value) -> Value {
        _ = gevent_mailbox_lock_acquire(lock)
        defer { gevent_mailbox_lock_release(lock) }
        return body(&mailbox)
    }

    // MARK: The hub's side

    var hasMail: Bool { mailFlag.load(ordering: .acquiring) }

    /// Announces a poll that may sleep. Refused if there is mail.
    func prepareToSleep() -> Bool {
        withMailbox { box in
            if !box.jobs.isEmpty { return false }
            box.hubMaySleep = true
            return true
        }
    }

    /// The poll is over.
    func awake() {
        withMailbox { $0.hubMaySleep = false }
    }

    /// Runs what was posted so far. What these jobs post runs in the next iteration.
    func runJobs() {
        let jobs = withMailbox { box in
            mailFlag.store(false, ordering: .relaxed)
            defer { box.jobs.removeAll() }
            return box.jobs
        }
        for job in jobs { job() }
    }

    func close() {
        // Released outside the lock: what a job captured may post when it goes.
        let dropped = withMailbox { box in
            box.isClosed = true
            defer { box.jobs.removeAll() }
            return box.jobs
        }
        _ = consume dropped
    }
}
