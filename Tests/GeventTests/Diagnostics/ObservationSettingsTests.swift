import Gevent
import Testing

@Suite("Settings of the monitor and the trace")
struct ObservationSettingsTests {
    private func resolve(_ environment: [String: String]) throws -> ResolvedConfiguration {
        try Configuration(environment: environment).resolve()
    }

    @Test("By default there is no monitor and no trace")
    func defaults() throws {
        let resolved = try resolve([:])
        #expect(!resolved.monitorThreadEnable)
        #expect(resolved.maxBlockingTime == .milliseconds(100))
        #expect(resolved.monitorPrintBlockingReports)
        #expect(resolved.monitorMemoryPeriod == .seconds(5))
        #expect(resolved.monitorMemoryMax == nil)
        #expect(resolved.trace == "")
        #expect(!resolved.reportOnSIGUSR2)
    }

    @Test("Values from the environment take effect")
    func variables() throws {
        let resolved = try resolve([
            "GEVENT_MONITOR_THREAD_ENABLE": "yes", "GEVENT_MONITOR_PRINT_BLOCKING_REPORTS": "0",
            "GEVENT_TRACE": "/tmp/t-%p.json", "GEVENT_REPORT_ON_SIGUSR2": "1",
        ])
        #expect(resolved.monitorThreadEnable)
        #expect(!resolved.monitorPrintBlockingReports)
        #expect(resolved.trace == "/tmp/t-%p.json")
        #expect(resolved.reportOnSIGUSR2)
    }

    @Test(
        "Times are in seconds unless a unit is given",
        arguments: [
            ("0.1", 100), ("1", 1000), (".25", 250), ("100ms", 100), ("2s", 2000), (" 2 S ", 2000), ("1500us", 1.5),
            ("1m", 60000), ("0.5min", 30000), ("1h", 3_600_000), ("1ms", 1),
        ])
    func times(text: String, milliseconds: Double) throws {
        let duration = try resolve(["GEVENT_MAX_BLOCKING_TIME": text]).maxBlockingTime
        #expect(duration == .milliseconds(1) * milliseconds)
    }

    @Test(
        "An invalid time, or one out of range, throws",
        arguments: ["ms", "soon", "-1", "0", "0.5ms", "2h", "1e3", "1.2.3", "99999999999999999999", "5 parsecs"])
    func badTimes(text: String) throws {
        let error = try #require(throws: ConfigurationError.self) { try resolve(["GEVENT_MAX_BLOCKING_TIME": text]) }
        #expect(error.code == .invalidValue)
        #expect(
            error.message
                == "GEVENT_MAX_BLOCKING_TIME=\"\(text)\": not a value this setting takes. "
                + "It takes a time from 1ms to 1h, such as 0.1 (seconds), 100ms or 2s; the default is \"100ms\".")
    }

    @Test(
        "The timer slack is a time up to 100 ms, or 0 for none",
        arguments: [
            (nil, 500), ("", 500), ("0", 0), ("0ms", 0), ("200us", 200), ("1ms", 1000), ("0.001", 1000),
            ("100ms", 100_000),
        ] as [(String?, Int64)])
    func timerSlack(text: String?, microseconds: Int64) throws {
        let environment = text.map { ["GEVENT_TIMER_SLACK": $0] } ?? [:]
        #expect(try resolve(environment).timerSlack == .microseconds(microseconds))
    }

    @Test("An invalid or excessive slack throws", arguments: ["none", "-1ms", "101ms", "1"])
    func badTimerSlack(text: String) throws {
        let error = try #require(throws: ConfigurationError.self) { try resolve(["GEVENT_TIMER_SLACK": text]) }
        #expect(error.code == .invalidValue)
        #expect(
            error.message
                == "GEVENT_TIMER_SLACK=\"\(text)\": not a value this setting takes. It takes a time from 0 to 100ms, such "
                + "as 200us, 0.5ms or 0.001 (seconds); the default is \"500us\".")
    }

    @Test("Memory is checked every two seconds at most")
    func memoryPeriod() throws {
        #expect(try resolve(["GEVENT_MONITOR_MEMORY_PERIOD": "2"]).monitorMemoryPeriod == .seconds(2))
        #expect(throws: ConfigurationError.self) { try resolve(["GEVENT_MONITOR_MEMORY_PERIOD": "1.9"]) }
    }

    @Test(
        "The memory limit is a number of bytes or none",
        arguments: [
            ("none", nil), ("", nil), ("NONE", nil), ("0", nil), ("1000", 1000), ("500mb", 500 << 20),
            ("2GiB", 2 << 30),
            ("64 kb", 64 << 10),
        ] as [(String, Int?)])
    func memoryMax(text: String, bytes: Int?) throws {
        #expect(try resolve(["GEVENT_MONITOR_MEMORY_MAX": text]).monitorMemoryMax == bytes)
    }

    @Test("An invalid memory limit throws", arguments: ["much", "-1", "1.5gb", "9223372036854775807g"])
    func badMemoryMax(text: String) throws {
        #expect(throws: ConfigurationError.self) { try resolve(["GEVENT_MONITOR_MEMORY_MAX": text]) }
    }

    @Test("Values set in code take effect, including times and sizes")
    func inCode() throws {
        let configuration = Configuration(environment: [:])
        try configuration.set(.maxBlockingTime, to: .milliseconds(250))
        try configuration.set(.monitorMemoryPeriod, to: .seconds(10))
        try configuration.set(.monitorMemoryMax, to: 1 << 30)
        try configuration.set(.trace, to: "here.json")
        #expect(throws: ConfigurationError.self) { try configuration.set(.maxBlockingTime, to: .zero) }
        let resolved = try configuration.resolve()
        #expect(resolved.maxBlockingTime == .milliseconds(250))
        #expect(resolved.monitorMemoryPeriod == .seconds(10))
        #expect(resolved.monitorMemoryMax == 1 << 30)
        #expect(resolved.trace == "here.json")
    }
}
