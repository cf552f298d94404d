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
    /// The loops asked for, as written in `GEVENT_LOOP`; empty for the default order. See ``makeLoop(from:)``.
    public let loop: String

    /// What libev should run on, as written in `GEVENT_BACKEND`; empty for its own choice.
    public let libevBackend: String

    /// Bytes of stack per greenlet, as asked for; not yet rounded to pages.
    public let stackSize: Int

    /// How late a timer may fire so that it fires together with others.
    public let timerSlack: Duration

    /// Whether each greenlet remembers who spawned it and where, and shares locals with its tree.
    public let trackGreenletTree: Bool

    /// Whether loops are wrapped in a ``CheckedLoop``.
    public let debugLoop: Bool

    /// Whether each hub has a thread that watches for greenlets that block it.
    public let monitorThreadEnable: Bool

    /// How long a greenlet may run without a switch before the monitor thread reports it.
    public let maxBlockingTime: Duration

    /// Whether the monitor's reports of greenlets that block are printed.
    public let monitorPrintBlockingReports: Bool

    /// How often the monitor thread looks at the memory the process uses.
    public let monitorMemoryPeriod: Duration

    /// Bytes of resident memory above which the monitor thread says so; nil for any amount.
    public let monitorMemoryMax: Int?

    /// The file that a trace of every hub is written to; empty for none.
    public let trace: String

    /// Whether SIGUSR2 has a report of all greenlets printed.
    public let reportOnSIGUSR2: Bool

    /// Every setting with its value and origin, in the order of ``Setting/all``.
    public let settings: [ResolvedSetting]

    init(overrides: [String: String], environment: [String: String]) throws(ConfigurationError) {
        var reader = SettingReader(overrides: overrides, environment: environment)
        loop = try reader.value(of: .loop)
        libevBackend = try reader.value(of: .libevBackend)
        stackSize = try reader.value(of: .stackSize)
        timerSlack = try reader.value(of: .timerSlack)
        trackGreenletTree = try reader.value(of: .trackGreenletTree)
        debugLoop = try reader.value(of: .debugLoop)
        monitorThreadEnable = try reader.value(of: .monitorThreadEnable)
        maxBlockingTime = try reader.value(of: .maxBlockingTime)
        monitorPrintBlockingReports = try reader.value(of: .monitorPrintBlockingReports)
        monitorMemoryPeriod = try reader.value(of: .monitorMemoryPeriod)
        let memoryMax = try reader.value(of: .monitorMemoryMax)
        monitorMemoryMax = memoryMax == 0 ? nil : memoryMax
        trace = try reader.value(of: .trace)
        reportOnSIGUSR2 = try reader.value(of: .reportOnSIGUSR2)
        settings = reader.rows
    }

    /// Where `GEVENT_LOOP` came from.
    var loopOrigin: ResolvedSetting.Origin {
        settings.first { $0.name == SettingKey.loop.setting.name }?.origin ?? .default
    }
}

/// Reads typed values and keeps the rows they came from.
private struct SettingReader {
    let overrides: [String: String]
    let environment: [String: String]
    var rows: [ResolvedSetting] = []

    init(overrides: [String: String], environment: [String: String]) {
        self.overrides = overrides
        self.environment = environment
    }

    mutating func value<Value>(of key: SettingKey<Value>) throws(ConfigurationError) -> Value {
        let setting = key.setting
        let row: ResolvedSetting
        if let text = overrides[setting.name] {
            row = ResolvedSetting(setting: setting, value: text, origin: .code)
        } else if let text = environment[setting.name] {
            row = ResolvedSetting(setting: setting, value: text, origin: .environment)
        } else {
            row = ResolvedSetting(setting: setting, value: setting.defaultText, origin: .default)
        }
        guard let value = key.parse(row.value) else {
            throw .invalid(setting, text: row.value, origin: row.origin)
        }
        rows.append(row)
        return value
    }
}
