internal import CGevent
internal import GeventCore
internal import Glibc

/// What this module adds to each hub: the report that SIGUSR2 asks for.
private struct OSExtension: HubExtension {
    func hubWasMade(_ hub: Hub) {
        if !hub.resolvedConfiguration.reportOnSIGUSR2 { return }
        do {
            // Every hub of the process receives the signal, and prints its own report.
            _ = try hub.watchSignal(
                SIGUSR2, referenced: false,
                .hub { [unowned hub] in
                    let report = HubExtensions.greenletReport(of: hub)
                    hub.errorOutput?("gevent: SIGUSR2, hub \(hub.name) of process \(getpid())\n\(report)\n")
                })
        } catch {  // control: the hub is being made; nothing can be thrown into it yet
            printToStandardError("gevent: SIGUSR2 prints no report: \(error)\n")
        }
    }
}

@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = { gevent_extension_linked { HubExtensions.register(OSExtension()) } }
