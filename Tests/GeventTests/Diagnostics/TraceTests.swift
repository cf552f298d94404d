import CGevent
import FoundationEssentials
import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

// Avoids Foundation's older JSON decoder, which keeps CoreFoundation memory for each thread: LeakSanitizer sometimes
// finds that of a pool thread that is exiting.

/// An entry of a trace file, with the format's keys.
private struct TraceEvent: Decodable {
    let ph: String
    let pid: Int
    let tid: Int
    let name: String
    let cat: String?
    let s: String?
    let ts: Double?
    let dur: Double?
    let args: [String: String]?
}

/// The contents of a trace file.
private struct TraceContents {
    struct Slice {
        let track: Int
        let name: String
        let category: String
        let begin: Double
        let end: Double
    }

    struct Mark {
        let track: Int
        let name: String
        let arguments: [String: String]
    }

    var slices: [Slice] = []
    var marks: [Mark] = []
    /// The last name of each track.
    var names: [Int: String] = [:]
    /// The tracks of each hub.
    var hubs: [Int: Set<Int>] = [:]
    var hubNames: [Int: String] = [:]

    init(_ data: Data) throws {
        for event in try JSONDecoder().decode([TraceEvent].self, from: data) {
            let (track, name, arguments) = (event.tid, event.name, event.args ?? [:])
            if track != 0 { hubs[event.pid, default: []].insert(track) }
            switch event.ph {
            case "X":
                let begin = try #require(event.ts)
                let duration = try #require(event.dur)
                #expect(duration >= 0)
                let category = try #require(event.cat)
                slices.append(
                    Slice(track: track, name: name, category: category, begin: begin, end: begin + duration))
            case "i":
                #expect(event.s == "t")
                #expect(event.ts != nil)
                marks.append(Mark(track: track, name: name, arguments: arguments))
            case "M":
                if name == "thread_name" { names[track] = arguments["name"] }
                if name == "process_name" { hubNames[event.pid] = arguments["name"] }
            default:
                Issue.record("an event of kind \(event.ph)")
            }
        }
    }

    init(_ file: TemporaryFile) throws { try self.init(file.contents()) }

    func track(_ part: String) throws -> Int {
        let found = names.filter { $0.value.contains(part) }.map(\.key)
        try #require(found.count == 1, "\(part) in \(names)")
        return found[0]
    }

    func slices(of track: Int) -> [Slice] { slices.filter { $0.track == track }.sorted { $0.begin < $1.begin } }

    func marks(of track: Int) -> [String] { marks.filter { $0.track == track }.map(\.name) }

    /// Slices of one track, and runs of one hub, must not overlap.
    func checkOrder() {
        let tracks = Dictionary(grouping: slices, by: \.track)
        for (_, slices) in tracks { checkDisjoint(slices) }
        for (_, tracks) in hubs { checkDisjoint(slices.filter { $0.category == "run" && tracks.contains($0.track) }) }
    }

    private func checkDisjoint(_ slices: [Slice]) {
        let sorted = slices.sorted { ($0.begin, $0.end) < ($1.begin, $1.end) }
        for (earlier, later) in zip(sorted, sorted.dropFirst()) {
            // Times are microseconds with three decimals; a sum of two has a rounding error.
            #expect(earlier.end <= later.begin + 0.000_9, "\(earlier) and \(later)")
        }
    }
}

/// A file that is removed with the test.
private final class TemporaryFile: Sendable {
    let path: String
    init() { path = "/tmp/gevent-trace-\(UUID().uuidString).json" }
    deinit { unlink(path) }
    func contents() throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }
}

