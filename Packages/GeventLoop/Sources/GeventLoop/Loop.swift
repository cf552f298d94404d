/// An object that wakes a polling loop. It is the only part of a loop that other threads may use.
public protocol LoopWaker: AnyObject, Sendable {
    /// Makes the loop's current poll return, or its next one if none is running.
    ///
    /// Any thread may call it, and so may a signal handler: it takes no lock and allocates nothing. Several calls may
    /// be coalesced into one return. After the loop was closed it does nothing.
    func wake()
}

/// An event loop as the core needs it: a poller, a clock and a waker.
///
/// Timers, the ready queue, waiters and signals belong to the core and therefore behave identically on every loop. The
/// remainder is small enough to be replaced. `VirtualLoop` in `GeventTesting` is the model to read first.
///
/// A loop belongs to the thread that created it. Only its ``waker`` may leave that thread.
///
/// ## The contract
///
/// Each numbered line is tested by the checks of the same number in `LoopConformance` (`GeventTesting`), which you can
/// run on a loop of your own.
///
/// 1. **Interest.** ``setInterest(_:for:generation:)`` replaces the interest set before, and the empty set removes it.
///    Setting the same interest again, or removing an interest that is not set, is harmless. Readiness is
///    level-triggered: every poll reports it for as long as it lasts. If more than a hundred descriptors are ready, a
///    poll may leave some to the next polls, which then report those first. There is one registration per descriptor;
///    the core shares it among its waiters. The loop does not change the open file: a blocking file stays blocking.
/// 2. **Events.** A ``ReadyEvent`` carries the descriptor, the generation given at registration, and the readiness.
///    Hang-up and error are reported as every readiness that the interest includes, so every waiter wakes and gets the
///    actual result from its own system call. A loop that can distinguish them from data may report both directions
///    even if the interest has only one. The core drops events of a stale generation. Events of one poll come in the
///    order in which the descriptors became ready, as far as the system reveals that order, and never in reverse:
///    descriptors that became ready in the order of their numbers are appended in that order.
/// 3. **Spurious readiness** is allowed; a waiter that gets `EAGAIN` waits again.
/// 4. **Returning.** ``poll(until:into:)`` returns on events, on a wake, at the deadline, or early for no reason. A
///    deadline that has passed means "do not block", nil means "no deadline". Deadlines round up: a return at the
///    deadline means `now >= deadline`.
/// 5. **Appending.** ``poll(until:into:)`` appends plain values and returns. It never calls the core and never switches
///    stacks, and no Swift error crosses C: the callbacks of a C library only append.
/// 6. **Waking** is sticky (a wake before the poll counts) and coalesced (several wakes may become one). After
///    ``close()`` a wake is a no-op, even from a thread that still holds the waker.
/// 7. **Bad descriptors** (-1, closed, or of a kind the kernel cannot poll) are a ``LoopError``, never an abort.
///    Closing a watched descriptor neither aborts nor hangs, and removing its interest afterwards is harmless. **A
///    failed registration** wakes its waiter with the error, immediately or later. Either `setInterest` throws; or a
///    loop that registers later, or has to register again, appends an event with empty readiness, and the core sets the
///    interest again, which throws the reason or succeeds.
/// 8. **Fork.** After ``recoverAfterFork()`` in the child the loop works and has no registrations; the core registers
///    again the interest it needs. The child never touches the parent's kernel objects. Wakers obtained before the fork
///    still wake the loop. If the recovery throws, the core calls it again before the next poll; until then it only
///    reads the clock.
/// 9. **Confinement.** Using anything but ``waker`` on another thread or after ``close()`` traps in debug builds.
///    Closing twice is harmless. ``CheckedLoop`` enforces this in release builds too.
public protocol Loop: AnyObject {
    /// The name of this kind of loop in `GEVENT_LOOP`, in lower case, such as "epoll".
    static var backendName: String { get }

    /// The loop's current time. It is monotonic, and virtual under test.
    var now: LoopInstant { get }

    /// The granularity of waits in ``poll(until:into:)``: a nanosecond, or a millisecond if the system offers nothing
    /// finer.
    ///
    /// Deadlines are rounded up to this granularity.
    var timerResolution: Duration { get }

    /// Whether the loop's time is virtual, which means that it jumps to the next deadline instead of waiting. The core
    /// then keeps every deadline exactly and does not delay timers to fire several together. The default is false.
    var hasVirtualTime: Bool { get }

    /// Sets the interest in a descriptor, replacing the interest set before.
    ///
    /// - Parameters:
    ///   - interest: the readiness to report. The empty set stops watching, and never fails for a descriptor that is
    ///     not watched.
    ///   - fileDescriptor: an open descriptor that the kernel can poll.
    ///   - generation: a number reported with each event of this descriptor.
    /// - Throws: ``LoopError/Code/badDescriptor`` if it is not open, ``LoopError/Code/notPollable`` for a regular file,
    ///   ``LoopError/Code/outOfResources``, or another system error. The descriptor is then not watched.
    func setInterest(_ interest: Readiness, for fileDescriptor: CInt, generation: UInt32) throws(LoopError)

    /// Waits for events, a wake or the deadline, and appends the events. See line 4 of the contract.
    ///
    /// - Parameters:
    ///   - deadline: the latest time to return. A deadline in the past means not to block at all; nil means to wait for
    ///     events and wakes only.
    ///   - events: the batch that new events are appended to; its existing elements are kept.
    /// - Throws: a ``LoopError`` only if the wait fails or the loop lacks its own kernel objects; never because of a
    ///   single descriptor. Events appended before the error are valid, and the next poll tries again.
    func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError)

    /// The waker that other threads wake this loop with. It is always the same object, also after a fork.
    var waker: any LoopWaker { get }

    /// Makes the loop usable in a forked child, with new kernel objects, no registrations, and the same ``waker``.
    ///
    /// Call it in the child only, on the thread that forked.
    ///
    /// - Throws: ``LoopError`` if the system cannot provide new kernel objects.
    func recoverAfterFork() throws(LoopError)

    /// Releases the loop's kernel objects. Watched descriptors stay open. Closing again is harmless.
    func close()

    /// Facts about this loop for `gevent-info` to print, such as the system calls it found.
    ///
    /// Keys are short names; values are text for people. The default is empty.
    var features: [String: String] { get }
}

extension Loop {
    /// False, the default for loops on a real clock.
    public var hasVirtualTime: Bool { false }

    /// An empty dictionary, the default for loops with nothing to report.
    public var features: [String: String] { [:] }
}
