// The settings of this package. It re-exports GeventSettings, because a module that declares a loop also declares that
// loop's settings.
@_exported public import GeventSettings

@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = {
    LinkedModule.register { Setting.register(SettingKey.loop.setting, SettingKey.debugLoop.setting) }
}

extension SettingKey where Value == String {
    /// `GEVENT_LOOP`: the loop to use. One name, or several separated by commas; case and spaces are ignored.
    public static var loop: SettingKey<String> {
        SettingKey(
            "GEVENT_LOOP", type: "a loop's name, or several separated by commas",
            summary: "The event loop: with one name, that loop or an error; with a list, the first that starts; "
                + "if empty, the first linked loop that starts.")
    }
}

extension SettingKey where Value == Bool {
    /// `GEVENT_DEBUG_LOOP`: whether loops are wrapped in a ``CheckedLoop``.
    public static var debugLoop: SettingKey<Bool> {
        SettingKey(
            "GEVENT_DEBUG_LOOP", default: "false",
            summary: "Whether each call of the event loop is checked and logged to standard error.")
    }
}

extension ResolvedConfiguration {
    /// The requested loops, as written in `GEVENT_LOOP`; empty for the default order. See ``makeLoop(from:)``.
    public var loop: String { self[.loop] }

    /// Whether loops are wrapped in a ``CheckedLoop``.
    public var debugLoop: Bool { self[.debugLoop] }
}
