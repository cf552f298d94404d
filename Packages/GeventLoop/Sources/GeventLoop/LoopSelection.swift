public import GeventSettings

extension ResolvedConfiguration {
    /// Creates the loop that `GEVENT_LOOP` names, wrapped in a ``CheckedLoop`` if ``debugLoop`` is on.
    ///
    /// An unset or empty setting selects the first loop that starts: preferred loops first, then the others by name.
    /// One name selects that loop, or throws. A list selects the first loop that is linked and starts. Case and spaces
    /// are ignored.
    ///
    /// - Parameter backends: the backends to choose from.
    /// - Returns: the loop, which belongs to the calling thread, and one sentence on why it was chosen.
    /// - Throws: a ``ConfigurationError`` that states why each candidate failed and which loops are linked.
    public func makeLoop(
        from backends: [LoopBackend] = LoopBackend.linked
    ) throws(ConfigurationError) -> (loop: any Loop, reason: String) {
        let made = try LoopSelection(configuration: self, backends: backends).makeLoop()
        return (debugLoop ? checked(made.loop) : made.loop, made.reason)
    }
}

/// Opens the existential, so that the wrapper keeps the type and name of the loop.
private func checked(_ loop: some Loop) -> any Loop {
    CheckedLoop(loop)
}

/// One attempt to choose a loop: the request and the available backends.
private struct LoopSelection {
    let configuration: ResolvedConfiguration
    let backends: [LoopBackend]
    /// The known loops and their products, in order of preference.
    let knownLoops = LoopBackend.known

    /// The reason why a candidate was not chosen.
    enum Failure {
        case notLinked(String)
        case failed(String, LoopError)
    }

    func makeLoop() throws(ConfigurationError) -> (loop: any Loop, reason: String) {
        if backends.isEmpty { throw noLoopLinked }
        let names = requestedNames
        var failures: [Failure] = []
        for name in names.isEmpty ? defaultOrder : names {
            guard let backend = backends.last(where: { $0.isNamed(name) }) else {
                failures.append(.notLinked(name))
                continue
            }
            do throws(LoopError) {
                let loop = try backend.makeLoop(configuration)
                return (loop, reason(isDefault: names.isEmpty, failures: failures))
            } catch {
                failures.append(.failed(backend.name, error))
            }
        }
        throw names.isEmpty ? nothingStarted(failures) : requestFailed(failures)
    }

    private var request: String { configuration.loop }

    /// The names in the request, in lower case, each once.
    private var requestedNames: [String] {
        var names: [String] = []
        for part in request.split(separator: ",") {
            let name = trimmed(part).lowercased()
            if !name.isEmpty && !names.contains(name) { names.append(name) }
        }
        return names
    }

    private var defaultOrder: [String] {
        let known = knownLoops.map(\.name).filter { isLinked($0) }
        let others = backends.map { $0.name.lowercased() }.filter { !known.contains($0) }.sorted()
        return known + others
    }

    private func isLinked(_ name: String) -> Bool {
        backends.contains { $0.isNamed(name) }
    }

    private func reason(isDefault: Bool, failures: [Failure]) -> String {
        let skipped = failures.isEmpty ? "" : " (\(failures.map(text).joined(separator: "; ")))"
        return isDefault
            ? "the first in the default order that started\(skipped)"
            : "asked for by \(subject)\(skipped)"
    }

    // MARK: Errors

    private var noLoopLinked: ConfigurationError {
        let value = requestedNames.isEmpty ? "" : "\(subject): "
        return ConfigurationError(
            .noLoopLinked, setting: variable,
            message: "\(value)no event loop is linked into this program. "
                + (knownLoops.first.map {
                    "Depend on the product \($0.product), which includes \($0.name), or on \(otherProducts), or call "
                } ?? "Call ") + "LoopBackend.register(_:) before the first hub.")
    }

    private func nothingStarted(_ failures: [Failure]) -> ConfigurationError {
        ConfigurationError(
            .loopFailed, setting: variable,
            message: "\(variable) is not set, and none of the linked loops could be started: "
                + failures.map(text).joined(separator: "; ") + ".")
    }

    private func requestFailed(_ failures: [Failure]) -> ConfigurationError {
        var missing: [String] = []
        var anyStartFailed = false
        for failure in failures {
            switch failure {
            case .notLinked(let name): missing.append(name)
            case .failed: anyStartFailed = true
            }
        }
        var message: String
        if failures.count > 1 {
            message = "\(subject): none of these loops can be used: " + failures.map(text).joined(separator: "; ")
        } else if anyStartFailed {
            message = "\(subject): " + failures.map(text).joined()
        } else {
            message = "\(subject): no loop of that name is linked into this program"
        }
        message += " (linked: \(linkedNames))."
        message += suggestion(for: missing)
        return ConfigurationError(anyStartFailed ? .loopFailed : .noSuchLoop, setting: variable, message: message)
    }

    private func suggestion(for missing: [String]) -> String {
        if missing.isEmpty { return "" }
        var text = ""
        // A known name that is not linked needs a dependency, not another spelling.
        let misspelt = missing.filter { name in !knownLoops.contains { $0.name == name } }
        let nearest = misspelt.compactMap { nearestName(to: $0, in: backends.map { $0.name.lowercased() }) }
        if !nearest.isEmpty {
            text += " Did you mean \(nearest.map { "\"\($0)\"" }.joined(separator: " or "))?"
        }
        let wanted = knownLoops.filter { missing.contains($0.name) }.map(\.product)
        if !wanted.isEmpty {
            text +=
                " To add \(wanted.count == 1 ? "it" : "them"), depend on the product"
                + "\(wanted.count == 1 ? "" : "s") \(wanted.joined(separator: " and "))."
        } else if !knownLoops.allSatisfy({ isLinked($0.name) }) {
            text += " To add one, depend on the product \(otherProducts)."
        }
        return text
    }

    /// The products that add loops other than the default one.
    private var otherProducts: String { knownLoops.dropFirst().map(\.product).joined(separator: " or ") }

    private var variable: String { SettingKey.loop.setting.name }

    private var origin: ResolvedSetting.Origin {
        configuration.settings.first { $0.name == variable }?.origin ?? .default
    }

    private var subject: String {
        "\(variable)=\"\(request)\"\(origin == .code ? " (set in code)" : "")"
    }

    private var linkedNames: String {
        defaultOrder.joined(separator: ", ")
    }

    private func text(_ failure: Failure) -> String {
        switch failure {
        case .notLinked(let name): "\(name) is not linked into this program"
        case .failed(let name, let error): "\(name) could not be started: \(error)"
        }
    }
}
