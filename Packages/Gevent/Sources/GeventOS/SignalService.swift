internal import CGevent
internal import GeventCore
internal import Glibc

/// The signal registrations of one hub, and the inbox that the process's signal handler writes to.
///
/// Created for the first registration, and removed with the last.
package final class SignalService: HubService {
    private unowned let hub: Hub
    private let inbox: OpaquePointer
    private var watch: DescriptorWatch?
    private var registrations: [CInt: [SignalRegistration]] = [:]
    /// The registration that delivers ``KeyboardInterrupt`` to main.
    var interrupt: SignalRegistration? {
        didSet { gevent_signal_enforce_interrupt_limit(inbox, interrupt != nil) }
    }

    init(_ hub: Hub) throws {
        self.hub = hub
        guard let inbox = gevent_signal_inbox_open() else { throw SystemError(errno: errno, operation: "eventfd") }
        self.inbox = inbox
        do {
            watch = try DescriptorWatch(gevent_signal_inbox_descriptor(inbox), on: hub, referenced: false) {
                [unowned self] in deliver()
            }
        } catch {
            gevent_signal_inbox_close(inbox)
            throw error
        }
    }

    func add(_ registration: SignalRegistration) throws {
        // Signals that have already arrived are for the existing registrations.
        deliver()
        let error = gevent_signal_watch(inbox, registration.signal)
        if error == EINVAL { throw SignalError(.noSuchSignal, signal: registration.signal) }
        if error != 0 { throw SystemError(errno: error, operation: "watch signal", object: "\(registration.signal)") }
        registrations[registration.signal, default: []].append(registration)
    }

    func remove(_ registration: SignalRegistration) {
        let number = registration.signal
        if registration === interrupt { interrupt = nil }
        registrations[number]?.removeAll { $0 === registration }
        if registrations[number]?.isEmpty == true {
            registrations[number] = nil
            gevent_signal_unwatch(inbox, number)
        }
        closeIfUnused()
    }

    func closeIfUnused() {
        if !registrations.isEmpty { return }
        close()
        hub.removeService(self)
    }

    /// Delivers each counted signal to its registrations.
    private func deliver() {
        gevent_signal_inbox_drain(inbox)
        for number in registrations.keys.sorted() {
            for _ in 0..<gevent_signal_take(inbox, number) {
                for registration in registrations[number] ?? [] { registration.deliver() }
            }
        }
    }

    private func close() {
        guard let watch else { return }
        watch.close()
        self.watch = nil
        gevent_signal_inbox_close(inbox)
    }

    package func hubWillClose() {
        for registration in registrations.values.joined() { registration.close() }
        registrations = [:]
        close()
    }

    package func hubDidFork() {
        let error = gevent_signal_inbox_renew(inbox)
        if error != 0 { hub.mainGreenlet.deliver(SystemError(errno: error, operation: "eventfd")) }
        // Delivers signals that this process received while its inbox was still the parent's.
        deliver()
    }
}

extension Hub {
    func watchSignal(
        _ number: CInt, referenced: Bool, _ handler: SignalRegistration.Handler
    ) throws -> SignalRegistration {
        try SignalError.check(number)
        let service = try service { try SignalService(self) }
        let registration = SignalRegistration(self, number, referenced: referenced, handler)
        do {
            try service.add(registration)
        } catch {
            registration.close()
            service.closeIfUnused()
            throw error
        }
        return registration
    }
}
