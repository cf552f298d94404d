// The settings of the core.

@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = {
    LinkedModule.register {
        Setting.register(
            SettingKey.stackSize.setting, SettingKey.timerSlack.setting, SettingKey.trackGreenletTree.setting)
    }
}

extension SettingKey where Value == Int {
    /// `GEVENT_STACK_SIZE`: bytes of stack per greenlet, from 16 KiB to 64 MiB; the core rounds up to whole pages.
    public static var stackSize: SettingKey<Int> {
        SettingKey(
            "GEVENT_STACK_SIZE", type: "bytes from 16k to 64m, such as 65536, 64k or 1MiB", default: "1MiB",
            bytes: (16 << 10)...(64 << 20),
            summary:
                "The stack of a greenlet, its guard included (64 KiB, or a quarter of a small stack): address space; "
                + "only pages that are touched take memory.")
    }
}

extension SettingKey where Value == Duration {
    /// `GEVENT_TIMER_SLACK`: how much later than its deadline a timer may fire to share a wake with others; 0 for
    /// never.
    public static var timerSlack: SettingKey<Duration> {
        SettingKey(
            "GEVENT_TIMER_SLACK", type: "a time from 0 to 100ms, such as 200us, 0.5ms or 0.001 (seconds)",
            default: "500us", in: .zero...(.milliseconds(100)),
            summary: "How much later than its deadline a timer may fire so that one wake of the thread serves several; "
                + "a timer without others near it is exact, and 0 makes all timers exact.")
    }
}

extension SettingKey where Value == Bool {
    /// `GEVENT_TRACK_GREENLET_TREE`: whether each greenlet records its spawner and its spawn site, and shares locals
    /// with its spawn tree.
    public static var trackGreenletTree: SettingKey<Bool> {
        SettingKey(
            "GEVENT_TRACK_GREENLET_TREE", default: "true",
            summary: "Whether each greenlet records its spawner and spawn site, and shares locals with its spawn tree.")
    }
}

extension ResolvedConfiguration {
    /// Bytes of stack per greenlet, as requested; not yet rounded up to whole pages.
    public var stackSize: Int { self[.stackSize] }

    /// How much later than its deadline a timer may fire so that one wake serves several timers.
    public var timerSlack: Duration { self[.timerSlack] }

    /// Whether each greenlet records its spawner and its spawn site, and shares locals with its spawn tree.
    public var trackGreenletTree: Bool { self[.trackGreenletTree] }
}
