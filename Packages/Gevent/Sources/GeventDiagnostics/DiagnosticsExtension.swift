internal import CGevent
internal import GeventCore

/// What this module adds to each hub: reports with names, and what the settings say is to be observed.
private struct DiagnosticsExtension: HubExtension {
    func hubWasMade(_ hub: Hub) { hub.startObservingAsConfigured() }
    func deadlockReport(of hub: Hub) -> String? { hub.deadlockReport() }
    func greenletReport(of hub: Hub) -> String? { hub.greenletReport(limit: GreenletTree.defaultLimit) }
    func frames(at addresses: [UInt]) -> [String]? { symbolicated(addresses) }
}

@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = {
    gevent_extension_linked { HubExtensions.register(DiagnosticsExtension()) }
}
