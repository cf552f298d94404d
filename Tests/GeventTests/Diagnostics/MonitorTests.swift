import CGeventSystem
import Gevent
import GeventTesting
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A thread-safe list of the monitor's reports.
final class Reports<Element: Sendable>: Sendable {
    private let list = ForkableMutex<[Element]>([])
    var all: [Element] { list.withLock { $0 } }
    var count: Int { list.withLock { $0.count } }
    func note(_ element: Element) { list.withLock { $0.append(element) } }
}

private let longest = Duration.seconds(30)

private func realTime() -> Duration { .nanoseconds(gevent_monotonic_time()) }

/// Keeps its thread busy, without calls, until `isOver`.
@inline(never)
private func spinCPU(until isOver: () -> Bool) {
    let start = realTime()
    while !isOver(), realTime() - start < longest {}
}

/// Keeps its thread waiting in libc until `isOver`.
@inline(never)
private func blockInLibc(until isOver: () -> Bool) {
    let start = realTime()
    while !isOver(), realTime() - start < longest { Glibc.usleep(250_000) }
}

/// Blocks its thread in one call that a signal would interrupt, and returns the duration.
@inline(never)
private func blockOnce(in call: String) -> Duration {
    let start = realTime()
    switch call {
    case "usleep": Glibc.usleep(300_000)
    case "nanosleep":
        var time = timespec(tv_sec: 0, tv_nsec: 300_000_000)
        Glibc.nanosleep(&time, nil)
    case "poll": Glibc.poll(nil, 0, 300)
    default:
        var time = timeval(tv_sec: 0, tv_usec: 300_000)
        Glibc.select(0, nil, nil, nil, &time)
    }
    return realTime() - start
}

/// The callback for libc.
private final class Condition {
    let isOver: () -> Bool
    init(_ isOver: @escaping () -> Bool) { self.isOver = isOver }
}

/// Keeps its thread busy in a callback from libc, until `isOver`.
@inline(never)
private func searchInLibc(until isOver: @escaping () -> Bool) {
    let condition = Condition(isOver)
    withExtendedLifetime(condition) {
        // libc passes the search key to the function.
        _ = bsearch(Unmanaged.passUnretained(condition).toOpaque(), [1], 1, MemoryLayout<Int>.stride) { key, _ in
            spinCPU(until: Unmanaged<Condition>.fromOpaque(key!).takeUnretainedValue().isOver)
            return 0
        }
    }
}

/// The first report that shows `function`. One report may not: frame records are incomplete while a function is in its
/// first or last instructions.
private func firstReport(of function: String, in reports: Reports<BlockingReport>) -> BlockingReport? {
    reports.all.first { isSanitized || $0.backtrace.contains { $0.contains(function) } }
}

/// A hub with a monitor that reports anything longer than `limit`, without printing it.
private func withMonitor(
    limit: Duration = .milliseconds(20), on loop: TestLoop = .configured,
    _ body: @escaping @Sendable (Hub, Monitor, Reports<BlockingReport>) throws -> Void
) throws {
    try withHub(on: loop) { hub in
        let monitor = try hub.startMonitor()
        monitor.maxBlockingTime = limit
        monitor.printsBlockingReports = false
        let reports = Reports<BlockingReport>()
        monitor.onBlocking { reports.note($0) }
        try body(hub, monitor, reports)
    }
}

@Suite("Monitor")
struct MonitorTests {
    // MARK: Blocking

    @Test("A greenlet that runs for too long is reported with its name and backtrace", arguments: bothLoops)
    func spinning(on loop: TestLoop) throws {
        try withMonitor(on: loop) { hub, _, reports in
            let greenlet = spawn { spinCPU { firstReport(of: "spinCPU", in: reports) != nil } }
            // Terminal control characters are not printed.
            greenlet.name = "the\nbusy\u{1B} one"
            try greenlet.join()
            let report = try #require(firstReport(of: "spinCPU", in: reports))
            #expect(report.culprit == .greenlet)
            #expect(report.greenlet == "<Greenlet<()> \"the busy\u{FFFD} one\">")
            #expect(report.duration >= .milliseconds(20))
            if !isSanitized {
                #expect(report.backtrace.contains { $0.contains("closure") && $0.contains("spinning") })
                #expect(!report.backtrace.contains { $0.contains("greenlet_entry") })
            }
            #expect(report.description.hasPrefix("<Greenlet<()> \"the busy\u{FFFD} one\"> has run for "))
            #expect(report.description.contains("s without a switch; all others wait for it\n    at "))
        }
    }

