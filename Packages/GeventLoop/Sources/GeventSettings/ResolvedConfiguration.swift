/// A setting with the value in force, for `gevent-info`.
public struct ResolvedSetting: Sendable, Hashable {
    /// The source of a value.
    public enum Origin: String, Sendable, Hashable {
        /// ``Configuration/set(_:to:)``.
        case code
        /// The environment variable.
        case environment
        /// The setting's default, because neither of the others has a value.
        case `default`
    }

    /// The setting.
    public let setting: Setting

    /// The variable, such as "GEVENT_LOOP".
    public var name: String { setting.name }

    /// The text of the value, as written.
    public let value: String

    /// The source of the value.
    public let origin: Origin
}

/// The settings in force, as fixed, typed values with their sources.
public struct ResolvedConfiguration: Sendable {
    /// Every setting with its value and origin, in the order of ``Setting/all``.
    public let settings: [ResolvedSetting]

    /// The names of environment variables that begin with "GEVENT_" and are not settings of a linked module. They have
    /// no effect: either the name is misspelt, or the module that has the setting is not linked. This is no error,
    /// because many programs share an environment.
    public let unknownVariables: [String]

    private let values: [String: any Sendable]

    init(
        _ table: [Setting], overrides: [Setting: String], environment: [String: String]
    ) throws(ConfigurationError) {
        var settings: [ResolvedSetting] = []
        var values: [String: any Sendable] = [:]
        for setting in table {
            let row =
                if let text = overrides[setting] {
                    ResolvedSetting(setting: setting, value: text, origin: .code)
                } else if let text = environment[setting.name] {
                    ResolvedSetting(setting: setting, value: text, origin: .environment)
                } else {
                    ResolvedSetting(setting: setting, value: setting.defaultText, origin: .default)
                }
            guard let value = setting.parse(row.value) else {
                throw .invalid(setting, text: row.value, origin: row.origin)
            }
            settings.append(row)
            values[setting.name] = value
        }
        self.settings = settings
        self.values = values
        unknownVariables = environment.keys.filter { values[$0] == nil && $0.hasPrefix("GEVENT_") }.sorted()
    }

    /// The value of a setting. It is the default if the setting's module was neither linked nor used in code when the
    /// configuration was resolved.
    public subscript<Value>(key: SettingKey<Value>) -> Value {
        guard let value = (values[key.setting.name] ?? key.setting.parse(key.setting.defaultText)) as? Value else {
            preconditionFailure("\(key.setting.name) has an invalid default, \"\(key.setting.defaultText)\"")
        }
        return value
    }

    /// Returns the setting closest to the name of an unknown variable, or nil if none is close.
    public func nearestSetting(to variable: String) -> String? {
        nearestName(to: variable, in: settings.map(\.name))
    }
}
