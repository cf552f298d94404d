internal import CGevent
internal import Synchronization

/// An error that is thrown in the greenlet that started it once its duration has passed, wherever that greenlet is
/// parked then.
///
/// ```swift
/// let timeout = Timeout(.seconds(1))
/// timeout.start()
/// defer { timeout.cancel() }
/// try work()
/// ```
///
/// ``withTimeout(_:throwing:_:)-(_,_,(Timeout)->Value)`` does this and never forgets to cancel. A timeout has identity:
/// use `===` to find out whether the timeout you caught is the one you started. It is thrown only by calls that park or
/// yield, so a loop that never does either never sees it. A timeout that is started and never cancelled is thrown in
/// whichever call its greenlet makes by then, even if no reference to the timeout remains.
///
/// A timeout controls the greenlet that started it from ``start()`` to ``cancel()``; a scope cancels its timeout on
/// exit. During that time ``rethrowControl(_:)`` rethrows it, since an outer scope may catch it. Before and after, and
/// in every other greenlet, it is an ordinary error, which means only that an operation took too long.
///
/// Use it only on the thread it was started on. It is Sendable because every error is.
///
/// gevent: `gevent.Timeout`.
public final class Timeout: ControlError, Sendable, CustomStringConvertible, CustomDebugStringConvertible {
    /// The time from the start until it fires. Nil means that it never fires.
    public let duration: Duration?
    /// The error that is thrown instead of the timeout, if any.
    public let error: (any Error)?
    /// The text that the description adds to the duration.
    public let message: String?
    /// Whether it keeps the hub waiting. If not, it does not fire in a program in which nothing else can happen.
    public let isReferenced: Bool
    let isSilent: Bool

    // The state is one of these: `idle`, `fired` or `closed`; while pending, the address of the gevent_deferred, which
    // is a multiple of 8; `raised`, with the number of the greenlet it was thrown in above the three lowest bits.
    private static let idle: UInt = 0
    /// Fired, but still a pending error of its greenlet.
    private static let fired: UInt = 1
    private static let closed: UInt = 2
    private static let raised: UInt = 4

    // Only the thread it was started on changes these; every access checks the serial of that thread's hub. So relaxed
    // loads and stores suffice, and cost no more than plain ones. Atomics make misuse from other threads well defined.
    private let state = Atomic<UInt>(Timeout.idle)
    private let hubSerial = Atomic<UInt32>(0)

    /// Creates a timeout of `duration` that throws itself, or `error`.
    ///
    /// Nil never fires and uses no timer. A duration of zero or less fires when the hub next checks its timers, so a
    /// yield may return before it fires.
    ///
    /// gevent: `Timeout(seconds=None, exception=None, ref=True)`.
    public init(_ duration: Duration?, throwing error: (any Error)? = nil, referenced: Bool = true) {
        self.duration = duration
        self.error = error
        message = nil
        isReferenced = referenced
        isSilent = false
    }

    /// Creates a timeout that throws itself and adds `message` to its description.
    ///
    /// gevent: `Timeout(seconds, "text")`.
    public init(_ duration: Duration?, message: String, referenced: Bool = true) {
        self.duration = duration
        error = nil
        self.message = message
        isReferenced = referenced
        isSilent = false
    }

    /// Creates the timeout of ``withSilentTimeout(_:_:)-(_,(Timeout)->Value)``.
    init(silent duration: Duration?) {
        self.duration = duration
        error = nil
        message = nil
        isReferenced = true
        isSilent = true
    }

    /// Whether it was started and has neither fired nor been cancelled.
    ///
    /// gevent: `Timeout.pending`.
    public var isPending: Bool { Timeout.isAddress(state.load(ordering: .relaxed)) }

    private static func isAddress(_ state: UInt) -> Bool { state != idle && state & 7 == 0 }

    /// Whether it controls the current greenlet: it was started there and has not been cancelled.
    var controlsCurrentGreenlet: Bool {
        let state = state.load(ordering: .relaxed)
        guard state != Timeout.idle, state != Timeout.closed, let hub = gevent_hub_current(),
            hub.pointee.serial == hubSerial.load(ordering: .relaxed)
        else { return false }
        if state == Timeout.fired { return true }
        if let record = UnsafeMutablePointer<gevent_deferred>(bitPattern: state), Timeout.isAddress(state) {
            return record.pointee.target == hub.pointee.current
        }
        return AnyGreenlet.current(of: hub).raisedNumber == UInt64(state >> 3)
    }