@Suite("Traces")
struct TraceTests {
    @Test("Each greenlet has a track with its name, spawn site and waits")
    func tracks() throws {
        let file = TemporaryFile()
        try withHub(on: .configured) { hub in
            try hub.startTrace(to: file.path)
            #expect(hub.isTracing)
            let pipe = try Pipe()
            let reader = spawn { try waitRead(pipe.readEnd) }
            reader.name = "reader"
            let sleeper = spawn {
                try sleep(for: .milliseconds(3))
                try sleep()
                pipe.write()
                try reader.join()
            }
            sleeper.name = "sleeper \"in quotes\"\n"
            try joinAll([reader, sleeper], throwingErrors: true)
            hub.stopTrace()
            #expect(!hub.isTracing)
            hub.stopTrace()
        }
        let contents = try TraceContents(file)
        contents.checkOrder()
        let reader = try contents.track("\"reader\"")
        let sleeper = try contents.track("in quotes")
        #expect(contents.names[reader]?.contains("spawned at closure") == true)
        #expect(contents.names[sleeper]?.hasPrefix("<Greenlet<()> \"sleeper \"in quotes\"\n\">, spawned at ") == true)
        let waits = contents.slices(of: reader).filter { $0.category == "wait" }
        #expect(waits.count == 1)
        #expect(waits[0].name.hasPrefix("a wait to read descriptor "))
        #expect(waits[0].end - waits[0].begin >= 3000)
        let sleeps = contents.slices(of: sleeper).filter { $0.category == "wait" }
        #expect(sleeps.map(\.name) == ["sleep", "join of <Greenlet<()> \"reader\">"])
        // Slices of a parked greenlet follow each other without a gap.
        let all = contents.slices(of: sleeper)
        for (earlier, later) in zip(all, all.dropFirst()) { #expect(abs(later.begin - earlier.end) < 0.001) }
        #expect(contents.marks(of: reader) == ["begin", "end"])
        #expect(contents.marks(of: try contents.track("<MainGreenlet>")) == ["spawn", "spawn"])
        #expect(contents.slices(of: try contents.track("polls of ")).contains { $0.name == "poll" })
        #expect(contents.slices(of: try contents.track("<HubGreenlet>")).count > 0)
        #expect(contents.hubs.count == 1)
        #expect(contents.hubNames.values.first?.hasPrefix("hub on ") == true)
    }

    @Test("Ready greenlets that do not run are shown as ready, and yields are switches")
    func yields() throws {
        let file = TemporaryFile()
        try withHub { hub in
            try hub.startTrace(to: file.path)
            let greenlets = (0..<2).map { number in
                let greenlet = spawn { for _ in 0..<5 { try sleep() } }
                greenlet.name = "yielder \(number)"
                return greenlet
            }
            try joinAll(greenlets, throwingErrors: true)
        }
        let contents = try TraceContents(file)
        contents.checkOrder()
        for number in 0..<2 {
            let slices = contents.slices(of: try contents.track("yielder \(number)"))
            #expect(slices.filter { $0.category == "run" }.count == 6)
            #expect(slices.filter { $0.category == "ready" }.count == 5)
        }
    }

    @Test("Kills, timeouts and failures are marked")
    func marks() throws {
        let file = TemporaryFile()
        try withHub { hub in
            hub.errorHandler = { _, _ in }
            try hub.startTrace(to: file.path)
            func named(_ name: String, _ body: @escaping () throws -> Void) -> Greenlet<Void> {
                let greenlet = spawn(body)
                greenlet.name = name
                return greenlet
            }
            let victim = named("victim") { try sleep(for: .seconds(9)) }
            let late = named("late") { try withTimeout(.seconds(1)) { _ in try sleep(for: .seconds(9)) } }
            let failing = named("failing") { throw Boom() }
            // Ended before it ran.
            let unborn = named("unborn") {}
            try unborn.kill(blocking: false)
            try sleep(for: .milliseconds(1))
            try victim.kill()
            try joinAll([late, failing])
        }
        let contents = try TraceContents(file)
        contents.checkOrder()
        #expect(contents.marks(of: try contents.track("\"victim\"")) == ["begin", "kill", "exit"])
        #expect(contents.marks(of: try contents.track("\"late\"")) == ["begin", "timeout", "failure"])
        #expect(contents.marks(of: try contents.track("\"failing\"")) == ["begin", "failure"])
        #expect(contents.marks.contains { $0.arguments["error"] == "GreenletExit: GreenletExit" })
        #expect(contents.marks.contains { $0.arguments["error"] == "Timeout: 1 second" })
    }

    @Test("Greenlets that start where another has ended, and names set late, are shown")
    func stacksInSuccession() throws {
        let file = TemporaryFile()
        try withHub { hub in
            let before = spawn { try sleep(for: .seconds(1)) }
            before.name = "there before"
            try sleep()
            try hub.startTrace(to: file.path)
            let greenlets = (0..<3).map { number in
                spawn { AnyGreenlet.current.name = "late name \(number)" }
            }
            try joinAll(greenlets)
            try before.join()
            // The stack is reused; the trace shows another greenlet.
            let after = spawn { try sleep() }
            after.name = "there after"
            try after.join()
        }
        let contents = try TraceContents(file)
        contents.checkOrder()
        for number in 0..<3 {
            let track = try contents.track("late name \(number)")
            #expect(contents.slices(of: track).map(\.name) == ["run"])
            #expect(contents.marks(of: track) == ["begin", "end"])
        }
        #expect(contents.slices(of: try contents.track("there before")).map(\.category) == ["run"])
        #expect(contents.slices(of: try contents.track("there after")).map(\.name) == ["run", "ready", "run"])
    }

    @Test("The trace of a killed process is readable once its end is appended")
    func truncated() async throws {
        let file = TemporaryFile()
        let path = file.path
        await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
            try withHub(on: .configured) { hub in
                try hub.startTrace(to: path)
                let greenlet = spawn { try sleep(for: .milliseconds(1)) }
                greenlet.name = "done"
                try greenlet.join()
                // The hub writes pending entries before it sleeps.
                try sleep(for: .milliseconds(1))
                _ = kill(getpid(), SIGKILL)
            }
        }
        var data = try file.contents()
        #expect(throws: (any Error).self) { try TraceContents(data) }
        data += "]".utf8
        let contents = try TraceContents(data)
        contents.checkOrder()
        #expect(contents.marks(of: try contents.track("\"done\"")) == ["begin", "end"])
    }

