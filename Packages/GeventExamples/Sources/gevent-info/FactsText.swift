// The same facts for people.

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
            ("deadlines kept to", "\(loop.timerResolutionNanoseconds) ns"),
        ] + loop.features.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    private var runtimeRows: [(String, String)] {
        [
            (
                "stack of a greenlet",
                "\(runtime.stackBytes >> 10) KiB, which is the setting rounded up to an odd number of pages: "
                    + "\(runtime.guardBytes >> 10) KiB guard, \((runtime.stackBytes - runtime.guardBytes) >> 10) KiB to use"
            ),
            ("overflow of a stack", "reported if a frame touches the guard, or steps over it and then switches"),
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
