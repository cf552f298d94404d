/// One setting as it is in force, for `gevent-info`.
public struct ResolvedSetting: Sendable, Hashable {
    /// Where a value came from.
    public enum Origin: String, Sendable, Hashable {
        /// ``Configuration/set(_:to:)``.
        case code
        /// The environment variable.
        case environment
        /// Neither of them said anything.
        case `default`
    }

    /// The row of the table.
    public let setting: Setting

    /// The variable, such as "GEVENT_LOOP".
    public var name: String { setting.name }

    /// The value as it was written.
    public let value: String

    /// Where it came from.
    public let origin: Origin
}

/// The settings in force: fixed, typed values, and where each came from.
public struct ResolvedConfiguration: Sendable {
    /// Every setting with its value and origin, in the order of ``Setting/all``.
    public let settings: [ResolvedSetting]

    /// Variables of the environment that begin with "GEVENT_" and are not settings of a module that is linked into this
    /// program, by name. They have no effect: the name is misspelt, or the module that has the setting is not linked.
    /// This is no error, because an environment is shared by many programs.
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

    /// The value of a setting. Of one whose module was neither linked nor used in code when the configuration was
    /// resolved, it is the default.
    public subscript<Value>(key: SettingKey<Value>) -> Value {
        guard let value = (values[key.setting.name] ?? key.setting.parse(key.setting.defaultText)) as? Value else {
            preconditionFailure("\(key.setting.name) has the default \"\(key.setting.defaultText)\", which is no value")
        }
        return value
    }

    /// The setting that an unknown variable was probably meant to be, or nil if none is close.
    public func nearestSetting(to variable: String) -> String? {
        nearestName(to: variable, in: settings.map(\.name))
    }
}