    /// Starts the timeout for the current greenlet; the duration counts from the call. Never parks.
    ///
    /// Starting a timeout that is pending or closed, or in a hub callback, is a programming error and traps. A timeout
    /// that has fired or was cancelled can be started again.
    ///
    /// gevent: `Timeout.start()`.
    @available(*, noasync)
    public func start() {
        let hub = requireHub()
        if hasNoTarget(hub) {
            trap("a Timeout cannot be started in a hub callback: there is no greenlet to throw it into")
        }
        arm(hub)
    }

    /// Starts like ``start()``, but throws `HubError` instead of trapping where there is no greenlet to throw in.
    @usableFromInline
    func startOrThrow() throws {
        let hub = try currentHub()
        if hasNoTarget(hub) { throw HubError.blockedInHub }
        arm(hub)
    }

    /// Whether the current context is the hub, or a greenlet that has ended.
    @inline(__always)
    private func hasNoTarget(_ hub: UnsafeMutablePointer<gevent_hub>) -> Bool {
        // Main is refused too while it destroys the hub. A timeout started then has no effect, since main cannot park.
        gevent_pending_flags(hub) == UInt8(GEVENT_PENDING_REFUSED) && hub.pointee.current != gevent_hub_main(hub)
    }

    @inline(__always)
    private func arm(_ hub: UnsafeMutablePointer<gevent_hub>) {
        let current = hub.pointee.current!
        if state.load(ordering: .relaxed) != Timeout.idle { prepareToStartAgain() }
        guard let duration else { return }
        let now = Hub.time(hub)
        let record = gevent_deferred_take(hub)!
        record.pointee.timer.kind = UInt8(GEVENT_TIMER_TIMEOUT)
        record.pointee.timer.payload = Unmanaged.passRetained(self).toOpaque()
        record.pointee.timer.referenced = isReferenced
        record.pointee.target = current
        gevent_list_append(&current.pointee.timeouts, &record.pointee.node)
        gevent_timers_start(
            &hub.pointee.timers, &record.pointee.timer, now.advanced(by: duration).nanoseconds, now.nanoseconds)
        hubSerial.store(hub.pointee.serial, ordering: .relaxed)
        state.store(UInt(bitPattern: record), ordering: .relaxed)
    }

    @inline(never)
    private func prepareToStartAgain() {
        if isPending { trap("this Timeout is pending already: \(self)") }
        if state.load(ordering: .relaxed) == Timeout.closed { trap("this Timeout was closed: \(self)") }
        // It has fired: reset it, and retract the error if that is still pending.
        cancel()
    }

    /// Traps. Not a precondition, whose message an optimised build does not print.
    @inline(never)
    private func trap(_ message: String) -> Never { fatalError(message) }

    /// Creates and starts a timeout.
    ///
    /// gevent: `Timeout.start_new(seconds, exception)`.
    @discardableResult
    @available(*, noasync)
    public static func startNew(_ duration: Duration?, throwing error: (any Error)? = nil) -> Timeout {
        let timeout = Timeout(duration, throwing: error)
        timeout.start()
        return timeout
    }

    /// Starts `timeout` unless it is pending, and returns it.
    ///
    /// gevent: `Timeout.start_new(timeout)`.
    @discardableResult
    @available(*, noasync)
    public static func startNew(_ timeout: Timeout) -> Timeout {
        if !timeout.isPending { timeout.start() }
        return timeout
    }

    /// Runs `body` under this timeout. Starts the timeout unless it is pending, and cancels it on every exit.
    func around(_ body: () throws -> Void) throws {
        if !isPending { try startOrThrow() }
        defer { cancel() }
        try body()
    }

    /// Cancels the timeout if it is pending; otherwise does nothing. It can be started again.
    ///
    /// Also retracts the timeout if it has fired and is a pending error of the current greenlet. After `cancel()` in
    /// the greenlet that started it, it is never thrown.
    ///
    /// gevent: `Timeout.cancel()`.
    public func cancel() {
        let state = state.load(ordering: .relaxed)
        if state == Timeout.idle { return }
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial.load(ordering: .relaxed) else {
            // Closed, or thrown before: there is nothing to cancel.
            if state == Timeout.closed || state & 7 == Timeout.raised { return }
            fatalError("\(HubError.wrongHubError(hubSerial.load(ordering: .relaxed)))")
        }
        if state & 7 == Timeout.raised { return self.state.store(Timeout.idle, ordering: .relaxed) }
        if state == Timeout.fired || state == Timeout.closed {
            // Only the greenlet with the pending error can retract it, and must still be able to after others tried.
            if AnyGreenlet.current(of: hub).retract(self), state == Timeout.fired {
                self.state.store(Timeout.idle, ordering: .relaxed)
            }
            return
        }
        self.state.store(Timeout.idle, ordering: .relaxed)
        Timeout.drop(UnsafeMutablePointer(bitPattern: state)!, hub)
    }

