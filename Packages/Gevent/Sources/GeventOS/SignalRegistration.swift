internal import CGevent
internal import GeventCore
internal import Glibc

/// A handler that is told of a signal: what ``onSignal(_:referenced:_:)`` returns.
///
/// It stays in place until it is cancelled or its hub is destroyed, whoever holds this object. Confined to the thread
/// of its hub.
///
/// gevent: what `gevent.signal_handler` returns.
public final class SignalRegistration {
    /// How a handler is run.
    enum Handler {
        /// Each time in a greenlet of its own; an error is raised in main.
        case greenlet(() throws -> Void)
        /// On the hub: the library's own.
        case hub(() -> Void)
    }

    /// The number of the signal.
    public let signal: CInt
    /// Whether it is in place.
    public private(set) var isActive = true

    private let hub: Hub
    private var handler: Handler?
    private var hold: HubHold?

    init(_ hub: Hub, _ signal: CInt, referenced: Bool, _ handler: Handler) {
        self.hub = hub
        self.signal = signal
        self.handler = handler
        if referenced { hold = hub.hold() }
    }

    /// Whether it keeps the hub waiting for the signal when nothing else is pending.
    ///
    /// gevent: `signal.ref`.
    public var isReferenced: Bool {
        get { hold != nil }
        set {
            if !isActive || newValue == isReferenced { return }
            requireThread()
            hold = newValue ? hub.hold() : nil
        }
    }

    /// Removes the handler: it does not begin any more, also for a signal that has come already; one that runs goes on.
    /// Repeatable.
    ///
    /// What the process did about the signal before is restored with the last registration for it, of all threads.
    ///
    /// gevent: `signal.cancel()`.
    public func cancel() {
        if !isActive { return }
        requireThread()
        close()
        hub.existingService(SignalService.self)?.remove(self)
    }

    func close() {
        isActive = false
        hold = nil
        handler = nil
    }

    private func requireThread() {
        if gevent_hub_current() != hub.pointer { fatalError("\(HubError.wrongThread)") }
    }

    /// On the hub.
    func deliver() {
        switch handler {
        case .hub(let body): body()
        case .greenlet: RawGreenlet(hub: hub.pointer, runHandler).start(hub.pointer)
        case nil: break
        }
    }

    private func runHandler() throws {
        guard case .greenlet(let body) = handler else { return }
        do {
            try body()
        } catch let exit as any GreenletExitError {
            throw exit
        } catch {  // control: the greenlet is over; whatever ended it is raised in main, as the contract says
            hub.mainGreenlet.deliver(error)
        }
    }
}

@available(*, unavailable)
extension SignalRegistration: Sendable {}

/// Runs `handler` in a new greenlet each time the process gets the signal.
///
/// The registration does not keep the hub waiting unless it is `referenced`, and stays in place when the handler
/// throws; the error is raised in main. Signals of one kind that come faster than the kernel hands them out become one.
/// A signal may have any number of registrations, on any number of hubs: each of them gets each delivery. The calling
/// thread unblocks the signal for as long as it has registrations for it. System calls that it interrupts are
/// restarted.
///
/// Never parks. Makes the thread's hub if there is none. Throws ``SignalError`` for a signal that no program can be
/// told of, and ``LoopError`` if there are no descriptors left.
///
/// gevent: `gevent.signal_handler(signum, handler)`.
@discardableResult
public func onSignal(
    _ number: CInt, referenced: Bool = false, _ handler: @escaping () throws -> Void
) throws -> SignalRegistration {
    try Hub.of(try currentHub()).watchSignal(number, referenced: referenced, .greenlet(handler))
}
