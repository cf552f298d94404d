internal import CGevent
@_spi(GeventInternals) public import GeventCore
internal import Glibc

/// A handler of a signal: what ``onSignal(_:referenced:_:)`` returns.
final class SignalRegistration: Registration {
    /// How a handler is run.
    enum Handler {
        /// Each time in a greenlet of its own; an error is raised in main.
        case greenlet(() throws -> Void)
        /// On the hub: the library's own.
        case hub(() -> Void)
    }

    /// The number of the signal.
    let signal: CInt

    private let hub: Hub
    /// Nil once it is cancelled.
    private var handler: Handler?
    private var hold: Registration?

    init(_ hub: Hub, _ signal: CInt, referenced: Bool, _ handler: Handler) {
        self.hub = hub
        self.signal = signal
        self.handler = handler
        super.init()
        if referenced { hold = hub.hold() }
    }

    override var isActive: Bool { handler != nil }

    override func cancel() {
        if !isActive { return }
        if gevent_hub_current() != hub.pointer { fatalError("\(HubError.wrongThread)") }
        close()
        hub.existingService(SignalService.self)?.remove(self)
    }

    func close() {
        hold = nil
        handler = nil
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

/// Runs `handler` in a new greenlet each time the process gets the signal.
///
/// The registration does not keep the hub waiting unless it is `referenced`, and stays in place when the handler
/// throws; the error is raised in main. Signals of one kind that come faster than the kernel hands them out become one.
/// A signal may have any number of registrations, on any number of hubs: each of them gets each delivery. The calling
/// thread unblocks the signal for as long as it has registrations for it. System calls that it interrupts are
/// restarted.
///
/// Once the registration is cancelled the handler is not called any more, also for a signal that has come already. What
/// the process did about the signal before is restored with the last registration for it, of all threads.
///
/// Never parks. Makes the thread's hub if there is none. Throws ``SignalError`` for a signal that no program can be
/// told of, and ``SystemError`` or ``LoopError`` if there are no descriptors left.
///
/// gevent: `gevent.signal_handler(signum, handler)`, `signal.cancel()`.
@discardableResult
public func onSignal(
    _ number: CInt, referenced: Bool = false, _ handler: @escaping () throws -> Void
) throws -> Registration {
    try Hub.of(try currentHub()).watchSignal(number, referenced: referenced, .greenlet(handler))
}
