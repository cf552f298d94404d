internal import CGeventLoop
internal import Synchronization

/// The settings of this process: what the code says, else what the environment says, else the default.
///
/// ```swift
/// try Configuration.shared.set(.loop, to: "libuv")  // before the first hub is made
/// ```
///
/// The first hub reads them; from then on they are fixed, and a change throws ``ConfigurationError/Code/tooLate``. May
/// be used from any thread.
///
/// A variable that is empty or blank counts as unset. A program that runs with privileges its caller does not have
/// (set-user-ID, set-group-ID, file capabilities) ignores the environment: the caller must not choose which files it
/// writes. Such a program sets what it needs in code.
public final class Configuration: Sendable {
    /// The configuration of this process, which reads the real environment.
    public static let shared = Configuration { name in
        gevent_loop_environment(name).map { String(cString: $0) }
    }

    private struct State {
        var overrides: [String: String] = [:]
        var environment: [String: String]?
        var resolved: ResolvedConfiguration?
    }

    private let state = Mutex(State())
    private let variable: @Sendable (String) -> String?

    /// A configuration of its own with this environment in place of the real one, for tests.
    ///
    /// - Parameter environment: the variables that are set, by name.
    public convenience init(environment: [String: String]) {
        self.init { environment[$0] }
    }

    private init(variable: @escaping @Sendable (String) -> String?) {
        self.variable = variable
    }

    /// Gives a setting a value in code, which goes before the environment; nil takes it back.
    ///
    /// - Throws: ``ConfigurationError``: `tooLate` once the settings have been read, `invalidValue` if it is not one
    ///   that the setting takes.
    public func set<Value>(_ key: SettingKey<Value>, to value: Value?) throws(ConfigurationError) {
        let name = key.setting.name
        let text = value.map(key.format)
        if let text, key.parse(text) == nil {
            throw .invalid(key.setting, text: text, origin: .code)
        }
        // A typed throw out of `withLock` would have to be Sendable through a closure's inference; a Bool is plainer.
        let isTooLate = state.withLock { state in
            if state.resolved != nil { return true }
            state.overrides[name] = text
            return false
        }
        if isTooLate {
            throw ConfigurationError(
                .tooLate, setting: name,
                message: "\(name) cannot be changed\(text.map { " to \"\($0)\"" } ?? "") any more: "
                    + "the settings were read when the first hub was made. Set it before that.")
        }
    }

    /// The settings as they are in force; the first call that succeeds fixes them for good.
    ///
    /// The environment is read once, at the first call. If that call throws, the code may still correct the setting
    /// with ``set(_:to:)`` and resolve again.
    ///
    /// - Throws: ``ConfigurationError`` with code `invalidValue` for the first setting whose value is not one it takes.
    public func resolve() throws(ConfigurationError) -> ResolvedConfiguration {
        let result = state.withLock { state -> Result<ResolvedConfiguration, ConfigurationError> in
            if let resolved = state.resolved { return .success(resolved) }
            let environment = state.environment ?? readEnvironment()
            state.environment = environment
            do throws(ConfigurationError) {
                let resolved = try ResolvedConfiguration(overrides: state.overrides, environment: environment)
                state.resolved = resolved
                return .success(resolved)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func readEnvironment() -> [String: String] {
        var values: [String: String] = [:]
        for setting in Setting.all {
            guard let value = variable(setting.name), !trimmed(value).isEmpty else { continue }
            values[setting.name] = value
        }
        return values
    }
}

extension ConfigurationError {
    static func invalid(_ setting: Setting, text: String, origin: ResolvedSetting.Origin) -> ConfigurationError {
        let place = origin == .code ? " (set in code)" : ""
        return ConfigurationError(
            .invalidValue, setting: setting.name,
            message: "\(setting.name)=\"\(text)\"\(place): not a value this setting takes. "
                + "It takes \(setting.type); the default is \"\(setting.defaultText)\".")
    }
}
