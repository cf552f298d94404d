import Gevent
import GeventTesting
import Glibc
import Synchronization
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// What a monitor said, for any thread.
final class Reports<Element: Sendable>: Sendable {
    private let list = ForkableMutex<[Element]>([])
    var all: [Element] { list.withLock { $0 } }
    var count: Int { list.withLock { $0.count } }
    func note(_ element: Element) { list.withLock { $0.append(element) } }
}

private let longest = Duration.seconds(30)

private func realTime() -> Duration { .nanoseconds(monotonicTime()) }

/// Keeps its thread busy, without a call, until `isOver`.
@inline(never)
private func burnTheProcessor(until isOver: () -> Bool) {
    let start = realTime()
    while !isOver(), realTime() - start < longest {}
}

/// Keeps its thread waiting in libc until `isOver`.
@inline(never)
private func blockInLibc(until isOver: () -> Bool) {
    let start = realTime()
    while !isOver(), realTime() - start < longest { usleep(250_000) }
}

/// Blocks its thread in one call that a signal would cut short, and returns for how long.
@inline(never)
private func blockOnce(in call: String) -> Duration {
    let start = realTime()
    switch call {
    case "usleep": usleep(300_000)
    case "nanosleep":
        var time = timespec(tv_sec: 0, tv_nsec: 300_000_000)
        nanosleep(&time, nil)
    case "poll": poll(nil, 0, 300)
    default:
        var time = timeval(tv_sec: 0, tv_usec: 300_000)
        select(0, nil, nil, nil, &time)
    }
    return realTime() - start
}

/// What libc is to call back with.
private final class Condition {
    let isOver: () -> Bool
    init(_ isOver: @escaping () -> Bool) { self.isOver = isOver }
}

/// Keeps its thread busy in what libc calls back, until `isOver`.
@inline(never)
private func searchInLibc(until isOver: @escaping () -> Bool) {
    let condition = Condition(isOver)
    withExtendedLifetime(condition) {
        // The function is called with what is searched for.
        _ = bsearch(Unmanaged.passUnretained(condition).toOpaque(), [1], 1, MemoryLayout<Int>.stride) { key, _ in
            burnTheProcessor(until: Unmanaged<Condition>.fromOpaque(key!).takeUnretainedValue().isOver)
            return 0
        }
    }
}

/// The first report that shows `function`. Where a function is interrupted in its first or last instructions, frame
/// records do not tell everything, so one report may not.
private func firstReport(of function: String, in reports: Reports<BlockingReport>) -> BlockingReport? {
    reports.all.first { isSanitized || $0.backtrace.contains { $0.contains(function) } }
}

