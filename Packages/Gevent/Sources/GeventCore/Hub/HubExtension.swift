internal import CGevent

/// What a module above the core adds to the hubs of the process. The core never names such a module: linking one is
/// enough, since it registers its extension in `.init_array`.
///
/// Every requirement has a default, so an extension implements what it provides.
package protocol HubExtension: Sendable {
    /// Called at the end of a hub's initialisation, on its thread. Must not park.
    func hubWasMade(_ hub: Hub)

    /// The message of `wouldBlockForever`, with the parked greenlets.
    func deadlockReport(of hub: Hub) -> String?

    /// The report of every greenlet of `hub`.
    func greenletReport(of hub: Hub) -> String?

    /// The program's functions at these return addresses, innermost first, as reports show them.
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

    /// Adds an extension. For the function that a module gives to `gevent_extension_linked`.
    package static func register(_ hubExtension: some HubExtension) {
        registered.withLock { $0.append(hubExtension) }
    }

    private static let all: [any HubExtension] = {
        gevent_extensions_install()
        return registered.withLock { $0 }
    }()

    static func hubWasMade(_ hub: Hub) {
        for hubExtension in all { hubExtension.hubWasMade(hub) }
    }

    static func deadlockReport(of hub: Hub) -> String {
        first { $0.deadlockReport(of: hub) } ?? "nothing is ready and nothing pending can make anything ready"
    }

    package static func greenletReport(of hub: Hub) -> String { first { $0.greenletReport(of: hub) } ?? "" }

    /// The functions at `addresses`; the addresses themselves where no linked module knows names.
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
