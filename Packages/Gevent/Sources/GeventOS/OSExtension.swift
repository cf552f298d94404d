public import GeventCore
internal import Glibc

/// The extension that makes each hub print a report on SIGUSR2.
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
        } catch {  // control: the hub is being created, so no error can be delivered to it yet
            printToStandardError("gevent: cannot watch SIGUSR2 for reports: \(error)\n")
        }
    }
}

extension SettingKey where Value == Bool {
    /// `GEVENT_REPORT_ON_SIGUSR2`: whether SIGUSR2 makes each hub report its greenlets.
    public static var reportOnSIGUSR2: SettingKey<Bool> {
        SettingKey(
            "GEVENT_REPORT_ON_SIGUSR2", default: "false",
            summary:
                "Whether the signal SIGUSR2 has each hub report its greenlets through its errorOutput, by default to "
                + "standard error.")
    }
}

extension ResolvedConfiguration {
    /// Whether SIGUSR2 makes each hub report its greenlets.
    public var reportOnSIGUSR2: Bool { self[.reportOnSIGUSR2] }
}

@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = {
    LinkedModule.register {
        HubExtensions.register(OSExtension())
        Setting.register(SettingKey.reportOnSIGUSR2.setting)
    }
}
