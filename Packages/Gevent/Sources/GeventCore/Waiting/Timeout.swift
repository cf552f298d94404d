internal import CGevent
internal import Synchronization

/// Throws into the greenlet that started it once its time is up, wherever that greenlet then waits.
///
/// ```swift
/// let timeout = Timeout(.seconds(1))
/// timeout.start()
/// defer { timeout.cancel() }
/// try work()
/// ```
///
/// ``withTimeout(_:throwing:_:)-(_,_,(Timeout)->Value)`` is this with less to forget. A timeout has identity: whether
/// the one you caught is the one you started, `===` tells. It acts only where its greenlet switches, so a loop that
/// never parks never sees it. Started and never cancelled, it fires in whatever its greenlet does by then, even if
/// nobody holds it any more.
///
/// A timeout controls the greenlet that started it from ``start()`` to ``cancel()``; a scope cancels its own when it is
/// left. Meanwhile ``rethrowControl(_:)`` passes it on, since code further out may wait for it. Before, afterwards, and
/// in every other greenlet it is an ordinary error: something took too long, and that is all.
///
/// Confined in use to the thread it was started on; Sendable because every error is.
///
/// gevent: `gevent.Timeout`.
public final class Timeout: ControlError, Sendable, CustomStringConvertible, CustomDebugStringConvertible {
    /// How long after its start it fires; nil never does.
    public let duration: Duration?
    /// What it throws instead of itself.
    public let error: (any Error)?
    /// What to say besides the duration.
    public let message: String?
    /// Whether it keeps the hub waiting. One that does not cannot save a program in which nothing else can happen.
    public let isReferenced: Bool
    let isSilent: Bool

    // Its state: one of these; the address of the gevent_deferred by which it is pending, which is a multiple of 8; or
    // `raised`, with the number of the greenlet it was raised in and not cancelled since above the three lowest bits.
    private static let idle: UInt = 0
    /// Fired, but not raised yet: its greenlet was on its way out of a wait.
    private static let fired: UInt = 1
    private static let closed: UInt = 2
    private static let raised: UInt = 4

    // Only the thread it was started on changes these, which every access checks by the serial of that thread's hub; so
    // relaxed loads and stores do, and cost what plain ones cost. Atomics make a misuse from elsewhere well defined.
    private let state = Atomic<UInt>(Timeout.idle)
    private let hubSerial = Atomic<UInt32>(0)

    /// A timeout of `duration` that throws itself, or `error`.
    ///
    /// Nil never fires and costs no timer. Zero and less fire when the hub next looks at its timers, so a yield may
    /// win.
    ///
    /// gevent: `Timeout(seconds=None, exception=None, ref=True)`.
    public init(_ duration: Duration?, throwing error: (any Error)? = nil, referenced: Bool = true) {
        self.duration = duration
        self.error = error
        message = nil
        isReferenced = referenced
        isSilent = false
    }

    /// A timeout that throws itself and says `message` besides its duration.
    ///
    /// gevent: `Timeout(seconds, "text")`.
    public init(_ duration: Duration?, message: String, referenced: Bool = true) {
        self.duration = duration
        error = nil
        self.message = message
        isReferenced = referenced
        isSilent = false
    }

    /// The one inside ``withSilentTimeout(_:_:)-(_,(Timeout)->Value)``.
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

    /// Whether it controls the current greenlet: started there and not cancelled since.
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

    /// Starts the timeout for the current greenlet; the time counts from now. Never parks.
    ///
    /// Starting one that is pending, or closed, or starting one in a hub callback is a programming error and traps.
    /// Starting again after it fired or was cancelled is fine.
    ///
    /// gevent: `Timeout.start()`.
    @available(*, noasync)
    public func start() {
        let hub = requireHub()
        if hasNoTarget(hub) {
            refuse("a Timeout cannot be started in a hub callback: there is no greenlet to throw it into")
        }
        begin(hub)
    }

    /// ``start()`` for calls that throw anyway: where there is no greenlet to throw into they throw why.
    @usableFromInline
    func startOrThrow() throws {
        let hub = try currentHub()
        if hasNoTarget(hub) { throw HubError.blockedInHub }
        begin(hub)
    }

    /// Whether this is the hub, or what is left of a greenlet.
    @inline(__always)
    private func hasNoTarget(_ hub: UnsafeMutablePointer<gevent_hub>) -> Bool {
        // Main is such a one while it destroys the hub, and there a timeout has no effect, since nothing waits.
        gevent_pending_flags(hub) == UInt8(GEVENT_PENDING_REFUSED) && hub.pointee.current != gevent_hub_main(hub)
    }

    @inline(__always)
    private func begin(_ hub: UnsafeMutablePointer<gevent_hub>) {
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
        if isPending { refuse("this Timeout is pending already: \(self)") }
        if state.load(ordering: .relaxed) == Timeout.closed { refuse("this Timeout was closed: \(self)") }
        // It has fired: what comes now is another life.
        cancel()
    }

    /// Not a precondition, which says nothing in an optimised build.
    @inline(never)
    private func refuse(_ message: String) -> Never { fatalError(message) }

    /// A started timeout.
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

