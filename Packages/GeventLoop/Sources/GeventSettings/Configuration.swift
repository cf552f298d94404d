internal import CGeventSystem
internal import Glibc
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
    public static let shared = Configuration(variables: realEnvironment)

    private struct State {
        var overrides: [Setting: String] = [:]
        var environment: [String: String]?
        var resolved: ResolvedConfiguration?
    }

    private let state = Mutex(State())
    private let variables: @Sendable () -> [String: String]

    /// A configuration of its own with this environment in place of the real one, for tests.
    ///
    /// - Parameter environment: the variables that are set, by name.
    public convenience init(environment: [String: String]) {
        self.init(variables: { environment })
    }

    private init(variables: @escaping @Sendable () -> [String: String]) {
        self.variables = variables
    }

    /// Gives a setting a value in code, which goes before the environment; nil takes it back.
    ///
    /// - Throws: ``ConfigurationError``: `tooLate` once the settings have been read, `invalidValue` if it is not one
    ///   that the setting takes.
    public func set<Value>(_ key: SettingKey<Value>, to value: Value?) throws(ConfigurationError) {
        let name = key.setting.name
        let text = value.map(key.format)
        if let text, key.setting.parse(text) == nil {
            throw .invalid(key.setting, text: text, origin: .code)
        }
        // A typed throw out of `withLock` would have to be Sendable through a closure's inference; a Bool is plainer.
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

    /// The settings as they are in force; the first call that succeeds fixes them for good.
    ///
    /// The environment is read once, at the first call. If that call throws, the code may still correct the setting
    /// with ``set(_:to:)`` and resolve again.
    ///
    /// - Throws: ``ConfigurationError`` with code `invalidValue` for the first setting whose value is not one it takes.
    public func resolve() throws(ConfigurationError) -> ResolvedConfiguration {
        // Outside of the lock, since modules run code of theirs to register their settings.
        let linked = Setting.all
        let result = state.withLock { state -> Result<ResolvedConfiguration, ConfigurationError> in
            if let resolved = state.resolved { return .success(resolved) }
            let environment = state.environment ?? variables().filter { !trimmed($0.value).isEmpty }
            state.environment = environment
            // The code may also have set one whose module a static archive left unregistered.
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

/// The variables of the process whose names begin with "GEVENT_".
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
        let place = origin == .code ? " (set in code)" : ""
        return ConfigurationError(
            .invalidValue, setting: setting.name,
            message: "\(setting.name)=\"\(text)\"\(place): not a value this setting takes. "
                + "It takes \(setting.type); the default is \"\(setting.defaultText)\".")
    }
}
