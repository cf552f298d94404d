internal import CMeasure
internal import Gevent

let memoryCases: [Case] =
    [100_000, 1_000_000].map { count in
        Case(
            "asleep-\(count)", "a sleeping greenlet, of \(grouped(count))", group: "memory", figure: .memory,
            operations: count, quickOperations: count < 1_000_000 ? count : nil
        ) { hub, run in try asleep(hub, run) }
    }

/// The memory of each of many sleeping greenlets. They have small stacks, as recommended for so many: page tables grow
/// with the address space of a stack, 2 KiB for a default stack and 0.1 KiB for these.
private func asleep(_ hub: Hub, _ run: Run) throws {
    let count = run.operations
    try needStacks(count)
    let before = measure_memory_bytes(0)
    // All sleep for so long that none wakes before the last one starts to sleep.
    let gate = Greenlet {}
    let nap = Duration.seconds(1) + .microseconds(2 * count)
    var woken = 0
    let last = Greenlet {}
    for _ in 0..<count {
        spawn(stackSize: 64 << 10) {
            try gate.join()
            try sleep(for: nap)
            woken += 1
            if woken == count { last.start() }
        }
    }
    while hub.statistics.liveGreenlets < count { try sleep() }
    gate.start()
    while hub.statistics.pendingTimers < count && woken == 0 { try sleep() }
    try expect(woken == 0, "the first woke before the last was asleep: this machine is too slow for \(nap)")
    run.record(bytesEach: Double(measure_memory_bytes(0) - before) / Double(count))
    run.also("memory maps of the process", Double(memoryMaps()), "")
    try run.measure { try last.join() }
    try expect(woken == count, "\(count - woken) did not wake")
}

/// The number of the process's mappings, which the kernel limits.
private func memoryMaps() -> Int {
    contents(of: "/proc/self/maps").count { $0 == UInt8(ascii: "\n") }
}