    /// Runs `body` under this timeout, started unless it is pending, and cancelled on every way out.
    func around(_ body: () throws -> Void) throws {
        if !isPending { try startOrThrow() }
        defer { cancel() }
        try body()
    }

    /// Cancels the timeout if it is pending; otherwise does nothing. It can be started again.
    ///
    /// What has fired but was not raised yet in the current greenlet is taken back too: after `cancel()` in the
    /// greenlet that started it, it is never seen.
    ///
    /// gevent: `Timeout.cancel()`.
    public func cancel() {
        let state = state.load(ordering: .relaxed)
        if state == Timeout.idle { return }
        guard let hub = gevent_hub_current(), hub.pointee.serial == hubSerial.load(ordering: .relaxed) else {
            // Never started, or long over.
            if state == Timeout.closed || state & 7 == Timeout.raised { return }
            fatalError("\(HubError.notHere(hubSerial.load(ordering: .relaxed)))")
        }
        if state & 7 == Timeout.raised { return self.state.store(Timeout.idle, ordering: .relaxed) }
        if state == Timeout.fired || state == Timeout.closed {
            // Only the greenlet it was thrown into can take it back, and has to be able to after others have tried.
            if AnyGreenlet.current(of: hub).retract(self), state == Timeout.fired {
                self.state.store(Timeout.idle, ordering: .relaxed)
            }
            return
        }
        self.state.store(Timeout.idle, ordering: .relaxed)
        Timeout.drop(UnsafeMutablePointer(bitPattern: state)!, hub)
    }

    /// Cancels for good: starting it again is a programming error. Repeatable.
    ///
    /// gevent: `Timeout.close()`.
    public func close() {
        cancel()
        state.store(Timeout.closed, ordering: .relaxed)
    }

    /// "1 second", "0.1 seconds", "1 second (silent)", "0.5 seconds: message"; empty without a duration.
    public var description: String {
        guard let duration else { return "" }
        let seconds = decimalSeconds(duration)
        let text = seconds == "1" ? "1 second" : "\(seconds) seconds"
        if isSilent { return "\(text) (silent)" }
        return message.map { "\(text): \($0)" } ?? text
    }

    /// "timed out after 0.1 seconds": what Swift prints when a program ends with this error.
    public var debugDescription: String { duration == nil ? "timed out" : "timed out after \(description)" }

    // MARK: The hub's side

    /// Its time is up: throws into the greenlet that started it.
    static func fire(_ record: UnsafeMutablePointer<gevent_deferred>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        let timeout = Unmanaged<Timeout>.fromOpaque(record.pointee.timer.payload).takeRetainedValue()
        let target = record.pointee.target!
        gevent_node_unlink(&record.pointee.node)
        gevent_record_release(hub, record)
        timeout.state.store(Timeout.fired, ordering: .relaxed)
        // A context's timeouts go when its greenlet ends, so the target has an owner.
        let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(target.pointee.owner).takeUnretainedValue()
        greenlet.deliver(timeout.error ?? timeout, from: timeout)
    }

    /// It was raised in `greenlet`, which it controls until it is cancelled.
    func wasRaised(in greenlet: AnyGreenlet) {
        guard state.load(ordering: .relaxed) == Timeout.fired else { return }
        state.store(UInt(truncatingIfNeeded: greenlet.raisedNumber << 3) | Timeout.raised, ordering: .relaxed)
    }

    /// It is never raised.
    func wasDropped() {
        if state.load(ordering: .relaxed) == Timeout.fired { state.store(Timeout.idle, ordering: .relaxed) }
    }

    /// Its greenlet is over: nothing is left to throw into.
    static func cancelAll(of context: UnsafeMutablePointer<gevent_context>) {
        while !gevent_list_is_empty(&context.pointee.timeouts) {
            let record = gevent_deferred_of_node(context.pointee.timeouts.next)!
            let timeout = Unmanaged<Timeout>.fromOpaque(record.pointee.timer.payload).takeUnretainedValue()
            timeout.state.store(idle, ordering: .relaxed)
            drop(record, context.pointee.hub)
        }
    }

    /// Cancels the timer and gives the record and its hold on the timeout back.
    private static func drop(_ record: UnsafeMutablePointer<gevent_deferred>, _ hub: UnsafeMutablePointer<gevent_hub>) {
        gevent_deferred_cancel(hub, record)
        let payload = record.pointee.timer.payload!
        gevent_record_release(hub, record)
        Unmanaged<Timeout>.fromOpaque(payload).release()
    }
}

/// Seconds without superfluous digits: "0.1", "2", "-1.5".
package func decimalSeconds(_ duration: Duration) -> String {
    let (seconds, attoseconds) = duration.attoseconds.quotientAndRemainder(dividingBy: 1_000_000_000_000_000_000)
    let sign = seconds < 0 || attoseconds < 0 ? "-" : ""
    if attoseconds == 0 { return "\(sign)\(seconds.magnitude)" }
    let digits = String(attoseconds.magnitude)
    var fraction = Substring(String(repeating: "0", count: 18 - digits.count) + digits)
    while fraction.last == "0" { fraction.removeLast() }
    return "\(sign)\(seconds.magnitude).\(fraction)"
}