    @Test("A greenlet that blocks in the C library is reported with its caller")
    func blocking() throws {
        try withMonitor { _, _, reports in
            let greenlet = spawn { blockInLibc { firstReport(of: "blockInLibc", in: reports) != nil } }
            try greenlet.join()
            let report = try #require(firstReport(of: "blockInLibc", in: reports))
            // An unnamed greenlet appears with its description.
            #expect(report.greenlet == greenlet.description)
            if !isSanitized {
                #expect(report.backtrace.contains { $0.contains("closure") && $0.contains("blocking") }, "\(report)")
            }
        }
    }

    @Test(
        "A call that blocks the thread is not cut short, and the report names its caller",
        arguments: ["usleep", "nanosleep", "poll", "select"])
    func undisturbed(call: String) throws {
        try withMonitor(limit: .milliseconds(10)) { _, _, reports in
            // On a busy machine a report may take longer than the call.
            let start = realTime()
            repeat {
                let duration = try spawn { blockOnce(in: call) }.get()
                #expect(duration >= .milliseconds(300))
            } while firstReport(of: "blockOnce", in: reports) == nil && realTime() - start < longest
            let report = try #require(firstReport(of: "blockOnce", in: reports))
            if !isSanitized {
                #expect(report.backtrace.contains { $0.contains("closure") && $0.contains("undisturbed") }, "\(report)")
                #expect(report.backtrace.contains { $0.contains(call == "usleep" ? "nanosleep" : call) }, "\(report)")
            }
        }
    }

    @Test("The caller of the C library is reported when libc calls back, with or without frame records in libc")
    func callingBack() throws {
        @Sendable func showsCallers(_ report: BlockingReport) -> Bool {
            let outer = report.backtrace.drop { !$0.contains("bsearch") }
            return outer.contains { $0.contains("searchInLibc") } && outer.contains { $0.contains("callingBack") }
        }
        try withMonitor { _, _, reports in
            try spawn { searchInLibc { reports.all.contains { isSanitized || showsCallers($0) } } }.join()
            #expect(reports.all.contains { isSanitized || showsCallers($0) }, "\(reports.all.first?.description ?? "")")
        }
    }

    @Test("A blocked greenlet is reported once in each period")
    func again() throws {
        try withMonitor { _, _, reports in
            try spawn { spinCPU { reports.count >= 3 } }.join()
            let durations = reports.all.prefix(3).map(\.duration)
            #expect(durations.count == 3)
            // Each report is at least one period later than the one before.
            for (earlier, later) in zip(durations, durations.dropFirst()) {
                #expect(later - earlier >= .milliseconds(20))
            }
        }
    }

    @Test("Main is reported as main, and a callback of the hub as the hub")
    func mainAndHub() throws {
        try withMonitor { hub, monitor, reports in
            spinCPU { firstReport(of: "spinCPU", in: reports) != nil }
            let first = try #require(firstReport(of: "spinCPU", in: reports))
            #expect(first.culprit == .main)
            #expect(first.greenlet == "<MainGreenlet>")
            #expect(first.description.hasPrefix("the main greenlet, <MainGreenlet>, has run for"))
            let ofHub = Reports<BlockingReport>()
            monitor.onBlocking { if $0.culprit == .hub { ofHub.note($0) } }
            hub.runCallback { spinCPU { firstReport(of: "spinCPU", in: ofHub) != nil } }
            try sleep(for: .milliseconds(1))
            let last = try #require(firstReport(of: "spinCPU", in: ofHub))
            #expect(last.description.hasPrefix("a callback of the hub, <HubGreenlet>, has run for"))
        }
    }

    @Test("A hub that sleeps in a poll is never reported")
    func asleep() throws {
        try withMonitor(limit: .milliseconds(100)) { hub, monitor, reports in
            let sleeper = spawn { try sleep(for: .seconds(60)) }
            let waking = Smuggled(sleeper)
            let looks = Counter()
            let handle = monitor.handle
            try monitor.addFunction(period: .milliseconds(100)) { _ in
                // Enough checks to be sure that one of them fell into the poll.
                guard looks.add() == 5 else { return }
                handle.post {
                    do { try kill(waking.value) } catch { Issue.record(error) }
                }
            }
            try sleeper.join()
            #expect(looks.count >= 5)
            #expect(reports.count == 0)
        }
    }

    @Test("Greenlets that switch are never reported")
    func switching() throws {
        try withMonitor(limit: .milliseconds(100)) { _, monitor, reports in
            let looks = Counter()
            try monitor.addFunction(period: .milliseconds(100)) { _ in looks.add() }
            let greenlets = (0..<2).map { _ in
                spawn { while looks.count < 5 { try sleep() } }
            }
            try joinAll(greenlets, throwingErrors: true)
            #expect(reports.count == 0)
        }
    }

