public import GeventLoop

// Linking this module registers its loop and its setting.
@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = {
    LinkedModule.register {
        Setting.register(SettingKey.libevBackend.setting)
        LoopBackend.register(
            LoopBackend(name: LibevLoop.backendName) { (configuration) throws(LoopError) in
                try LibevLoop(backends: LibevLoop.Backend.list(configuration[.libevBackend]))
            })
    }
}

extension SettingKey where Value == String {
    /// `GEVENT_BACKEND`: the kernel interface that libev uses. Other loops ignore it.
    public static var libevBackend: SettingKey<String> {
        // The names are checked when a loop is created, because only libev knows the backends it was built with.
        SettingKey(
            "GEVENT_BACKEND", type: "epoll, poll, select or linuxaio, or several separated by commas",
            summary: "libev's backend: the first listed that this system has. If empty, LIBEV_FLAGS or libev decides. "
                + "Other loops ignore it.")
    }
}
