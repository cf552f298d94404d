// Swift concurrency, on the default executor. compare-peers binds it to one processor, so that it has one thread, like
// a hub.

import Glibc
import Synchronization

let quick = CommandLine.arguments.dropFirst(2).first == "--quick"

func scaled(_ count: Int) -> Int { quick ? count / 10 : count }

func report(_ name: String, _ operations: Int, _ spent: Duration) {
    let nanoseconds = spent / .nanoseconds(1) / Double(operations)
    print("{\"case\": \"\(name)\", \"operations\": \(operations), \"nanoseconds\": \(nanoseconds)}")
}

/// The memory of this process in bytes: resident memory and page tables.
func memory() -> Int {
    guard let file = fopen("/proc/self/status", "r") else { return 0 }
    defer { fclose(file) }
    var kibibytes = 0
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { line in
        while fgets(line.baseAddress, CInt(line.count), file) != nil {
            let words = String(cString: line.baseAddress!).split(whereSeparator: \.isWhitespace)
            if words.first == "VmRSS:" || words.first == "VmPTE:" { kibibytes += Int(words[1]) ?? 0 }
        }
    }
    return kibibytes << 10
}

/// Tasks that only yield.
func yields(_ name: String, _ count: Int) async {
    let each = scaled(400_000) / count
    let start = ContinuousClock.now
    let tasks = (0..<count).map { _ in
        Task {
            for _ in 0..<each { await Task.yield() }
        }
    }
    for task in tasks { await task.value }
    report(name, each * count, ContinuousClock.now - start)
}

func spawnJoin(_ name: String) async {
    let count = scaled(1_000_000)
    let start = ContinuousClock.now
    for _ in 0..<count { await Task {}.value }
    report(name, count, ContinuousClock.now - start)
}

func spawnAtOnce(_ name: String, _ count: Int) async {
    let rounds = count >= 1_000_000 ? 1 : scaled(1_000_000) / count
    let start = ContinuousClock.now
    for _ in 0..<rounds {
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<count { group.addTask {} }
        }
    }
    report(name, count * rounds, ContinuousClock.now - start)
}

func queue(_ name: String) async {
    let count = scaled(1_000_000)
    let (stream, continuation) = AsyncStream.makeStream(of: Int.self)
    let start = ContinuousClock.now
    Task {
        for number in 0..<count { continuation.yield(number) }
        continuation.finish()
    }
    for await _ in stream {}
    report(name, count, ContinuousClock.now - start)
}

actor Gate {
    private var isOpen = false
    private var waiting: [CheckedContinuation<Void, Never>] = []

    var count: Int { waiting.count }

    func wait() async {
        if isOpen { return }
        await withCheckedContinuation { waiting.append($0) }
    }

    func open() {
        isOpen = true
        for one in waiting { one.resume() }
        waiting = []
    }
}

let begun = Atomic<Int>(0)

func asleep(_ name: String, _ count: Int) async throws {
    let before = memory()
    for _ in 0..<count {
        Task {
            begun.add(1, ordering: .relaxed)
            try? await Task.sleep(for: .seconds(3_600))
        }
    }
    while begun.load(ordering: .relaxed) < count { await Task.yield() }
    // Waits for tasks that have started but do not sleep yet.
    try await Task.sleep(for: .milliseconds(200))
    let bytes = Double(memory() - before) / Double(count)
    print("{\"case\": \"\(name)\", \"operations\": \(count), \"bytes\": \(bytes)}")
    exit(0)
}

func processorTime() -> Duration {
    var now = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now)
    return .seconds(now.tv_sec) + .nanoseconds(now.tv_nsec)
}

/// The moments of run-case, in microseconds.
func randomMoments(_ count: Int) -> [Int] {
    var state: UInt64 = 1
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return 100_000 + Int(state >> 33) % (count * 10)
    }
}

func sleepRandom(_ name: String) async {
    let count = scaled(100_000)
    let gate = Gate()
    let tasks = randomMoments(count).map { moment in
        Task {
            await gate.wait()
            try? await Task.sleep(for: .microseconds(moment))
        }
    }
    while await gate.count < count { await Task.yield() }
    let start = processorTime()
    await gate.open()
    for task in tasks { await task.value }
    report(name, count, processorTime() - start)
}

let cases: [(String, @Sendable (String) async throws -> Void)] = [
    ("yield-1", { await yields($0, 1) }),
    ("yield-2", { await yields($0, 2) }),
    ("yield-100", { await yields($0, 100) }),
    ("yield-1000", { await yields($0, 1_000) }),
    ("yield-10000", { await yields($0, 10_000) }),
    ("spawn-join", { await spawnJoin($0) }),
    ("spawn-join-1000", { await spawnAtOnce($0, 1_000) }),
    ("spawn-join-1000000", { await spawnAtOnce($0, 1_000_000) }),
    ("queue-128", { await queue($0) }),
    ("asleep-100000", { try await asleep($0, 100_000) }),
    ("asleep-1000000", { try await asleep($0, 1_000_000) }),
    ("sleep-random", { await sleepRandom($0) }),
]

let argument = CommandLine.arguments.dropFirst().first
if argument == "--list" {
    for (name, _) in cases { print(name) }
} else if let found = cases.first(where: { $0.0 == argument }) {
    try await found.1(found.0)
} else {
    let usage = "usage: peer --list | CASE [--quick]\n"
    write(STDERR_FILENO, usage, usage.utf8.count)
    exit(64)
}
