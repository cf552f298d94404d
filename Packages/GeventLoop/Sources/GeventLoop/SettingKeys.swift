extension SettingKey where Value == String {
    /// `GEVENT_LOOP`: which loop runs. One name, or several separated by commas; case and spaces do not matter.
    public static var loop: SettingKey<String> {
        SettingKey(
            "GEVENT_LOOP", type: "a loop's name, or several separated by commas", default: "",
            summary: "The event loop: one name is that one or an error, of a list the first that starts is used; "
                + "empty prefers epoll, libev, libuv, then others by name.",
            // Every text is a list of names. Whether they exist is known only when a loop is made.
            parse: { $0 }, format: { $0 })
    }

    /// `GEVENT_BACKEND`: how libev, if that is the loop, asks the kernel for events.
    public static var libevBackend: SettingKey<String> {
        SettingKey(
            "GEVENT_BACKEND", type: "epoll, poll, select or linuxaio, or several separated by commas",
            default: "",
            summary: "What libev runs on: the first that this system has; empty leaves it to LIBEV_FLAGS and libev. "
                + "Other loops ignore it.",
            // The names are for the loop on libev to judge: it knows what its library was built with.
            parse: { $0 }, format: { $0 })
    }

    /// `GEVENT_TRACE`: the file that a trace of every hub is written to.
    public static var trace: SettingKey<String> {
        SettingKey(
            "GEVENT_TRACE", type: "the name of a file, in which %p stands for the process's number", default: "",
            summary: "Where to write what each greenlet does and when, for ui.perfetto.dev or chrome://tracing; "
                + "empty for nowhere. A link or another user's file is refused.",
            // Whether it can be written is known only when it is opened.
            parse: { $0 }, format: { $0 })
    }
}

extension SettingKey where Value == Int {
    /// `GEVENT_STACK_SIZE`: bytes of stack per greenlet, from 16 KiB to 64 MiB; the core rounds up to whole pages.
    public static var stackSize: SettingKey<Int> {
        SettingKey(
            "GEVENT_STACK_SIZE", type: "bytes from 16k to 64m, such as 65536, 64k or 1MiB", default: "1MiB",
            summary:
                "The stack of a greenlet, its guard included (64 KiB, or a quarter of a small stack): address space, "
                + "of which only what is touched takes memory.",
            parse: { parseBytes($0, in: (16 << 10)...(64 << 20)) }, format: { String($0) })
    }
}

extension SettingKey where Value == Int {
    /// `GEVENT_MONITOR_MEMORY_MAX`: how much memory the process may use before the monitor says so; 0 for any amount.
    public static var monitorMemoryMax: SettingKey<Int> {
        SettingKey(
            "GEVENT_MONITOR_MEMORY_MAX", type: "bytes, such as 500mb or 2GiB, or none", default: "none",
            summary: "The resident memory above which the monitor thread says so.",
            parse: { isNone($0) ? 0 : parseBytes($0, in: 0...Int.max) }, format: { $0 == 0 ? "none" : String($0) })
    }
}

extension SettingKey where Value == Duration {
    /// `GEVENT_TIMER_SLACK`: how late a timer may fire so that it fires together with others; 0 for never.
    public static var timerSlack: SettingKey<Duration> {
        duration(
            "GEVENT_TIMER_SLACK", type: "a time from 0 to 100ms, such as 200us, 0.5ms or 0.001 (seconds)",
            default: "500us", in: .zero...(.milliseconds(100)),
            summary: "How much later than its time a timer may fire if another is due by then, so that one wake of the "
                + "thread serves several; a timer that is alone is exact, and 0 makes all so.")
    }

    /// `GEVENT_MAX_BLOCKING_TIME`: how long a greenlet may run without a switch before the monitor reports it.
    public static var maxBlockingTime: SettingKey<Duration> {
        duration(
            "GEVENT_MAX_BLOCKING_TIME", type: "a time from 1ms to 1h, such as 0.1 (seconds), 100ms or 2s",
            default: "100ms",
            in: .milliseconds(1)...(.seconds(3600)),
            summary: "How long a greenlet may run without a switch before the monitor thread reports it.")
    }

    /// `GEVENT_MONITOR_MEMORY_PERIOD`: how often the monitor looks at the memory the process uses.
    public static var monitorMemoryPeriod: SettingKey<Duration> {
        duration(
            "GEVENT_MONITOR_MEMORY_PERIOD", type: "a time from 2s to 24h, such as 5 (seconds) or 5s", default: "5s",
            in: .seconds(2)...(.seconds(24 * 3600)),
            summary: "How often the monitor thread looks at the memory that the process uses.")
    }

