/// One row of the table of settings: what `gevent-info`, the errors and the documentation say about a variable.
public struct Setting: Sendable, Hashable {
    /// The environment variable, such as "GEVENT_STACK_SIZE".
    public let name: String

    /// What its value looks like, such as "yes or no".
    public let type: String

    /// The value when neither the code nor the environment says anything.
    public let defaultText: String

    /// One sentence that says what it does.
    public let summary: String

    /// Every setting, in the order in which they are shown.
    ///
    /// To add one: a key in `SettingKeys.swift`, its row here, and its accessor in ``ResolvedConfiguration``. Parsing,
    /// errors, documentation and `gevent-info` follow.
    public static let all: [Setting] = [
        SettingKey.loop.setting,
        SettingKey.libevBackend.setting,
        SettingKey.stackSize.setting,
        SettingKey.timerSlack.setting,
        SettingKey.trackGreenletTree.setting,
        SettingKey.debugLoop.setting,
        SettingKey.monitorThreadEnable.setting,
        SettingKey.maxBlockingTime.setting,
        SettingKey.monitorPrintBlockingReports.setting,
        SettingKey.monitorMemoryPeriod.setting,
        SettingKey.monitorMemoryMax.setting,
        SettingKey.trace.setting,
        SettingKey.reportOnSIGUSR2.setting,
    ]
}

/// A setting together with the type of its value.
public struct SettingKey<Value: Sendable>: Sendable {
    /// The row of the table.
    public let setting: Setting

    /// The value of a text, or nil if the text is not one.
    let parse: @Sendable (String) -> Value?

    /// The text of a value, as ``parse`` would accept it.
    let format: @Sendable (Value) -> String

    init(
        _ name: String, type: String, default defaultText: String, summary: String,
        parse: @escaping @Sendable (String) -> Value?, format: @escaping @Sendable (Value) -> String
    ) {
        setting = Setting(name: name, type: type, defaultText: defaultText, summary: summary)
        self.parse = parse
        self.format = format
    }
}