    @Test("With GEVENT_TRACE every hub writes to one file, which is complete after every kind of process exit")
    func byTheSetting() async throws {
        let file = TemporaryFile()
        let path = file.path
        await #expect(processExitsWith: .success) { [path = path as String] in
            setenv("GEVENT_TRACE", path, 1)
            // Otherwise the two first hubs may contend for the settings. ThreadSanitizer does not see that the kernel
            // hands a contended `Mutex` of the standard library to a waiting thread, and reports a race.
            _ = try Gevent.configuration.resolve()
            // Two hubs at a time, one after them, and one that is not destroyed.
            let threads = (0..<2).map { number in
                TestThread {
                    do {
                        try withHub { _ in
                            let greenlet = spawn { try sleep(for: .seconds(1)) }
                            greenlet.name = "of thread \(number)"
                            try greenlet.join()
                        }
                    } catch { Issue.record(error) }
                }
            }
            for thread in threads { thread.join() }
            try onFreshThread {
                let hub = try Hub.start()
                #expect(hub.isTracing)
                let greenlet = spawn {}
                greenlet.name = "of the last"
                try greenlet.join()
                exit(0)
            }
        }
        let contents = try TraceContents(file)
        contents.checkOrder()
        #expect(contents.hubs.count == 3)
        let tracks = try ["of thread 0", "of thread 1", "of the last"].map { try contents.track($0) }
        let hubs = tracks.compactMap { track in contents.hubs.first { $0.value.contains(track) }?.key }
        #expect(Set(hubs).count == 3)
    }

    @Test("A trace that cannot be opened throws in code; with the setting a message is printed")
    func cannotOpen() async throws {
        try withHub { hub in
            let error = #expect(throws: SystemError.self) { try hub.startTrace(to: "/nowhere/trace.json") }
            #expect(error?.errno == ENOENT)
            #expect("\(error!)" == "open the trace /nowhere/trace.json: ENOENT (No such file or directory)")
            #expect(!hub.isTracing)
        }
        let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
            setenv("GEVENT_TRACE", "/nowhere/trace.json", 1)
            try withHub { hub in #expect(!hub.isTracing) }
        }
        #expect(
            text(result.standardErrorContent).contains(
                "gevent: cannot start the trace: open the trace /nowhere/trace.json: ENOENT"))
    }

    /// Files that another user may have placed at the path of the trace.
    @Test(
        "A trace is not written through a link, into a FIFO, a device or another user's file",
        arguments: [
            "symbolic link", "dangling link", "hard link", "FIFO", "FIFO with a reader", "device", "another user's",
        ])
    func unsafePlaces(kind: String) throws {
        let (file, victim) = (TemporaryFile(), TemporaryFile())
        let text = "precious"
        try Data(text.utf8).write(to: URL(fileURLWithPath: victim.path))
        var path = file.path
        var reader: CInt = -1
        defer { close(reader) }
        let reason: String
        switch kind {
        case "symbolic link":
            try #require(symlink(victim.path, path) == 0)
            reason = "symbolic link"
        case "dangling link":
            try #require(symlink(victim.path + ".new", path) == 0)
            reason = "symbolic link"
        case "hard link":
            try #require(link(victim.path, path) == 0)
            reason = "hard link"
        case "FIFO", "FIFO with a reader":
            try #require(mkfifo(path, 0o600) == 0)
            if kind != "FIFO" { reader = open(path, O_RDONLY | O_NONBLOCK) }
            reason = "it is not a regular file"
        case "device":
            path = "/dev/null"
            reason = "it is not a regular file"
        default:
            guard geteuid() == 0 else { return }
            path = victim.path
            try #require(chown(path, 65534, 65534) == 0)
            reason = "it belongs to another user"
        }
        try withHub { [path] hub in
            let error = #expect(throws: SystemError.self) { try hub.startTrace(to: path) }
            #expect(error?.description.hasPrefix("open the trace \(path): ") == true, "\(String(describing: error))")
            #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
            #expect(!hub.isTracing)
        }
        #expect(try String(decoding: victim.contents(), as: UTF8.self) == text)
        #expect(access(victim.path + ".new", F_OK) != 0)
    }

    @Test("An existing file of the same user is replaced as a whole")
    func replaces() throws {
        let file = TemporaryFile()
        try Data(String(repeating: "old ", count: 10_000).utf8).write(to: URL(fileURLWithPath: file.path))
        try withHub { hub in try hub.startTrace(to: file.path) }
        #expect(try TraceContents(file).hubs.count == 1)
    }

    @Test("A trace that can no longer be written reports it once and ends")
    func cannotWrite() async throws {
        let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
            try withHub { hub in
                // Limits the size of every file of the process.
                var limit = rlimit(rlim_cur: 4096, rlim_max: 4096)
                signal(SIGXFSZ, SIG_IGN)
                setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
                let file = TemporaryFile()
                try hub.startTrace(to: file.path)
                for _ in 0..<200 { try spawn { try sleep(for: .seconds(1)) }.join() }
                #expect(!hub.isTracing)
            }
        }
        let printed = text(result.standardErrorContent)
        #expect(printed.components(separatedBy: "ends here: EFBIG (File too large)").count == 2)
    }

    @Test("%p in the name is the process ID")
    func processNumber() throws {
        let file = TemporaryFile()
        try withHub { hub in
            try hub.startTrace(to: file.path + ".%p")
        }
        let path = "\(file.path).\(getpid())"
        #expect(access(path, F_OK) == 0)
        unlink(path)
    }

    @Test("In a forked child the parent's trace is left alone; one with %p continues", .enabled(if: !isSanitized))
    func forked() async throws {
        let file = TemporaryFile()
        let path = file.path
        await #expect(processExitsWith: .success) { [path = path as String] in
            for name in [path, path + ".%p"] {
                try withHub { hub in
                    try hub.startTrace(to: name)
                    let child = plainFork()
                    if child == 0 {
                        alarm(60)
                        for service in hub.services { service.hubDidFork() }
                        let goesOn = hub.isTracing
                        try spawn {}.join()
                        hub.stopTrace()
                        _exit(goesOn == (name != path) && hub.switchWatch == nil ? 0 : 1)
                    }
                    var status: CInt = 0
                    #expect(Glibc.waitpid(child, &status, 0) == child)
                    #expect(status == 0)
                    guard name != path else { return }
                    _ = try TraceContents(Data(contentsOf: URL(fileURLWithPath: "\(path).\(child)")))
                    unlink("\(path).\(child)")
                    unlink("\(path).\(getpid())")
                }
            }
        }
        let contents = try TraceContents(file)
        #expect(contents.hubs.count == 1)
        #expect(contents.marks.isEmpty)
    }

    @Test("A trace started in a child before its hub is repaired belongs to the child", .enabled(if: !isSanitized))
    func begunInChild() async throws {
        let file = TemporaryFile()
        await #expect(processExitsWith: .success) { [path = file.path as String] in
            try withHub(on: .configured) { hub in
                let code = try inRawChild {
                    try hub.startTrace(to: path)
                    // The loop is repaired in this poll at the latest.
                    try sleep(for: .milliseconds(1))
                    guard hub.isTracing else { return 1 }
                    hub.stopTrace()
                    return 0
                }
                exit(code ?? 99)
            }
        }
        let contents = try TraceContents(file)
        #expect(contents.hubs.count == 1 && contents.slices.contains { $0.name == "poll" })
    }

    // MARK: The hook

    @Test("The switch hook receives origin and target of each switch")
    func hook() throws {
        try withHub { hub in
            var switches: [(from: String, to: String)] = []
            func name(_ greenlet: AnyGreenlet?) -> String {
                guard let greenlet else { return "one that has ended" }
                if greenlet is MainGreenlet { return "main" }
                return greenlet is HubGreenlet ? "hub" : greenlet.name
            }
            let greenlets = [spawn { try sleep() }, spawn {}, spawn {}]
            for (greenlet, name) in zip(greenlets, ["first", "second", "third"]) { greenlet.name = name }
            let hook = hub.onSwitch { switches.append((name($0), name($1))) }
            #expect(hook.isActive)
            try joinAll(greenlets)
            hook.cancel()
            hook.cancel()
            #expect(!hook.isActive)
            try sleep(for: .seconds(1))
            // The hub sometimes runs in between.
            #expect(switches.map(\.to).filter { $0 != "hub" } == ["first", "second", "third", "first", "main"])
            #expect(switches.first?.from == "main")
            for (earlier, later) in zip(switches, switches.dropFirst()) {
                // The second and the third run once, and the first ends when it resumes.
                let hasEnded = earlier.to == "second" || earlier.to == "third" || later.to == "main"
                #expect(later.from == earlier.to || (hasEnded && later.from == "one that has ended"))
            }
            #expect(switches.filter { $0.from == "one that has ended" }.count >= 2)
        }
    }

    @Test("A switch hook that makes a greenlet ready ends the process")
    func meddlingHook() async throws {
        let result = try await #require(processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { hub in
                hub.onSwitch { _, _ in spawn {} }
                try sleep(for: .seconds(1))
            }
        }
        #expect(text(result.standardErrorContent).contains("a switch hook made a greenlet ready; it may only look"))
    }

    @Test("After the last hook is removed, switches use the fast path again")
    func fastPath() throws {
        try withHub { hub in
            func slowPathReasons() -> UInt32 { hub.pointer.pointee.slow_path_reasons }
            let before = slowPathReasons()
            let hooks = [hub.onSwitch { _, _ in }, hub.onSwitch { _, _ in }]
            #expect(slowPathReasons() == before + 1)
            #expect(hub.pointer.pointee.has_slow_switches)
            let file = TemporaryFile()
            try hub.startTrace(to: file.path)
            #expect(slowPathReasons() == before + 1)
            hooks[0].cancel()
            #expect(hub.switchWatch?.hooks.count == 1)
            hooks[1].cancel()
            #expect(slowPathReasons() == before + 1)
            hub.stopTrace()
            #expect(slowPathReasons() == before)
            #expect(hub.pointer.pointee.has_slow_switches == hub.pointer.pointee.calls_runtime_for_access)
        }
    }
}
