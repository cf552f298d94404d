internal import CGevent
internal import GeventCore
internal import Glibc

/// The extension that adds symbolicated reports to each hub, and the monitor and trace that the settings ask for.
private struct DiagnosticsExtension: HubExtension {
    func hubWasMade(_ hub: Hub) { hub.startObservingAsConfigured() }
    func deadlockReport(of hub: Hub) -> String? { hub.deadlockReport() }
    func greenletReport(of hub: Hub) -> String? { hub.greenletReport(limit: GreenletTree.defaultLimit) }
    func frames(at addresses: [UInt]) -> [String]? { symbolicated(addresses) }
}

@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = {
    LinkedModule.register {
        HubExtensions.register(DiagnosticsExtension())
        gevent_once_set_function_text { address, text, size in
            guard let address, let text, let frame = symbolicatedFrames(at: address).last else { return }
            strncpy(text, frame.text, size - 1)
            text[size - 1] = 0
        }
        Setting.register(
            SettingKey.monitorThreadEnable.setting, SettingKey.maxBlockingTime.setting,
            SettingKey.monitorPrintBlockingReports.setting, SettingKey.monitorMemoryPeriod.setting,
            SettingKey.monitorMemoryMax.setting, SettingKey.trace.setting)
    }
}
