internal import CGevent
public import GeventCore
internal import Glibc

extension Hub {
    /// Makes Ctrl-C raise ``KeyboardInterrupt`` in main of this thread's hub: where main is parked, or at its next park
    /// if it is running; and nowhere else.
    ///
    /// It does not keep the hub waiting. Those that come before main has seen the first are one with it. A program that
    /// does not answer can still be ended: a SIGINT that comes while another has waited for a second, because some
    /// greenlet does not park, kills the process as if no handler were there. Repeatable. Never parks. Throws
    /// ``LoopError`` if there are no descriptors left.
    ///
    /// gevent: what the hub does with `KeyboardInterrupt`.
    public static func installSIGINTHandler() throws {
        let hub = Hub.of(try currentHub())
        if hub.existingService(SignalService.self)?.interrupt != nil { return }
        let registration = try hub.watchSignal(SIGINT, referenced: false, .hub { [unowned hub] in hub.interruptMain() })
        let service = hub.existingService(SignalService.self)
        service?.interrupt = registration
        service?.insistOnInterrupt(true)
    }

    /// Ctrl-C does again what it did before ``installSIGINTHandler()``. Repeatable. Never parks.
    public static func removeSIGINTHandler() {
        guard let pointer = gevent_hub_current() else { return }
        Hub.of(pointer).removeInterrupt()
    }

    func removeInterrupt() {
        guard let service = existingService(SignalService.self), let registration = service.interrupt else { return }
        service.interrupt = nil
        service.insistOnInterrupt(false)
        registration.cancel()
    }

    private func interruptMain() {
        let isPending = mainGreenlet.pendingErrors?.contains { $0.error is KeyboardInterrupt } ?? false
        if !isPending { mainGreenlet.deliver(KeyboardInterrupt()) }
    }
}

/// Takes the Ctrl-C handler away and runs the hub until nothing is left to do. From main only, which it parks.
///
/// Throws ``HubError`` with `.invalidSwitch` elsewhere, and what interrupts main. Nothing happens without a hub.
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
