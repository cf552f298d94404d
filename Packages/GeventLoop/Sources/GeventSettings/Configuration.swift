internal import CGeventSystem
internal import Glibc
internal import Synchronization

/// The settings of this process. Code takes precedence over the environment, and the environment over the default.
///
/// ```swift
/// try Configuration.shared.set(.loop, to: "libuv")  // before the first hub is created
/// ```
///
/// The first hub reads the settings. After that they are fixed, and a change throws
/// ``ConfigurationError/Code/tooLate``. Any thread may use a configuration.
///
/// A variable that is empty or blank counts as unset. A program with privileges that its caller does not have
/// (set-user-ID, set-group-ID, file capabilities) ignores the environment, because the caller must not choose the files
/// it writes. Such a program sets its settings in code.
public final class Configuration: Sendable {
    /// The configuration of this process, based on its environment.
    public static let shared = Configuration(variables: realEnvironment)

    private struct State {
        var overrides: [Setting: String] = [:]
        var environment: [String: String]?
        var resolved: ResolvedConfiguration?
    }

    private let state = Mutex(State())
    private let variables: @Sendable () -> [String: String]

    /// Creates a separate configuration with this environment in place of the real one, for tests.
    ///
    /// - Parameter environment: the variables that are set, by name.
    public convenience init(environment: [String: String]) {
        self.init(variables: { environment })
    }

    private init(variables: @escaping @Sendable () -> [String: String]) {
        self.variables = variables
    }

    /// Sets the value of a setting in code, which takes precedence over the environment; nil removes it.
    ///
    /// - Throws: ``ConfigurationError``: `tooLate` after the settings have been read, `invalidValue` if the setting
    ///   does not accept the value.
    public func set<Value>(_ key: SettingKey<Value>, to value: Value?) throws(ConfigurationError) {
        let name = key.setting.name
        let text = value.map(key.format)
        if let text, key.setting.parse(text) == nil {
            throw .invalid(key.setting, text: text, origin: .code)
        }
        // The closure returns a Bool because an inferred typed throw out of `withLock` would have to be Sendable.
        let isTooLate = state.withLock { state in
            if state.resolved != nil { return true }
            state.overrides[key.setting] = text
            return false
        }
        if isTooLate {
            throw ConfigurationError(
                .tooLate, setting: name,
                message: "\(name) cannot be changed\(text.map { " to \"\($0)\"" } ?? "") any more: "
                    + "the settings were read when the first hub was made. Set it before that.")
        }
    }

    /// Returns the settings in force. The first call that succeeds fixes them.
    ///
    /// The environment is read once, by the first call. If that call throws, code may still correct the setting with
    /// ``set(_:to:)`` and resolve again.
    ///
    /// - Throws: ``ConfigurationError`` with code `invalidValue` for the first setting that does not accept its value.
    public func resolve() throws(ConfigurationError) -> ResolvedConfiguration {
        // Read outside the lock, because modules run their own code to register their settings.
        let linked = Setting.all
        let result = state.withLock { state -> Result<ResolvedConfiguration, ConfigurationError> in
            if let resolved = state.resolved { return .success(resolved) }
            let environment = state.environment ?? variables().filter { !trimmed($0.value).isEmpty }
            state.environment = environment
            // Code may also have set a setting whose module was dropped from a static archive and so never registered
            // it.
            let table = linked + state.overrides.keys.filter { !linked.contains($0) }
            do throws(ConfigurationError) {
                let resolved = try ResolvedConfiguration(
                    table, overrides: state.overrides, environment: environment)
                state.resolved = resolved
                return .success(resolved)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}

/// Returns the environment variables of the process whose names begin with "GEVENT_".
@Sendable
private func realEnvironment() -> [String: String] {
    var values: [String: String] = [:]
    var index: CInt = 0
    while let entry = gevent_environment(index) {
        index += 1
        guard strncmp(entry, "GEVENT_", 7) == 0 else { continue }
        let parts = String(cString: entry).split(separator: "=", maxSplits: 1)
        // As for getenv, the first of two entries counts.
        if parts.count == 2, values[String(parts[0])] == nil { values[String(parts[0])] = String(parts[1]) }
    }
    return values
}

extension ConfigurationError {
    static func invalid(_ setting: Setting, text: String, origin: ResolvedSetting.Origin) -> ConfigurationError {
        let source = origin == .code ? " (set in code)" : ""
        return ConfigurationError(
            .invalidValue, setting: setting.name,
            message: "\(setting.name)=\"\(text)\"\(source): not a value this setting takes. "
                + "It takes \(setting.type); the default is \"\(setting.defaultText)\".")
    }
}