    @Test("Reports are printed unless printing is disabled; hooks are called in both cases")
    func printing() async throws {
        let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
            setenv("GEVENT_MONITOR_THREAD_ENABLE", "1", 1)
            setenv("GEVENT_MAX_BLOCKING_TIME", "20ms", 1)
            try withHub(on: .configured) { hub in
                let monitor = try #require(hub.monitor)
                #expect(monitor.maxBlockingTime == .milliseconds(20))
                let reports = Reports<BlockingReport>()
                monitor.onBlocking { reports.note($0) }
                let loud = spawn { spinCPU { firstReport(of: "spinCPU", in: reports) != nil } }
                loud.name = "loud"
                try loud.join()
                monitor.printsBlockingReports = false
                let before = reports.count
                let quiet = spawn { spinCPU { reports.count > before + 1 } }
                quiet.name = "quiet"
                try quiet.join()
                #expect(reports.all.contains { $0.greenlet.contains("quiet") })
            }
        }
        let printed = text(result.standardErrorContent)
        #expect(printed.contains("gevent: <Greenlet<()> \"loud\"> has run for"))
        // With sanitizers the first report suffices, whatever it names.
        #expect(isSanitized || printed.contains("spinCPU"))
        #expect(!printed.contains("quiet"))
    }

    @Test("The program's own handler of the signal is called for the program's signals only")
    func chained() async throws {
        await #expect(processExitsWith: .success) {
            signal(SIGURG) { _ in calls.add() }
            try withMonitor { _, monitor, reports in
                try spawn { spinCPU { reports.count > 0 } }.join()
                #expect(calls.count == 0)
                raise(SIGURG)
                #expect(calls.count == 1)
                // A handler installed later takes over the signal, and the report lacks the backtrace. The test takes
                // no sample meanwhile: one in flight would reach the later handler, and ThreadSanitizer delays signals.
                monitor.maxBlockingTime = longest
                try sleep(for: .milliseconds(50))
                signal(SIGURG) { _ in calls.add() }
                monitor.maxBlockingTime = .milliseconds(20)
                let before = reports.count
                let greenlet = spawn { spinCPU { reports.count > before + 1 } }
                greenlet.name = "unseen"
                try greenlet.join()
                let report = try #require(reports.all.last)
                #expect(report.greenlet == "<greenlet \"unseen\">")
                #expect(report.backtrace.isEmpty)
                #expect(calls.count == 1)
            }
        }
    }

    // MARK: Life

    @Test("A hub has at most one monitor, which ends with the hub or before")
    func life() throws {
        let before = threadCount()
        try withHub { hub in
            #expect(hub.monitor == nil)
            let monitor = try hub.startMonitor()
            #expect(try hub.startMonitor() === monitor)
            #expect(hub.monitor === monitor)
            #expect(becomes(before + 2))
            hub.stopMonitor()
            hub.stopMonitor()
            #expect(hub.monitor == nil)
            #expect(becomes(before + 1))
            #expect(try hub.startMonitor() !== monitor)
            #expect(becomes(before + 2))
        }
        #expect(becomes(before))
    }

    @Test("A destroyed hub has no monitor, and another thread cannot start one")
    func misuse() throws {
        try withHub { hub in
            let smuggled = Smuggled(hub)
            let codes = Reports<HubError.Code?>()
            TestThread { codes.note(hubErrorCode { try smuggled.value.startMonitor() }) }.join()
            #expect(codes.all == [.wrongThread])
        }
    }

    @Test("A monitor that outlives its hub does nothing, and releases its functions")
    func outlived() throws {
        let released = Counter()
        let kept = Mutex<Monitor?>(nil)
        try withHub { hub in
            let monitor = try hub.startMonitor()
            let witness = Smuggled(Witness { released.add() })
            try monitor.addFunction(period: .seconds(1)) { _ in _ = witness }
            monitor.onBlocking { _ in _ = witness }
            monitor.onMemory { _ in _ = witness }
            kept.withLock { $0 = monitor }
        }
        #expect(released.count == 1)
        let monitor = try #require(kept.withLock { $0 })
        monitor.maxBlockingTime = .seconds(1)
        #expect(monitor.maxBlockingTime == .seconds(1))
        #expect(!monitor.handle.post {})
    }

    @Test("A forked child can start its own monitor", .enabled(if: !isSanitized))
    func forked() async throws {
        await #expect(processExitsWith: .success) {
            try withMonitor { hub, monitor, reports in
                try spawn { spinCPU { reports.count > 0 } }.join()
                let child = plainFork()
                if child == 0 {
                    alarm(60)
                    for service in hub.services { service.hubDidFork() }
                    let ofChild = Reports<BlockingReport>()
                    monitor.onBlocking { ofChild.note($0) }
                    spinCPU { firstReport(of: "spinCPU", in: ofChild) != nil }
                    let isSeen = firstReport(of: "spinCPU", in: ofChild) != nil
                    hub.stopMonitor()
                    _exit(isSeen && hub.monitor == nil ? 0 : 1)
                }
                var status: CInt = 0
                #expect(Glibc.waitpid(child, &status, 0) == child)
                #expect(status == 0)
            }
        }
    }

    /// A server that forks its workers at the start does this. Each attempt is a separate process, because the Swift
    /// runtime does some things only once, under its locks.
    @Test("A child forked right after the hub was made continues, with its monitor", .enabled(if: !isSanitized))
    func forkedAtStart() async {
        await #expect(processExitsWith: .success) {
            setenv("GEVENT_MONITOR_THREAD_ENABLE", "1", 1)
            let code: CInt = try onFreshThread {
                for _ in 0..<25 {
                    let code = try inRawChild {
                        let hub = try Hub.start()
                        let code = try inRawChild {
                            let greenlets = (1...3).map { number in spawn { "\(number) \(AnyGreenlet.current)" } }
                            guard try greenlets.map({ try $0.get() }).count == 3 else { return 1 }
                            try sleep(for: .milliseconds(1))
                            guard let monitor = hub.monitor else { return 2 }
                            let calls = Counter()
                            try monitor.addFunction(period: .milliseconds(1)) { _ in calls.add() }
                            while calls.count < 2 { try sleep(for: .milliseconds(1)) }
                            hub.stopMonitor()
                            return 0
                        }
                        // 90: the alarm ended the child.
                        return code ?? 90
                    }
                    if code != 0 { return code ?? 91 }
                }
                return 0
            }
            exit(code)
        }
    }

    @Test("A fork waits for a report in progress, so the child can make its own", .enabled(if: !isSanitized))
    func forkedDuringReports() async {
        await #expect(processExitsWith: .success) {
            try withMonitor(limit: .milliseconds(1)) { hub, _, reports in
                let parked = spawn { try sleep(for: .seconds(60)) }
                try sleep()
                for _ in 0..<20 {
                    // Making a report takes longer than that, so the next one is in progress.
                    let before = reports.count
                    spinCPU { reports.count > before }
                    let code = try inChild {
                        guard dumpGreenlets().contains("forkedDuringReports") else { return 1 }
                        let before = reports.count
                        spinCPU { reports.count > before }
                        hub.stopMonitor()
                        return 0
                    }
                    if code != 0 { exit(code ?? 99) }
                }
                try parked.kill()
            }
            exit(0)
        }
    }

    @Test("A fork waits for a function of the monitor, and the function itself may fork", .enabled(if: !isSanitized))
    func forkedDuringFunctions() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let monitor = try hub.startMonitor()
                let (begun, ended, children) = (Counter(), Counter(), Counter())
                try monitor.addFunction(period: .milliseconds(1)) { _ in
                    begun.add()
                    Glibc.usleep(10_000)
                    ended.add()
                }
                for _ in 0..<5 {
                    let before = begun.count
                    while begun.count == before { try sleep(for: .milliseconds(1)) }
                    // The child's copies show whether the fork happened during a call.
                    let code = try inRawChild { begun.count == ended.count ? 0 : 1 }
                    if code != 0 { exit(code ?? 90) }
                }
                try monitor.addFunction(period: .milliseconds(1)) { _ in
                    let child = plainFork()
                    if child == 0 { _exit(7) }
                    var status: CInt = 0
                    if Glibc.waitpid(child, &status, 0) == child, status == 7 << 8 { children.add() }
                }
                let start = realTime()
                while children.count < 3, realTime() - start < longest { try sleep(for: .milliseconds(1)) }
                if children.count < 3 { exit(91) }
            }
            exit(0)
        }
    }

    @Test("A monitor started in a child before its hub is repaired has one thread", .enabled(if: !isSanitized))
    func begunInChild() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let code = try inRawChild {
                    try hub.startMonitor()
                    // The loop is repaired in this poll at the latest.
                    try sleep(for: .milliseconds(1))
                    guard threadCount() == 2 else { return 1 }
                    hub.stopMonitor()
                    return becomes(1) ? 0 : 2
                }
                exit(code ?? 99)
            }
        }
    }

    // MARK: Functions

    @Test("A function is called once per period, on the monitor's thread, until it is cancelled")
    func functions() throws {
        try withHub(on: .configured) { hub in
            let monitor = try hub.startMonitor()
            let calls = Reports<UInt>()
            let start = realTime()
            let function = try monitor.addFunction(period: .milliseconds(5)) { given in
                #expect(given === monitor)
                calls.note(UInt(pthread_self()))
            }
            while calls.count < 3, realTime() - start < longest { try sleep(for: .milliseconds(1)) }
            #expect(realTime() - start >= .milliseconds(15))
            #expect(Set(calls.all).count == 1)
            #expect(!calls.all.contains(UInt(pthread_self())))
            #expect(function.isActive)
            function.cancel()
            function.cancel()
            #expect(!function.isActive)
            // No call of the first function is in progress: the second, which is due later, has run.
            let later = Counter()
            try monitor.addFunction(period: .milliseconds(5)) { _ in later.add() }
            while later.count < 2 { try sleep(for: .milliseconds(1)) }
            let before = calls.count
            while later.count < 8 { try sleep(for: .milliseconds(1)) }
            #expect(calls.count == before)
        }
    }

    @Test("A period of zero or less throws", arguments: [Duration.zero, .seconds(-1)])
    func badPeriods(period: Duration) throws {
        try withHub { hub in
            let monitor = try hub.startMonitor()
            let error = #expect(throws: MonitorError.self) { try monitor.addFunction(period: period) { _ in } }
            #expect(error?.code == .badPeriod)
            #expect(throws: MonitorError.self) { try monitor.watchMemory(limit: 1, every: period) }
        }
        #expect(
            MonitorError.notPositive(.seconds(-1)).description
                == "badPeriod: -1 s is no period for a monitor; it takes more than zero")
    }

    @Test("A cancelled hook is not called, and others are")
    func cancelledHooks() throws {
        try withMonitor { _, monitor, reports in
            let others = Reports<BlockingReport>()
            let hook = monitor.onBlocking { others.note($0) }
            hook.cancel()
            hook.cancel()
            try spawn { spinCPU { reports.count > 0 } }.join()
            #expect(others.count == 0)
        }
    }

    // MARK: Memory

    @Test("Memory: one event when the limit is exceeded, further events only on growth, one when it is back under")
    func memoryEvents() {
        var watch = MemoryWatch(limit: 100)
        let events = [50, 100, 101, 101, 90 + 15, 103, 104, 100, 100, 200].map { watch.judge($0) }
        #expect(
            events == [
                nil, nil, .exceeded(usage: 101, limit: 100), nil, .exceeded(usage: 105, limit: 100), nil,
                .exceeded(usage: 104, limit: 100), .recovered(usage: 100, limit: 100, previous: 104), nil,
                .exceeded(usage: 200, limit: 100),
            ])
    }

    @Test("The monitor reads the memory and notifies the hooks")
    func memoryHooks() throws {
        try withHub(on: .configured) { hub in
            let monitor = try hub.startMonitor()
            let events = Reports<MemoryEvent>()
            monitor.onMemory { events.note($0) }
            let readings = Counter()
            // Unknown, within, above, unchanged, back under.
            let script: [Int?] = [nil, 10, 30, 30, 20]
            try monitor.watchMemory(limit: 20, every: .milliseconds(2)) {
                let number = readings.add() - 1
                return number < script.count ? script[number] : 20
            }
            while readings.count < 8 { try sleep(for: .milliseconds(1)) }
            try monitor.watchMemory(limit: nil)
            #expect(
                events.all == [
                    .exceeded(usage: 30, limit: 20), .recovered(usage: 20, limit: 20, previous: 30),
                ])
            // The kernel's figure is plausible, and any process uses more than a byte.
            try monitor.watchMemory(limit: 1, every: .milliseconds(2))
            while events.count < 3 { try sleep(for: .milliseconds(1)) }
            guard case .exceeded(let usage, limit: 1) = events.all[2] else {
                Issue.record("\(events.all[2])")
                return
            }
            #expect(usage > 1 << 20)
        }
    }
}

/// Counts the test's own signals.
private let calls = Counter()

/// Whether that many threads exist: a joined thread may still be listed for a moment.
private func becomes(_ count: Int) -> Bool {
    for _ in 0..<10_000 {
        if threadCount() == count { return true }
        Glibc.usleep(1000)
    }
    return false
}

/// The number of threads of this process.
private func threadCount() -> Int {
    guard let directory = opendir("/proc/self/task") else { return -1 }
    defer { closedir(directory) }
    var count = 0
    while let entry = readdir(directory) {
        if entry.pointee.d_name.0 != CChar(UInt8(ascii: ".")) { count += 1 }
    }
    return count
}
