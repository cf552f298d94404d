internal import CGevent
internal import GeventCore
internal import Glibc

/// The signals of one hub: an inbox that the process's one handler writes to, and who is told.
///
/// Made for the first registration, and gone with the last.
final class SignalService: HubService {
    private unowned let hub: Hub
    private let inbox: OpaquePointer
    private var watch: DescriptorWatch?
    private var registrations: [CInt: [SignalRegistration]] = [:]
    /// The one that raises SIGINT in main.
    var interrupt: SignalRegistration?

    init(_ hub: Hub) throws(LoopError) {
        self.hub = hub
        guard let inbox = gevent_signal_inbox_open() else { throw LoopError(errno: errno, operation: "eventfd") }
        self.inbox = inbox
        do throws(LoopError) {
            watch = try DescriptorWatch(gevent_signal_inbox_descriptor(inbox), on: hub, referenced: false) {
                [unowned self] in deliver()
            }
        } catch {
            gevent_signal_inbox_close(inbox)
            throw error
        }
    }

    func add(_ registration: SignalRegistration) throws(SignalError) {
        // What has come before is for those who were there.
        deliver()
        let error = gevent_signal_watch(inbox, registration.signal)
        if error == EINVAL { throw SignalError(.noSuchSignal, signal: registration.signal) }
        if error != 0 { throw SignalError(.system, signal: registration.signal, errno: error) }
        registrations[registration.signal, default: []].append(registration)
    }

    func remove(_ registration: SignalRegistration) {
        let number = registration.signal
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

    func insistOnInterrupt(_ insists: Bool) { gevent_signal_insist_on_interrupt(inbox, insists) }

    /// Once for each time the handler ran.
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

    func hubWillClose() {
        for registration in registrations.values.joined() { registration.close() }
        registrations = [:]
        close()
    }

    func hubDidFork() {
        let error = gevent_signal_inbox_renew(inbox)
        if error != 0 { hub.mainGreenlet.deliver(LoopError(errno: error, operation: "eventfd")) }
        // What came to this process while its inbox was still the parent's.
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
        do throws(SignalError) {
            try service.add(registration)
        } catch {
            registration.close()
            service.closeIfUnused()
            throw error
        }
        return registration
    }
}
