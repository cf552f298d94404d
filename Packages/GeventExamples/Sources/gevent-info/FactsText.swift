// The facts as text.

extension Facts {
    var text: String {
        var text = "swift-gevent \(version)\n"
        text += section("loop", loopRows)
        text += section("runtime", runtimeRows)
        text += "\nsettings\n"
        for setting in settings {
            text += "  \(setting.name)=\(setting.value.debugDescription) (\(origin(of: setting)))\n"
            text += "      \(setting.summary)\n      Takes \(setting.type).\n"
        }
        if !unknownVariables.isEmpty {
            text += "\nvariables without effect\n" + unknownVariables.map { "  \($0)\n" }.joined()
        }
        return text
    }

    private var loopRows: [(String, String)] {
        [
            ("in use", "\(loop.name): \(loop.reason)"),
            ("linked", linkedLoops.joined(separator: ", ")),
            ("timer resolution", "\(loop.timerResolutionNanoseconds) ns"),
        ] + loop.features.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    private var runtimeRows: [(String, String)] {
        [
            (
                "greenlet stack",
                "\(runtime.stackBytes >> 10) KiB, the setting rounded up to an odd number of pages: "
                    + "\(runtime.guardBytes >> 10) KiB guard, \((runtime.stackBytes - runtime.guardBytes) >> 10) KiB to use"
            ),
            ("stack overflow", "reported when a frame touches the guard, or skips it and then switches"),
            ("guard pages", runtime.guardPages),
            ("exclusive accesses", runtime.exclusiveAccesses),
            ("task-locals", runtime.taskLocalsFollowGreenlets ? "follow greenlets" : "leak if bound around a wait"),
        ]
    }

    private func origin(of setting: Setting) -> String {
        switch setting.origin {
        case "environment": "from the environment"
        case "code": "set in code"
        default: "the default"
        }
    }

    private func section(_ title: String, _ rows: [(String, String)]) -> String {
        let width = rows.map(\.0.count).max() ?? 0
        return "\n\(title)\n"
            + rows.map { "  \($0)\(String(repeating: " ", count: width - $0.count + 2))\($1)\n" }.joined()
    }
}
