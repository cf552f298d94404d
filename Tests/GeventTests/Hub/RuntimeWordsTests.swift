import CGevent
import Gevent
import GeventTesting
import Glibc
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A value whose mutating method parks, like a client's `receive()`.
private struct Connection {
    var received = 0

    mutating func receive() throws -> Int {
        received += 1
        try sleep(for: .milliseconds(1))
        received += 1
        return received
    }
}

private final class Client {
    var connection = Connection()
    var items: [Int] = []
}

private enum Local {
    @TaskLocal static var name = "none"
}

/// Keeps an access to `value` active while `body` runs.
private func modify<Value>(_ value: inout Value, _ body: () throws -> Void) rethrows { try body() }

@Suite("The runtime's thread-local words belong to the greenlet")
struct RuntimeWordsTests {
    @Test("The words are found on this system, so no feature is disabled")
    func found() throws {
        try withHub { _ in
            #expect(RuntimeFacts.current.accessTracking == .swapped)
            #expect(RuntimeFacts.current.swapsTaskWords)
        }
    }

    // MARK: Exclusivity

    @Test("Two greenlets parked inside mutating accesses of their own do not affect each other")
    func interleavedAccesses() throws {
        let sum = try withHub { _ in
            let greenlets = (0..<50).map { number in
                spawn {
                    let client = Client()
                    var sum = 0
                    for _ in 0..<10 {
                        if number.isMultiple(of: 3) { try sleep() }
                        sum += try client.connection.receive()
                    }
                    return sum
                }
            }
            return try greenlets.map { try $0.get() }.reduce(0, +)
        }
        #expect(sum == 50 * 110)
    }

    @Test("A property can be read while another greenlet is parked inside a mutating access to it")
    func readDuringAccess() throws {
        let log = try logged { log, _ in
            let client = Client()
            let receiver = spawn { log.note("received \(try client.connection.receive())") }
            try sleep()
            log.note("seen \(client.connection.received)")
            client.items.append(1)
            try receiver.join()
        }
        #expect(log == ["seen 1", "received 2"])
    }

    @Test("Accesses that end in a different order than they started end correctly")
    func anyOrder() throws {
        let log = try logged { log, hub in
            let clients = (0..<4).map { _ in Client() }
            let greenlets = clients.enumerated().map { number, client in
                spawn {
                    try modify(&client.items) { try sleep(for: .seconds(10 - number)) }
                    client.items.append(number)
                    log.note("\(number)")
                }
            }
            // Main starts and ends accesses meanwhile.
            for _ in 0..<20 {
                let client = Client()
                try modify(&client.items) { try sleep(for: .milliseconds(700)) }
            }
            try joinAll(greenlets)
            log.note("\(clients.map(\.items))")
        }
        #expect(log == ["3", "2", "1", "0", "[[0], [1], [2], [3]]"])
    }

    @Test("A greenlet starts without other greenlets' accesses, and one that ends with a kill leaves none")
    func killedInsideAccess() throws {
        try withHub { _ in
            let client = Client()
            let receiver = spawn { _ = try client.connection.receive() }
            try sleep()
            // Started while the spawner has an active access, which it does not inherit.
            try modify(&client.items) { try spawn { client.items.append(1) }.join() }
            try receiver.kill()
            for _ in 0..<10 { try #expect(client.connection.receive() > 0) }
        }
    }

    @Test(
        "Overlapping accesses of one greenlet still trap", .enabled(if: isDebugBuild))
    func realOverlap() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let client = Client()
                try spawn {
                    modify(&client.items) { client.items.append(1) }
                }.join()
            }
        }
        #expect(text(result.standardErrorContent).contains("Simultaneous accesses"))
    }

    // MARK: Concurrency

    @Test("Task-locals do not leak between greenlets that park inside withValue")
    func taskLocals() throws {
        let log = try logged { log, _ in
            let greenlets = (0..<3).map { number in
                spawn {
                    try Local.$name.withValue("\(number)") {
                        try sleep(for: .milliseconds(3 - number))
                        log.note("\(number) sees \(Local.name)")
                        try Local.$name.withValue("\(number) inner") {
                            try sleep(for: .milliseconds(number + 1))
                            log.note("\(number) sees \(Local.name)")
                        }
                        log.note("\(number) sees \(Local.name)")
                    }
                    log.note("\(number) sees \(Local.name)")
                }
            }
            let plain = spawn {
                for _ in 0..<5 {
                    try sleep(for: .milliseconds(1))
                    #expect(Local.name == "none")
                }
            }
            try sleep()
            #expect(Local.name == "none")
            try joinAll(greenlets + [plain])
        }
        for number in 0..<3 {
            #expect(
                log.filter { $0.hasPrefix("\(number) ") } == [
                    "\(number) sees \(number)", "\(number) sees \(number) inner", "\(number) sees \(number)",
                    "\(number) sees none",
                ])
        }
    }

    @Test("A greenlet does not inherit its spawner's task-locals, and main keeps its own")
    func noInheritance() throws {
        let log = try logged { log, _ in
            try Local.$name.withValue("main's") {
                try spawn { log.note(Local.name) }.join()
                // Runs on the stack of the greenlet that just ended.
                try spawn { log.note(Local.name) }.join()
                log.note(Local.name)
            }
            log.note(Local.name)
        }
        #expect(log == ["none", "none", "main's", "none"])
    }

    @Test("A greenlet killed inside withValue leaves no binding behind")
    func killedInsideWithValue() throws {
        let log = try logged { log, _ in
            let victim = spawn { try Local.$name.withValue("victim") { try sleep(for: .seconds(1)) } }
            try sleep()
            try victim.kill()
            log.note(Local.name)
            try spawn { log.note(Local.name) }.join()
        }
        #expect(log == ["none", "none"])
    }

    @Test("A greenlet may start a Task")
    func startTask() throws {
        let counter = Counter()
        try withHub(on: .configured) { hub in
            let hold = Smuggled(hub.hold())
            let handle = hub.handle
            spawn {
                Task {
                    counter.add()
                    handle.post { hold.value.cancel() }
                }
                try sleep()
            }
            _ = try hub.join()
        }
        #expect(counter.count == 1)
    }

    // MARK: errno

    @Test("errno survives a switch, and a greenlet starts with 0")
    func errnoSurvives() throws {
        let log = try logged { log, _ in
            errno = 42
            let first = spawn {
                log.note("first begins with \(errno)")
                errno = 1
                try sleep(for: .milliseconds(1))
                log.note("first \(errno)")
                errno = 3
            }
            let second = spawn {
                log.note("second begins with \(errno)")
                errno = 2
                try sleep()
                log.note("second \(errno)")
            }
            try sleep()
            log.note("main \(errno)")
            try joinAll([first, second])
            errno = 0
            try spawn { log.note("third begins with \(errno)") }.join()
        }
        #expect(
            log == [
                "first begins with 0", "second begins with 0", "main 42", "second 2", "first 1", "third begins with 0",
            ])
    }
}

private let isDebugBuild: Bool = {
    var isDebug = false
    // The condition is evaluated in debug builds only.
    assert(
        {
            isDebug = true
            return true
        }())
    return isDebug
}()
