public import GeventLoop

// Linking this module is enough to have its loop and its setting.
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
    /// `GEVENT_BACKEND`: how libev, if that is the loop, asks the kernel for events.
    public static var libevBackend: SettingKey<String> {
        // The names are judged when a loop is made: only then is it known what libev was built with.
        SettingKey(
            "GEVENT_BACKEND", type: "epoll, poll, select or linuxaio, or several separated by commas",
            summary: "What libev runs on: the first that this system has; empty leaves it to LIBEV_FLAGS and libev. "
                + "Other loops ignore it.")
    }
}
