import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Registrations")
struct RegistrationTests {
    /// One active registration of each kind.
    private func all(_ hub: Hub, _ greenlet: Greenlet<Void>) throws -> [Registration] {
        let monitor = try hub.startMonitor()
        return [
            greenlet.link { _ in }, greenlet.linkError { _ in }, greenlet.rawLink { _ in },
            try greenlet.link(to: .current), hub.runCallback {}, hub.onSwitch { _, _ in }, hub.hold(),
            AnyGreenlet.addSpawnCallback { _ in }, try onSignal(SIGUSR1) {}, try installSIGINTHandler(),
            every(.seconds(1)) {}, monitor.onBlocking { _ in }, monitor.onMemory { _ in },
            try monitor.addFunction(period: .seconds(1)) { _ in },
        ]
    }

    @Test("Each kind is active until it is cancelled, and may be cancelled again")
    func cancelled() throws {
        try withHub { hub in
            let greenlet = Greenlet {}
            let registrations = try all(hub, greenlet)
            #expect(registrations.map(\.isActive) == registrations.map { _ in true })
            for _ in 0..<2 {
                for registration in registrations { registration.cancel() }
                #expect(registrations.map(\.isActive) == registrations.map { _ in false })
            }
            #expect(!greenlet.hasLinks && hub.holdCount == 0 && hub.switchWatch == nil)
            hub.stopMonitor()
        }
    }

    @Test("A registration ends with its hub, and cancelling it afterwards does nothing")
    func afterDestroy() throws {
        try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            let greenlet = Greenlet {}
            let registrations = try all(hub, greenlet)
            hub.destroy()
            for registration in registrations { registration.cancel() }
            #expect(registrations.map(\.isActive) == registrations.map { _ in false })
        }
    }

    @Test("Cancelling on another thread stops the program with a message, except for a monitor's registration")
    func elsewhere() async throws {
        for index in 0..<14 {
            let result = try await #require(
                processExitsWith: index < 11 ? .failure : .success, observing: [\.standardErrorContent]
            ) { [index = index as Int] in
                dieQuietly()
                try onFreshThread {
                    let hub = try Hub.start(on: VirtualLoop())
                    let greenlet = Greenlet {}
                    let registration = Smuggled(try RegistrationTests().all(hub, greenlet)[index])
                    TestThread { registration.value.cancel() }.join()
                    exit(0)
                }
            }
            #expect(text(result.standardErrorContent).contains("wrongThread") == (index < 11), "\(index)")
        }
    }
}
