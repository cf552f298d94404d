import Gevent
import GeventTesting
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// Globals whose initializers let other greenlets run before they finish. Each is used in one test process only.
private enum Lazy {
    static let sleeps: Int = slowly { try sleep(for: .seconds(60)) }
    static let yields: Int = slowly { while true { try sleep() } }
}

private func slowly(_ wait: () throws -> Void) -> Int {
    do { try wait() } catch { printToStandardError("\(error)\n") }
    return 1
}

/// Runs in the test's own process: starts a monitor that prints the report of a deadlock and exits the process with 7.
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

@Suite("Locks held by a parked greenlet", .enabled(if: !isSanitized))
struct LocksHeldWhileParked {
    @Test(
        "A second greenlet uses a global whose initializer parks: the monitor names the initializer and both greenlets",
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
                "\nIt waits for one-time initialization function for \(variable) (SelfDeadlockTests.swift:"),
            "\(printed)")
        #expect(
            printed.contains("\n\(holder) is suspended in that, on this very thread, so both wait for ever."),
            "\(printed)")
        let places = printed.split(separator: "\n").filter { $0.hasPrefix("    suspended at ") }
        // The frames from the closure that parks out to the initializer.
        #expect(places.first?.contains("closure") == true, "\(printed)")
        #expect(places.contains { $0.contains("(slowly in ") }, "\(printed)")
        #expect(places.last?.contains("one-time initialization function for \(variable) (") == true, "\(printed)")
        #if DEBUG
            let greenlet = kind == "main holds" ? "the main greenlet \"first of all\"" : "a greenlet \"first\""
            let warning = "gevent: \(greenlet) waits in one-time initialization function for \(variable) ("
            // The report appears once, however often the greenlet yields.
            #expect(printed.ranges(of: warning).count == 1, "\(printed)")
        #endif
    }

    @Test("A parked greenlet holds a mutex of the C library: the monitor names all possible holders")
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

    @Test("A greenlet that waits for a lock held by another thread is not blamed")
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
                block(forSeconds: 30) { reports.count > 0 }
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

    /// The library's own locks differ: a second user ends the process instead of blocking.
    @Test("A Mutex held across a parking call ends the process when a second greenlet locks it")
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
