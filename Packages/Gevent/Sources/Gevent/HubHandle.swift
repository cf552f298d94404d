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

    private let mailbox = Mutex(Mailbox())
    /// A hint for the hub, so that an iteration without mail takes no lock. Set inside the lock, so that a hub that
    /// takes the lock and finds no job cannot miss it.
    private let mailFlag = Atomic<Bool>(false)
    private let waker: any LoopWaker

    init(waker: any LoopWaker) {
        self.waker = waker
    }

    /// Calls `job` on the hub's thread, soon; posts of one thread in their order. Returns whether the hub is there to do
    /// so. Any thread; never parks and never blocks longer than another post.
    ///
    /// The job runs on the hub and must not park; it may spawn. A hub in which nothing else can happen reports that it
    /// would block forever although a post might come: ``Hub/hold()`` makes it wait.
    ///
    /// gevent: `loop.run_callback_threadsafe(func)`.
    @discardableResult
    public func post(_ job: @escaping @Sendable () -> Void) -> Bool {
        // The race: the hub may be on its way into a poll that would not see this job. Both sides go through the lock.
        // Either the hub comes first and has set `hubMaySleep`: then the poll is woken, which is sticky, so it does not
        // matter whether it has begun. Or the post comes first: then the hub finds the job and does not sleep.
        let (isTaken, mustWake) = withMailbox { box -> (Bool, Bool) in
            if box.isClosed { return (false, false) }
            box.jobs.append(job)
            mailFlag.store(true, ordering: .releasing)
            // One wake is enough until the hub has been awake again.
            defer { box.hubMaySleep = false }
            return (true, box.hubMaySleep)
        }
        if mustWake { waker.wake() }
        return isTaken
    }

    private func withMailbox<Value>(_ body: (inout sending Mailbox) -> sending Value) -> Value {
        let object = UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
        return mailbox.withLock { box in
            gevent_annotate_acquire(object)
            defer { gevent_annotate_release(object) }
            return body(&box)
        }
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
