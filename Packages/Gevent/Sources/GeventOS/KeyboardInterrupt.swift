internal import CGevent
public import GeventCore
internal import Glibc

/// Installs a handler that turns Ctrl-C (SIGINT) into a ``KeyboardInterrupt`` delivered to main of this thread's hub.
/// Main receives it where it is parked, or at its next park. No other greenlet receives it.
///
/// The handler does not keep the hub waiting. Further SIGINTs are ignored until main has received the first. A program
/// that does not respond can still be killed: if a SIGINT arrives while another has been pending for a second, because
/// a greenlet does not park, it kills the process as if there were no handler. Repeatable: returns the existing
/// registration while the handler is installed. Cancelling it restores the previous behaviour of Ctrl-C. Never parks.
/// Throws ``SystemError`` or ``LoopError`` if no descriptors are left.
///
/// gevent: the hub's handling of `KeyboardInterrupt`.
@discardableResult
@available(*, noasync)
public func installSIGINTHandler() throws -> Registration {
    let hub = Hub.of(try currentHub())
    if let registration = hub.existingService(SignalService.self)?.interrupt { return registration }
    let registration = try hub.watchSignal(SIGINT, referenced: false, .hub { [unowned hub] in hub.interruptMain() })
    hub.existingService(SignalService.self)?.interrupt = registration
    return registration
}

extension Hub {
    fileprivate func removeInterrupt() { existingService(SignalService.self)?.interrupt?.cancel() }

    fileprivate func interruptMain() {
        let isPending = mainGreenlet.pendingErrors?.contains { $0.error is KeyboardInterrupt } ?? false
        if !isPending { mainGreenlet.deliver(KeyboardInterrupt()) }
    }
}

/// Removes the Ctrl-C handler, then parks main and runs the hub until it has no more work. Does nothing without a hub.
///
/// Throws ``HubError`` with `.invalidSwitch` outside main, and errors delivered to main.
///
/// gevent: `gevent.shutdown()`.
@available(*, noasync)
public func shutdown() throws {
    guard let pointer = gevent_hub_current() else { return }
    guard pointer.pointee.current == gevent_hub_main(pointer) else {
        throw HubError(.invalidSwitch, "shutdown() is for the main greenlet")
    }
    let hub = Hub.of(pointer)
    hub.removeInterrupt()
    _ = try hub.join()
}
