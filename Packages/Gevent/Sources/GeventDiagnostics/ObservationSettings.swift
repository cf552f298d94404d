// The settings of the monitor and the trace.

public import GeventCore

extension SettingKey where Value == Bool {
    /// `GEVENT_MONITOR_THREAD_ENABLE`: whether each new hub starts a monitor.
    public static var monitorThreadEnable: SettingKey<Bool> {
        SettingKey(
            "GEVENT_MONITOR_THREAD_ENABLE", default: "false",
            summary: "Whether each hub has a monitor thread that watches for greenlets that block it.")
    }

    /// `GEVENT_MONITOR_PRINT_BLOCKING_REPORTS`: whether the monitor prints its reports.
    public static var monitorPrintBlockingReports: SettingKey<Bool> {
        SettingKey(
            "GEVENT_MONITOR_PRINT_BLOCKING_REPORTS", default: "true",
            summary:
                "Whether reports of greenlets that block are printed to standard error; hooks are called in any case.")
    }
}

extension SettingKey where Value == Duration {
    /// `GEVENT_MAX_BLOCKING_TIME`: how long a greenlet may run without a switch before the monitor reports it.
    public static var maxBlockingTime: SettingKey<Duration> {
        SettingKey(
            "GEVENT_MAX_BLOCKING_TIME", type: "a time from 1ms to 1h, such as 0.1 (seconds), 100ms or 2s",
            default: "100ms", in: .milliseconds(1)...(.seconds(3600)),
            summary: "How long a greenlet may run without a switch before the monitor thread reports it.")
    }

    /// `GEVENT_MONITOR_MEMORY_PERIOD`: how often the monitor checks the memory usage of the process.
    public static var monitorMemoryPeriod: SettingKey<Duration> {
        SettingKey(
            "GEVENT_MONITOR_MEMORY_PERIOD", type: "a time from 2s to 24h, such as 5 (seconds) or 5s", default: "5s",
            in: .seconds(2)...(.seconds(24 * 3600)),
            summary: "How often the monitor thread checks the memory usage of the process.")
    }
}

extension SettingKey where Value == Int {
    /// `GEVENT_MONITOR_MEMORY_MAX`: the resident memory in bytes above which the monitor reports; 0 for no limit.
    public static var monitorMemoryMax: SettingKey<Int> {
        SettingKey(
            "GEVENT_MONITOR_MEMORY_MAX", type: "bytes, such as 500mb or 2GiB, or none", default: "none",
            bytes: 0...Int.max, zero: "none", summary: "The resident memory above which the monitor thread reports it.")
    }
}

extension SettingKey where Value == String {
    /// `GEVENT_TRACE`: the file that a trace of every hub is written to.
    public static var trace: SettingKey<String> {
        // Whether the file can be written is known only when it is opened.
        SettingKey(
            "GEVENT_TRACE", type: "the name of a file, in which %p stands for the process's number",
            summary: "Where to write what each greenlet does and when, for ui.perfetto.dev or chrome://tracing; "
                + "empty for nowhere. A link or another user's file is refused.")
    }
}

extension ResolvedConfiguration {
    /// Whether each hub has a monitor thread that watches for greenlets that block it.
    public var monitorThreadEnable: Bool { self[.monitorThreadEnable] }

    /// How long a greenlet may run without a switch before the monitor thread reports it.
    public var maxBlockingTime: Duration { self[.maxBlockingTime] }

    /// Whether the monitor's reports of greenlets that block are printed.
    public var monitorPrintBlockingReports: Bool { self[.monitorPrintBlockingReports] }

    /// How often the monitor thread checks the memory usage of the process.
    public var monitorMemoryPeriod: Duration { self[.monitorMemoryPeriod] }

    /// The resident memory in bytes above which the monitor thread reports it; nil for no limit.
    public var monitorMemoryMax: Int? { self[.monitorMemoryMax] == 0 ? nil : self[.monitorMemoryMax] }

    /// The file that a trace of every hub is written to; empty for none.
    public var trace: String { self[.trace] }
}