/// A hub with a monitor that reports, and does not print, what takes longer than `limit`.
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

    /// Fact 135.
    @Test("A greenlet that runs for too long is reported with its name and its own backtrace", arguments: bothLoops)
    func spinning(on loop: TestLoop) throws {
        try withMonitor(on: loop) { hub, _, reports in
            let greenlet = spawn { burnTheProcessor { firstReport(of: "burnTheProcessor", in: reports) != nil } }
            // What a terminal would obey is not printed.
            greenlet.name = "the\nbusy\u{1B} one"
            try greenlet.join()
            let report = try #require(firstReport(of: "burnTheProcessor", in: reports))
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

    /// Fact 135.
    @Test("A greenlet that blocks in the C library is reported with the caller of it")
    func blocking() throws {
        try withMonitor { _, _, reports in
            let greenlet = spawn { blockInLibc { firstReport(of: "blockInLibc", in: reports) != nil } }
            try greenlet.join()
            let report = try #require(firstReport(of: "blockInLibc", in: reports))
            // Without a name it is called as its description calls it.
            #expect(report.greenlet == greenlet.description)
            if !isSanitized {
                #expect(report.backtrace.contains { $0.contains("closure") && $0.contains("blocking") }, "\(report)")
            }
        }
    }

    @Test(
        "A call that blocks the thread takes its whole time, and the report names its caller",
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

    /// Fact 135.
    @Test("Who calls the C library is reported when that calls back, whether or not libc keeps frame records")
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

    /// Fact 135.
    @Test("It is reported once in each period while it lasts")
    func again() throws {
        try withMonitor { _, _, reports in
            try spawn { burnTheProcessor { reports.count >= 3 } }.join()
            let durations = reports.all.prefix(3).map(\.duration)
            #expect(durations.count == 3)
            // Each is later than the one before by a period at least.
            for (earlier, later) in zip(durations, durations.dropFirst()) {
                #expect(later - earlier >= .milliseconds(20))
            }
        }
    }

    @Test("Main is reported as main, and a callback of the hub as the hub")
    func mainAndHub() throws {
        try withMonitor { hub, monitor, reports in
            burnTheProcessor { firstReport(of: "burnTheProcessor", in: reports) != nil }
            let first = try #require(firstReport(of: "burnTheProcessor", in: reports))
            #expect(first.culprit == .main)
            #expect(first.greenlet == "<MainGreenlet>")
            #expect(first.description.hasPrefix("the main greenlet, <MainGreenlet>, has run for"))
            let ofHub = Reports<BlockingReport>()
            monitor.onBlocking { if $0.culprit == .hub { ofHub.note($0) } }
            hub.runCallback { burnTheProcessor { firstReport(of: "burnTheProcessor", in: ofHub) != nil } }
            try sleep(for: .milliseconds(1))
            let last = try #require(firstReport(of: "burnTheProcessor", in: ofHub))
            #expect(last.description.hasPrefix("a callback of the hub, <HubGreenlet>, has run for"))
        }
    }

    /// Fact 135.
    @Test("A hub that sleeps in a poll is not reported, however long")
    func asleep() throws {
        try withMonitor(limit: .milliseconds(100)) { hub, monitor, reports in
            let sleeper = spawn { try sleep(for: .seconds(60)) }
            let waking = Smuggled(sleeper)
            let looks = Counter()
            let handle = monitor.handle
            try monitor.addFunction(period: .milliseconds(100)) { _ in
                // As many looks as it takes to be sure that it looked during the poll.
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

    @Test("Greenlets that switch are not reported, however long they go on")
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

    @Test("Reports are printed unless that is turned off; hooks are called either way")
    func printing() async throws {
        let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
            setenv("GEVENT_MONITOR_THREAD_ENABLE", "1", 1)
            setenv("GEVENT_MAX_BLOCKING_TIME", "20ms", 1)
            try withHub(on: .configured) { hub in
                let monitor = try #require(hub.monitor)
                #expect(monitor.maxBlockingTime == .milliseconds(20))
                let reports = Reports<BlockingReport>()
                monitor.onBlocking { reports.note($0) }
                let loud = spawn { burnTheProcessor { firstReport(of: "burnTheProcessor", in: reports) != nil } }
                loud.name = "loud"
                try loud.join()
                monitor.printsBlockingReports = false
                let before = reports.count
                let quiet = spawn { burnTheProcessor { reports.count > before + 1 } }
                quiet.name = "quiet"
                try quiet.join()
                #expect(reports.all.contains { $0.greenlet.contains("quiet") })
            }
        }
        let printed = text(result.standardErrorContent)
        #expect(printed.contains("gevent: <Greenlet<()> \"loud\"> has run for"))
        // With sanitizers the first report will do, whatever it names.
        #expect(isSanitized || printed.contains("burnTheProcessor"))
        #expect(!printed.contains("quiet"))
    }

    @Test("A handler that the program installed for the signal is called for its own signals, and only for them")
    func chained() async throws {
        await #expect(processExitsWith: .success) {
            signal(SIGURG) { _ in calls.add() }
            try withMonitor { _, monitor, reports in
                try spawn { burnTheProcessor { reports.count > 0 } }.join()
                #expect(calls.count == 0)
                raise(SIGURG)
                #expect(calls.count == 1)
                // One that comes later takes the signal over; the report lacks the backtrace. Nothing is asked for
                // meanwhile: a sample on its way would be the later one's, and ThreadSanitizer holds signals back.
                monitor.maxBlockingTime = longest
                try sleep(for: .milliseconds(50))
                signal(SIGURG) { _ in calls.add() }
                monitor.maxBlockingTime = .milliseconds(20)
                let before = reports.count
                let greenlet = spawn { burnTheProcessor { reports.count > before + 1 } }
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

    @Test("There is one monitor for each hub, and it ends with it or before")
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

    @Test("A hub that is gone has no monitor, and a foreign thread starts none")
    func misuse() throws {
        try withHub { hub in
            let smuggled = Smuggled(hub)
            let codes = Reports<HubError.Code?>()
            TestThread { codes.note(hubErrorCode { try smuggled.value.startMonitor() }) }.join()
            #expect(codes.all == [.wrongThread])
        }
    }

    @Test("A monitor that outlives its hub does nothing, and lets go of what it was given")
    func outlived() throws {
        let gone = Counter()
        let kept = Mutex<Monitor?>(nil)
        try withHub { hub in
            let monitor = try hub.startMonitor()
            let witness = Smuggled(Witness { gone.add() })
            try monitor.addFunction(period: .seconds(1)) { _ in _ = witness }
            monitor.onBlocking { _ in _ = witness }
            monitor.onMemory { _ in _ = witness }
            kept.withLock { $0 = monitor }
        }
        #expect(gone.count == 1)
        let monitor = try #require(kept.withLock { $0 })
        monitor.maxBlockingTime = .seconds(1)
        #expect(monitor.maxBlockingTime == .seconds(1))
        #expect(!monitor.handle.post {})
    }

    @Test("A forked child has a monitor of its own", .enabled(if: !isSanitized))
    func forked() async throws {
        await #expect(processExitsWith: .success) {
            try withMonitor { hub, monitor, reports in
                try spawn { burnTheProcessor { reports.count > 0 } }.join()
                let child = plainFork()
                if child == 0 {
                    alarm(60)
                    for service in hub.services { service.hubDidFork() }
                    let ofChild = Reports<BlockingReport>()
                    monitor.onBlocking { ofChild.note($0) }
                    burnTheProcessor { firstReport(of: "burnTheProcessor", in: ofChild) != nil }
                    let isSeen = firstReport(of: "burnTheProcessor", in: ofChild) != nil
                    hub.stopMonitor()
                    _exit(isSeen && hub.monitor == nil ? 0 : 1)
                }
                var status: CInt = 0
                #expect(waitpid(child, &status, 0) == child)
                #expect(status == 0)
            }
        }
    }

    /// A server that forks its workers first thing does this. Each try is a process of its own: what the Swift runtime
    /// does only once, it does there under its locks.
    @Test("A child that is forked right after the hub was made goes on, with its monitor", .enabled(if: !isSanitized))
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
                        // 90: the alarm ended it.
                        return code ?? 90
                    }
                    if code != 0 { return code ?? 91 }
                }
                return 0
            }
            exit(code)
        }
    }

    @Test("A fork waits for a report that is being made: the child can make its own", .enabled(if: !isSanitized))
    func forkedDuringReports() async {
        await #expect(processExitsWith: .success) {
            try withMonitor(limit: .milliseconds(1)) { hub, _, reports in
                let parked = spawn { try sleep(for: .seconds(60)) }
                try sleep()
                for _ in 0..<20 {
                    // Making one takes longer than that, so the next is on its way.
                    let before = reports.count
                    burnTheProcessor { reports.count > before }
                    let code = try inChild {
                        guard dumpGreenlets().contains("forkedDuringReports") else { return 1 }
                        let before = reports.count
                        burnTheProcessor { reports.count > before }
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

    @Test("A fork waits for a function of the monitor, and such a function may fork", .enabled(if: !isSanitized))
    func forkedDuringFunctions() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let monitor = try hub.startMonitor()
                let (begun, ended, children) = (Counter(), Counter(), Counter())
                try monitor.addFunction(period: .milliseconds(1)) { _ in
                    begun.add()
                    usleep(10_000)
                    ended.add()
                }
                for _ in 0..<5 {
                    let before = begun.count
                    while begun.count == before { try sleep(for: .milliseconds(1)) }
                    // As the child has them, they tell whether it was forked in the middle of a call.
                    let code = try inRawChild { begun.count == ended.count ? 0 : 1 }
                    if code != 0 { exit(code ?? 90) }
                }
                try monitor.addFunction(period: .milliseconds(1)) { _ in
                    let child = plainFork()
                    if child == 0 { _exit(7) }
                    var status: CInt = 0
                    if waitpid(child, &status, 0) == child, status == 7 << 8 { children.add() }
                }
                let start = realTime()
                while children.count < 3, realTime() - start < longest { try sleep(for: .milliseconds(1)) }
                if children.count < 3 { exit(91) }
            }
            exit(0)
        }
    }

    @Test("A monitor that a child starts before its hub is repaired is one thread", .enabled(if: !isSanitized))
    func begunInChild() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let code = try inRawChild {
                    try hub.startMonitor()
                    // Repaired in this poll, if it was not before.
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

    @Test("A function is called once in each period, on the monitor's thread, until its period is nil; then again")
    func functions() throws {
        try withHub(on: .configured) { hub in
            let monitor = try hub.startMonitor()
            let calls = Reports<UInt>()
            let function = try monitor.addFunction(period: .milliseconds(5)) { given in
                #expect(given === monitor)
                calls.note(UInt(pthread_self()))
            }
            let start = realTime()
            while calls.count < 3, realTime() - start < longest { try sleep(for: .milliseconds(1)) }
            #expect(realTime() - start >= .milliseconds(15))
            #expect(Set(calls.all).count == 1)
            #expect(!calls.all.contains(UInt(pthread_self())))
            try function.setPeriod(nil)
            // What was being called has been: a second function, which is due later, shows that the first is not.
            let later = Counter()
            try monitor.addFunction(period: .milliseconds(5)) { _ in later.add() }
            while later.count < 2 { try sleep(for: .milliseconds(1)) }
            let before = calls.count
            while later.count < 8 { try sleep(for: .milliseconds(1)) }
            #expect(calls.count == before)
            try function.setPeriod(.milliseconds(2))
            while calls.count < before + 2 { try sleep(for: .milliseconds(1)) }
        }
    }

    @Test("A period of zero or less is refused", arguments: [Duration.zero, .seconds(-1)])
    func badPeriods(period: Duration) throws {
        try withHub { hub in
            let monitor = try hub.startMonitor()
            let error = #expect(throws: MonitorError.self) { try monitor.addFunction(period: period) { _ in } }
            #expect(error?.code == .badPeriod)
            let function = try monitor.addFunction(period: .seconds(1)) { _ in }
            #expect(throws: MonitorError.self) { try function.setPeriod(period) }
            #expect(throws: MonitorError.self) { try monitor.watchMemory(limit: 1, every: period) }
        }
        #expect(
            MonitorError.notPositive(.seconds(-1)).description
                == "badPeriod: -1 s is no period for a monitor; it takes more than zero")
    }

    @Test("A hook that was cancelled is not called, and others are")
    func cancelledHooks() throws {
        try withMonitor { _, monitor, reports in
            let others = Reports<BlockingReport>()
            let hook = monitor.onBlocking { others.note($0) }
            hook.cancel()
            hook.cancel()
            try spawn { burnTheProcessor { reports.count > 0 } }.join()
            #expect(others.count == 0)
        }
    }

    // MARK: Memory

    /// Fact 138.
    @Test("Memory: one event when the limit is exceeded, more only while it grows, one when it is back under")
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

    /// Fact 138.
    @Test("The monitor reads the memory and tells the hooks")
    func memoryHooks() throws {
        try withHub(on: .configured) { hub in
            let monitor = try hub.startMonitor()
            let events = Reports<MemoryEvent>()
            monitor.onMemory { events.note($0) }
            let readings = Counter()
            // Not known, within, above, the same, back.
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
            // What the kernel says is believable, and any process needs more than a byte.
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

/// Counts the signals of a test's own.
private let calls = Counter()

/// Whether that many threads are there: one that was joined may be listed for a moment longer.
private func becomes(_ count: Int) -> Bool {
    for _ in 0..<10_000 {
        if threadCount() == count { return true }
        usleep(1000)
    }
    return false
}

/// How many threads this process has.
private func threadCount() -> Int {
    guard let directory = opendir("/proc/self/task") else { return -1 }
    defer { closedir(directory) }
    var count = 0
    while let entry = readdir(directory) {
        if entry.pointee.d_name.0 != CChar(UInt8(ascii: ".")) { count += 1 }
    }
    return count
}
