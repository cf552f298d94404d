// The settings of this package. It re-exports GeventSettings: a module that declares a loop declares its settings too.
@_exported public import GeventSettings

@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = {
    LinkedModule.register { Setting.register(SettingKey.loop.setting, SettingKey.debugLoop.setting) }
}

extension SettingKey where Value == String {
    /// `GEVENT_LOOP`: which loop runs. One name, or several separated by commas; case and spaces do not matter.
    public static var loop: SettingKey<String> {
        SettingKey(
            "GEVENT_LOOP", type: "a loop's name, or several separated by commas",
            summary: "The event loop: one name is that one or an error, of a list the first that starts is used; "
                + "empty is the first that starts of those that are linked.")
    }
}

extension SettingKey where Value == Bool {
    /// `GEVENT_DEBUG_LOOP`: whether loops are wrapped in a ``CheckedLoop``.
    public static var debugLoop: SettingKey<Bool> {
        SettingKey(
            "GEVENT_DEBUG_LOOP", default: "false",
            summary: "Whether each call of the event loop is checked, and logged to standard error.")
    }
}

extension ResolvedConfiguration {
    /// The loops asked for, as written in `GEVENT_LOOP`; empty for the default order. See ``makeLoop(from:)``.
    public var loop: String { self[.loop] }

    /// Whether loops are wrapped in a ``CheckedLoop``.
    public var debugLoop: Bool { self[.debugLoop] }
}
