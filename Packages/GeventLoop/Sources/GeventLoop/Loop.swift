/// Wakes a loop that is polling. The only part of a loop that may be used from other threads.
public protocol LoopWaker: AnyObject, Sendable {
    /// Makes the loop's current poll return, or its next one if none is running.
    ///
    /// Any thread may call it, and a signal handler too: it takes no lock and allocates nothing. Several calls may
    /// become one return. After the loop was closed it does nothing.
    func wake()
}

/// A poller, a clock and a waker: all that the core needs from an event loop.
///
/// Timers, the ready queue, waiters and signals are the core's own and therefore behave identically on every loop; what
/// is left is small enough to be swapped. `VirtualLoop` in `GeventTesting` is the model to read first.
///
/// A loop belongs to the thread that made it. Only its ``waker`` may leave that thread.
///
/// ## The contract
///
/// Each line is tested by the checks of the same number in `LoopConformance` (`GeventTesting`); a loop of your own can
/// run them.
///
/// 1. **Interest.** ``setInterest(_:for:generation:)`` replaces what was set before; the empty set removes; repeating
///    or removing what is not there is harmless. Readiness is level-triggered: reported by every poll for as long as it
///    lasts. Where more than a hundred are ready, a poll may leave some to the next ones, which then report those
///    first. There is one registration per descriptor; the core shares it among its waiters. The open file itself is
///    left as it is: a blocking one stays blocking.
/// 2. **Events.** A ``ReadyEvent`` is the descriptor, the generation given at registration, and the readiness. Hang-up
///    and error read as all that the interest asks for, so that every waiter wakes and its own system call tells the
///    truth; a loop that can tell them from data may report both directions even if the interest is in one. The core
///    drops events of a stale generation. Events of one poll come in the order in which the descriptors became ready,
///    as far as the system tells that order, and never in reverse: what became ready in the order of its numbers is
///    appended in that order.
/// 3. **Spurious readiness** is allowed; whoever acts on it retries on `EAGAIN`.
/// 4. **Returning.** ``poll(until:into:)`` returns on events, on a wake, at the deadline, or early for no reason. A
///    deadline that has passed means "do not block", nil means "no deadline". Deadlines round up: a return at the
///    deadline means `now >= deadline`.
/// 5. **Appending.** ``poll(until:into:)`` appends plain values and returns. It never calls the core and never switches
///    stacks, and no Swift error crosses C: the callbacks of a C library only append.
/// 6. **Waking** is sticky (a wake before the poll counts) and coalesces (several may become one). After ``close()`` it
///    is a no-op, even from a thread that still holds the waker.
/// 7. **Bad descriptors** (-1, closed, or of a kind the kernel cannot poll) are a ``LoopError``, never an abort.
///    Closing a descriptor that is being watched neither aborts nor hangs, and removing it afterwards is harmless. **A
///    registration that fails** wakes its waiter with the error, on the spot or later: `setInterest` throws; or a loop
///    that registers later, or has to register anew, appends an event with empty readiness, and the core sets the
///    interest again, which throws the reason or succeeds.
/// 8. **Fork.** After ``recoverAfterFork()`` in the child the loop works and has no registrations; the core re-arms
///    what it needs. The child never touches the parent's kernel objects. Wakers handed out before still wake. If the
///    recovery throws, the core calls it again before the next poll; until then it only reads the clock.
/// 9. **Confinement.** Everything but ``waker``, when used on another thread or after ``close()``, traps in debug
///    builds. Closing twice is harmless. ``CheckedLoop`` enforces this in release builds too.
public protocol Loop: AnyObject {
    /// The name that `GEVENT_LOOP` selects this kind of loop by, in lower case: "epoll".
    static var backendName: String { get }

    /// The loop's time: monotonic, and virtual under test.
    var now: LoopInstant { get }

    /// The steps in which ``poll(until:into:)`` can wait: a nanosecond, or a millisecond where the system has no
    /// better.
    ///
    /// A deadline is kept no more exactly than this; it always rounds up.
    var timerResolution: Duration { get }

    /// Whether the loop's time is virtual: it jumps to the next deadline where others wait for it. The core then keeps
    /// every deadline exactly, and does not wake later so that several timers fire together. False unless a loop says
    /// otherwise.
    var hasVirtualTime: Bool { get }

    /// Says what to watch a descriptor for, in place of whatever was said before.
    ///
    /// - Parameters:
    ///   - interest: what to report; the empty set stops watching and never fails for a descriptor that is not watched.
    ///   - fileDescriptor: an open descriptor that the kernel can poll.
    ///   - generation: handed back with each event for this descriptor.
    /// - Throws: ``LoopError/Code/badDescriptor`` if it is not open, ``LoopError/Code/notPollable`` for a regular file,
    ///   ``LoopError/Code/outOfResources``, or another system error. The descriptor is then not watched.
    func setInterest(_ interest: Readiness, for fileDescriptor: CInt, generation: UInt32) throws(LoopError)

    /// Waits for events, a wake or the deadline, and appends the events; see line 4 of the contract.
    ///
    /// - Parameters:
    ///   - deadline: when to return at the latest; in the past, do not block at all; nil, wait for events and wakes.
    ///   - events: what is found is added at the end; what is there stays.
    /// - Throws: a ``LoopError`` only if the wait fails or the loop lacks what it needs for itself; never for one
    ///   descriptor. Events that were appended before count all the same, and the next poll tries again.
    func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError)

    /// What other threads wake this loop by. Always the same object, also after a fork.
    var waker: any LoopWaker { get }

    /// Makes the loop usable in a forked child: fresh kernel objects, no registrations, the same ``waker``.
    ///
    /// Call it in the child only, on the thread that forked.
    ///
    /// - Throws: ``LoopError`` if the system cannot provide new kernel objects.
    func recoverAfterFork() throws(LoopError)

    /// Gives back the loop's kernel objects. Watched descriptors stay open. Calling it again is harmless.
    func close()

    /// Facts about this loop worth printing, such as which system calls it found: shown by `gevent-info`.
    ///
    /// Keys are short names, values are for people. Empty unless a loop has something to say.
    var features: [String: String] { get }
}

extension Loop {
    /// False: time passes by itself.
    public var hasVirtualTime: Bool { false }

    /// No facts: for loops that have nothing to report.
    public var features: [String: String] { [:] }
}