    /// Cancels the timeout permanently: starting it again is a programming error and traps. Repeatable.
    ///
    /// gevent: `Timeout.close()`.
    public func close() {
        cancel()
        state.store(Timeout.closed, ordering: .relaxed)
    }

    /// Text such as "1 second", "0.1 seconds", "1 second (silent)" or "0.5 seconds: message"; empty without a duration.
    public var description: String {
        guard let duration else { return "" }
        let seconds = decimalSeconds(duration)
        let text = seconds == "1" ? "1 second" : "\(seconds) seconds"
        if isSilent { return "\(text) (silent)" }
        return message.map { "\(text): \($0)" } ?? text
    }

    /// The text that Swift prints when a program ends with this error: "timed out after 0.1 seconds".
    public var debugDescription: String { duration == nil ? "timed out" : "timed out after \(description)" }

    // MARK: The hub's side

    /// Called when the timer has expired: delivers the error to the greenlet that started the timeout.
    static func fire(_ record: UnsafeMutablePointer<gevent_deferred>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        let timeout = Unmanaged<Timeout>.fromOpaque(record.pointee.timer.payload).takeRetainedValue()
        let target = record.pointee.target!
        gevent_node_unlink(&record.pointee.node)
        gevent_record_release(hub, record)
        timeout.state.store(Timeout.fired, ordering: .relaxed)
        // A context's timeouts are cancelled when its greenlet ends, so the target has an owner.
        let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(target.pointee.owner).takeUnretainedValue()
        greenlet.deliver(timeout.error ?? timeout, from: timeout)
    }

    /// Called when it was thrown in `greenlet`, which it controls until it is cancelled.
    func wasRaised(in greenlet: AnyGreenlet) {
        guard state.load(ordering: .relaxed) == Timeout.fired else { return }
        state.store(UInt(truncatingIfNeeded: greenlet.raisedNumber << 3) | Timeout.raised, ordering: .relaxed)
    }

    /// Called when the pending error was dropped without being thrown.
    func wasDropped() {
        if state.load(ordering: .relaxed) == Timeout.fired { state.store(Timeout.idle, ordering: .relaxed) }
    }

    /// Cancels all timeouts of a greenlet that has ended.
    static func cancelAll(of context: UnsafeMutablePointer<gevent_context>) {
        while !gevent_list_is_empty(&context.pointee.timeouts) {
            let record = gevent_deferred_of_node(context.pointee.timeouts.next)!
            let timeout = Unmanaged<Timeout>.fromOpaque(record.pointee.timer.payload).takeUnretainedValue()
            timeout.state.store(idle, ordering: .relaxed)
            drop(record, context.pointee.hub)
        }
    }

    /// Cancels the timer, and releases the record and its reference to the timeout.
    private static func drop(_ record: UnsafeMutablePointer<gevent_deferred>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        gevent_deferred_cancel(hub, record)
        let payload = record.pointee.timer.payload!
        gevent_record_release(hub, record)
        Unmanaged<Timeout>.fromOpaque(payload).release()
    }
}

/// Formats a duration in seconds without trailing zeros: "0.1", "2", "-1.5".
package func decimalSeconds(_ duration: Duration) -> String {
    let (seconds, attoseconds) = duration.attoseconds.quotientAndRemainder(dividingBy: 1_000_000_000_000_000_000)
    let sign = seconds < 0 || attoseconds < 0 ? "-" : ""
    if attoseconds == 0 { return "\(sign)\(seconds.magnitude)" }
    let digits = String(attoseconds.magnitude)
    var fraction = Substring(String(repeating: "0", count: 18 - digits.count) + digits)
    while fraction.last == "0" { fraction.removeLast() }
    return "\(sign)\(seconds.magnitude).\(fraction)"
}
