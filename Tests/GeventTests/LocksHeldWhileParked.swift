import Gevent
import GeventTesting
import Glibc
import Synchronization
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// Globals whose initialisers let other greenlets run before they are done. Each is used by one test process only.
private enum Lazy {
    static let sleeps: Int = slowly { try sleep(for: .seconds(60)) }
    static let yields: Int = slowly { while true { try sleep() } }
}

private func slowly(_ wait: () throws -> Void) -> Int {
    do { try wait() } catch { printToStandardError("\(error)\n") }
    return 1
}

/// In a process of the test's own: starts a monitor that prints the report of a deadlock and ends the process with 7.
private func endAtDeadlock(_ hub: Hub) throws {
    alarm(60)
    let monitor = try hub.startMonitor()
    monitor.maxBlockingTime = .milliseconds(20)
    monitor.printsBlockingReports = false
    monitor.onBlocking { report in
        if report.deadlock == nil { return }
        printToStandardError("\(report)\n")
        _exit(7)
    }
}

private func named<Value>(_ name: String, _ body: @escaping () throws -> Value) -> Greenlet<Value> {
    let greenlet = spawn(body)
    greenlet.name = name
    return greenlet
}

@Suite("Locks that a greenlet holds while it is parked", .enabled(if: !isSanitized))
struct LocksHeldWhileParked {
    @Test(
        "A global whose initialiser parks, touched by a second greenlet: the monitor names the initialiser and both",
        arguments: ["sleeps", "yields", "main holds", "main waits"])
    func initializer(kind: String) async throws {
        let result = try await #require(processExitsWith: .exitCode(7), observing: [\.standardErrorContent]) {
            [kind = kind as String] in
            try withHub(on: .configured) { hub in
                hub.mainGreenlet.name = "first of all"
                try endAtDeadlock(hub)
                switch kind {
                case "main holds":
                    let second = named("second") { Lazy.sleeps }
                    print(Lazy.sleeps, try second.get())
                case "main waits":
                    let first = named("first") { Lazy.sleeps }
                    try sleep()
                    print(Lazy.sleeps, try first.get())
                default:
                    let greenlets = ["first", "second"].map { name in
                        named(name) { kind == "yields" ? Lazy.yields : Lazy.sleeps }
                    }
                    try joinAll(greenlets)
                }
            }
        }
        let printed = text(result.standardErrorContent)
        let holder = kind == "main holds" ? "<MainGreenlet \"first of all\">" : "<Greenlet<Int> \"first\">"
        let waiter = kind == "main waits" ? "<MainGreenlet \"first of all\">" : "<Greenlet<Int> \"second\">"
        let variable = kind == "yields" ? "yields" : "sleeps"
        #expect(printed.contains("\(waiter)\(kind == "main waits" ? "," : "") has run for "), "\(printed)")
        #expect(
            printed.contains(
                "\nIt waits for one-time initialization function for \(variable) (LocksHeldWhileParked.swift:"),
            "\(printed)")
        #expect(
            printed.contains("\n\(holder) is suspended in that, on this very thread, so both wait for ever."),
            "\(printed)")
        let places = printed.split(separator: "\n").filter { $0.hasPrefix("    suspended at ") }
        // From the closure that parks out to the initializer.
        #expect(places.first?.contains("closure") == true, "\(printed)")
        #expect(places.contains { $0.contains("(slowly in ") }, "\(printed)")
        #expect(places.last?.contains("one-time initialization function for \(variable) (") == true, "\(printed)")
        #if DEBUG
            let greenlet = kind == "main holds" ? "the main greenlet \"first of all\"" : "a greenlet \"first\""
            let warning = "gevent: \(greenlet) waits in one-time initialization function for \(variable) ("
            // Once, however often it yields.
            #expect(printed.ranges(of: warning).count == 1, "\(printed)")
        #endif
    }

    @Test("A mutex of the C library that a parked greenlet holds: the monitor names all that may hold it")
    func mutex() async throws {
        let result = try await #require(processExitsWith: .exitCode(7), observing: [\.standardErrorContent]) {
            try withHub(on: .configured) { hub in
                try endAtDeadlock(hub)
                let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
                pthread_mutex_init(mutex, nil)
                let greenlets = ["first", "second"].map { name in
                    named(name) {
                        pthread_mutex_lock(mutex)
                        defer { pthread_mutex_unlock(mutex) }
                        try sleep(for: .milliseconds(1))
                    }
                }
                try joinAll(greenlets)
            }
        }
        let printed = text(result.standardErrorContent)
        #expect(printed.contains("<Greenlet<()> \"second\"> has run for "), "\(printed)")
        #expect(
            printed.contains(
                "\nIt waits for a lock that this thread itself holds, so for ever. Suspended with that lock in"),
            "\(printed)")
        #expect(printed.contains(" use: <MainGreenlet>, <Greenlet<()> \"first\">.\n"), "\(printed)")
    }

    @Test("Nobody is accused who merely waits for a lock that another thread holds")
    func otherThread() throws {
        try withHub(on: .configured) { hub in
            let monitor = try hub.startMonitor()
            monitor.maxBlockingTime = .milliseconds(10)
            monitor.printsBlockingReports = false
            let reports = Reports<BlockingReport>()
            monitor.onBlocking { reports.note($0) }
            let lock = Smuggled(UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1))
            pthread_mutex_init(lock.value, nil)
            let isHeld = Counter()
            let thread = TestThread {
                pthread_mutex_lock(lock.value)
                isHeld.add()
                for _ in 0..<30_000 where reports.count == 0 { usleep(1000) }
                pthread_mutex_unlock(lock.value)
            }
            while isHeld.count == 0 { try sleep(for: .milliseconds(1)) }
            try spawn {
                pthread_mutex_lock(lock.value)
                pthread_mutex_unlock(lock.value)
            }.join()
            thread.join()
            #expect(reports.count > 0)
            #expect(reports.all.allSatisfy { $0.deadlock == nil })
            lock.value.deallocate()
        }
    }

    /// The library's own locks are of another kind: their second user does not stop, the process does.
    @Test("A Mutex that is held over a call that parks ends the process when a second greenlet wants it")
    func swiftMutex() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            alarm(60)
            let mutex = Mutex(0)
            try withHub(on: .configured) { hub in
                let greenlets = (0..<2).map { _ in
                    spawn {
                        try mutex.withLock { value in
                            value += 1
                            try sleep(for: .milliseconds(1))
                        }
                    }
                }
                try joinAll(greenlets)
            }
        }
        #expect(text(result.standardErrorContent).contains("Recursive call to lock Mutex"))
    }
}
