internal import CGevent
@_spi(GeventInternals) public import GeventCore
internal import Glibc

/// The registration of a signal handler, which ``onSignal(_:referenced:_:)`` returns.
final class SignalRegistration: Registration {
    /// A handler, and where it runs.
    enum Handler {
        /// Runs each time in a new greenlet. Its errors are delivered to main.
        case greenlet(() throws -> Void)
        /// Runs on the hub. For the library's own handlers.
        case hub(() -> Void)
    }

    /// The number of the signal.
    let signal: CInt

    private let hub: Hub
    /// The handler; nil after cancellation.
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

    /// Runs the handler. On the hub.
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
        } catch {  // control: the greenlet has ended; any error that ended it is delivered to main, as documented
            hub.mainGreenlet.deliver(error)
        }
    }
}

/// Registers `handler`, which runs in a new greenlet each time the process receives the signal.
///
/// The registration keeps the hub waiting only if it is `referenced`. If the handler throws, the error is delivered to
/// main and the registration stays active. The kernel merges signals of one kind that arrive before it delivers the
/// first. A signal may have any number of registrations on any number of hubs, and each delivery runs all handlers. The
/// calling thread unblocks the signal while it has registrations for it. Interrupted system calls are restarted.
///
/// After the registration is cancelled, the handler is not called again, even for a signal that has already arrived.
/// When the last registration of all threads is cancelled, the signal's previous action is restored.
///
/// Never parks. Creates the thread's hub if there is none. Throws ``SignalError`` for a signal that cannot be watched,
/// and ``SystemError`` or ``LoopError`` if no descriptors are left.
///
/// gevent: `gevent.signal_handler(signum, handler)`, `signal.cancel()`.
@discardableResult
public func onSignal(
    _ number: CInt, referenced: Bool = false, _ handler: @escaping () throws -> Void
) throws -> Registration {
    try Hub.of(try currentHub()).watchSignal(number, referenced: referenced, .greenlet(handler))
}