    private static func duration(
        _ name: String, type: String, default defaultText: String, in range: ClosedRange<Duration>, summary: String
    ) -> SettingKey<Duration> {
        SettingKey(
            name, type: type, default: defaultText, summary: summary, parse: { parseDuration($0, in: range) },
            format: { "\($0 / .microseconds(1))us" })
    }
}

extension SettingKey where Value == Bool {
    /// `GEVENT_MONITOR_THREAD_ENABLE`: whether each hub gets a monitor when it is made.
    public static var monitorThreadEnable: SettingKey<Bool> {
        yesOrNo(
            "GEVENT_MONITOR_THREAD_ENABLE", default: "false",
            summary: "Whether each hub has a thread that watches for greenlets that block it.")
    }

    /// `GEVENT_MONITOR_PRINT_BLOCKING_REPORTS`: whether the monitor prints its reports.
    public static var monitorPrintBlockingReports: SettingKey<Bool> {
        yesOrNo(
            "GEVENT_MONITOR_PRINT_BLOCKING_REPORTS", default: "true",
            summary:
                "Whether reports of greenlets that block are printed to standard error; hooks are called in any case.")
    }

    /// `GEVENT_REPORT_ON_SIGUSR2`: whether SIGUSR2 prints what all greenlets do.
    public static var reportOnSIGUSR2: SettingKey<Bool> {
        yesOrNo(
            "GEVENT_REPORT_ON_SIGUSR2", default: "false",
            summary:
                "Whether the signal SIGUSR2 has each hub report its greenlets through its errorOutput, by default to "
                + "standard error.")
    }

    /// `GEVENT_TRACK_GREENLET_TREE`: whether each greenlet remembers who spawned it and where, and shares locals with
    /// its tree.
    public static var trackGreenletTree: SettingKey<Bool> {
        yesOrNo(
            "GEVENT_TRACK_GREENLET_TREE", default: "true",
            summary: "Whether each greenlet remembers who spawned it and where, and shares locals with its tree.")
    }

    /// `GEVENT_DEBUG_LOOP`: whether loops are wrapped in a ``CheckedLoop``.
    public static var debugLoop: SettingKey<Bool> {
        yesOrNo(
            "GEVENT_DEBUG_LOOP", default: "false",
            summary: "Whether each call of the event loop is checked, and logged to standard error.")
    }

    private static func yesOrNo(_ name: String, default defaultText: String, summary: String) -> SettingKey<Bool> {
        SettingKey(
            name, type: "1, true, on or yes; 0, false, off or no", default: defaultText, summary: summary,
            parse: parseYesOrNo, format: { $0 ? "true" : "false" })
    }
}

@Sendable
private func parseYesOrNo(_ text: String) -> Bool? {
    switch trimmed(text).lowercased() {
    case "1", "true", "on", "yes": true
    case "0", "false", "off", "no": false
    default: nil
    }
}

/// Bytes as people write them: 65536, 64k, 64K, 64kb, 64KiB, 1m. A kilo is 1024 in each spelling.
private func parseBytes(_ text: String, in range: ClosedRange<Int>) -> Int? {
    let text = trimmed(text).lowercased()
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let factor: Int
    switch trimmed(String(text[digits.endIndex...])) {
    case "", "b": factor = 1
    case "k", "kb", "kib": factor = 1 << 10
    case "m", "mb", "mib": factor = 1 << 20
    case "g", "gb", "gib": factor = 1 << 30
    default: return nil
    }
    guard let number = Int(digits) else { return nil }
    let (bytes, overflows) = number.multipliedReportingOverflow(by: factor)
    return !overflows && range.contains(bytes) ? bytes : nil
}

@Sendable
private func isNone(_ text: String) -> Bool { trimmed(text).lowercased() == "none" }

/// A time as people write it: 0.1 or 2 for seconds, 100ms, 0.5s, 1m.
@Sendable
private func parseDuration(_ text: String, in range: ClosedRange<Duration>) -> Duration? {
    let text = trimmed(text).lowercased()
    let digits = text.prefix { $0 == "." || ($0.isASCII && $0.isNumber) }
    let unit: Duration
    switch trimmed(String(text[digits.endIndex...])) {
    case "us": unit = .microseconds(1)
    case "ms": unit = .milliseconds(1)
    case "", "s": unit = .seconds(1)
    case "m", "min": unit = .seconds(60)
    case "h": unit = .seconds(3600)
    default: return nil
    }
    // What could not be a Duration is no time of ours either.
    guard let number = Double(digits), number.isFinite, number <= 1e9 else { return nil }
    let duration = unit * number
    return range.contains(duration) ? duration : nil
}

/// The text without white space at its ends.
func trimmed(_ text: some StringProtocol) -> String {
    guard let first = text.firstIndex(where: { !$0.isWhitespace }),
        let last = text.lastIndex(where: { !$0.isWhitespace })
    else { return "" }
    return String(text[first...last])
}
