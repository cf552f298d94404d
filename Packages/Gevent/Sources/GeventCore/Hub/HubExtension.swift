@_spi(GeventInternals) internal import GeventSettings

/// Features that a module above the core adds to the hubs of the process. The core never names such a module: linking
/// it is enough, since it registers its extension by ``LinkedModule/register(_:)``.
///
/// Every requirement has a default, so an extension implements only the features that it provides.
package protocol HubExtension: Sendable {
    /// Called at the end of a hub's initialisation, on its thread. Must not park.
    func hubWasMade(_ hub: Hub)

    /// Returns the message of `wouldBlockForever`, with the parked greenlets.
    func deadlockReport(of hub: Hub) -> String?

    /// Returns a report of every greenlet of `hub`.
    func greenletReport(of hub: Hub) -> String?

    /// Returns the program's functions at these return addresses, innermost first, formatted for reports.
    func frames(at addresses: [UInt]) -> [String]?
}

extension HubExtension {
    package func hubWasMade(_ hub: Hub) {}
    package func deadlockReport(of hub: Hub) -> String? { nil }
    package func greenletReport(of hub: Hub) -> String? { nil }
    package func frames(at addresses: [UInt]) -> [String]? { nil }
}

/// The extensions that are linked into this program.
package enum HubExtensions {
    private static let registered = ForkableMutex<[any HubExtension]>([])

    /// Adds an extension. Call it in the closure that a module passes to ``LinkedModule/register(_:)``.
    package static func register(_ hubExtension: some HubExtension) {
        registered.withLock { $0.append(hubExtension) }
    }

    private static let all: [any HubExtension] = {
        LinkedModule.runRegistrars()
        return registered.withLock { $0 }
    }()

    static func hubWasMade(_ hub: Hub) {
        for hubExtension in all { hubExtension.hubWasMade(hub) }
    }

    static func deadlockReport(of hub: Hub) -> String {
        first { $0.deadlockReport(of: hub) } ?? "nothing is ready and nothing pending can make anything ready"
    }

    package static func greenletReport(of hub: Hub) -> String { first { $0.greenletReport(of: hub) } ?? "" }

    /// Returns the functions at `addresses`, or the addresses themselves if no linked module can symbolicate them.
    static func frames(at addresses: [UInt]) -> [String] {
        first { $0.frames(at: addresses) } ?? addresses.map { "0x\(String($0, radix: 16))" }
    }

    private static func first<Value>(_ answer: (any HubExtension) -> Value?) -> Value? {
        for hubExtension in all {
            if let value = answer(hubExtension) { return value }
        }
        return nil
    }
}
