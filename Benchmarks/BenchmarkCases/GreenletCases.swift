internal import CGevent
internal import Gevent

/// Cases with greenlets only, which do not use the loop.
let greenletCases: [Case] =
    [
        Case(
            "switch", "wake another and park, 2 greenlets (boost: only the jump)", group: "greenlets",
            operations: 4_000_000,
            quickOperations: 400_000
        ) { _, run in try switches(run) }
    ]
    + [1, 2, 100, 1_000, 10_000, 100_000].map(yields)
    + [
        Case(
            "spawn-join", "spawn and join, one at a time", group: "greenlets", operations: 400_000,
            quickOperations: 40_000
        ) { _, run in
            try run.measure {
                for _ in 0..<run.operations { try spawn {}.join() }
            }
        }
    ]
    + [1_000, 1_000_000].map(spawnsAtOnce)
    + [
        Case(
            "link", "link to a greenlet and be told of its end", group: "greenlets", operations: 200_000,
            quickOperations: 20_000
        ) { _, run in try links(run) },
        Case(
            "kill", "kill a parked greenlet and wait until it is over", group: "greenlets", operations: 50_000,
            quickOperations: 5_000
        ) { hub, run in try kills(hub, run) },
        Case(
            "get", "spawn a greenlet and get its value", group: "greenlets", operations: 400_000,
            quickOperations: 40_000
        ) { _, run in
            var sum = 0
            try run.measure {
                for index in 0..<run.operations { sum &+= try spawn { index }.get() }
            }
            try expect(sum == run.operations * (run.operations - 1) / 2, "a value got lost")
        },
        Case(
            "group-join", "spawn and join in a scoped group of 1,000, each", group: "greenlets", operations: 200_000,
            quickOperations: 20_000
        ) { _, run in try groupJoin(run) },
    ]

/// Two greenlets that switch to each other with the primitives of every wait.
private func switches(_ run: Run) throws {
    let hub = gevent_hub_current()!
    var contexts: [UnsafeMutablePointer<gevent_context>] = []
    var isOver = false
    // The first greenlet has no other to wake yet. The greenlet that finds the flag set wakes the other, so both end.
    let players = (0..<2).map { index in
        spawn {
            contexts.append(hub.pointee.current)
            _ = gevent_wait(hub, 1, nil)
            let other = contexts[1 - index]
            for _ in 0..<run.operations / 2 {
                gevent_wait_end(other, UInt8(GEVENT_WAIT_WOKEN))
                if isOver { return }
                _ = gevent_wait(hub, 1, nil)
            }
            isOver = true
            gevent_wait_end(other, UInt8(GEVENT_WAIT_WOKEN))
        }
    }
    try sleep()
    try expect(contexts.count == 2, "not all players started")
    try run.measure {
        gevent_wait_end(contexts[0], UInt8(GEVENT_WAIT_WOKEN))
        try joinAll(players)
    }
}

/// Greenlets that only yield, so often that waking and ending them is negligible.
private func yields(_ count: Int) -> Case {
    Case(
        "yield-\(count)", "yield, \(grouped(count)) ready", group: "greenlets",
        operations: max(4_000_000, 200 * count), quickOperations: max(400_000, 200 * count)
    ) { _, run in
        let each = run.operations / count
        let (gate, greenlets) = try parked(count) {
            for _ in 0..<each { try sleep() }
        }
        try run.measure {
            gate.start()
            try joinAll(greenlets)
        }
    }
}

private func spawnsAtOnce(_ count: Int) -> Case {
    Case(
        "spawn-join-\(count)", "spawn and join, \(grouped(count)) at once", group: "greenlets", operations: 1_000_000,
        quickOperations: count < 1_000_000 ? 100_000 : nil
    ) { _, run in
        try run.measure {
            for _ in 0..<run.operations / count { try joinAll((0..<count).map { _ in spawn {} }) }
        }
    }
}

private func links(_ run: Run) throws {
    let linksEach = min(1_000, run.operations)
    var notified = 0
    try run.measure {
        for _ in 0..<run.operations / linksEach {
            let greenlet = Greenlet {}
            for _ in 0..<linksEach { greenlet.link { _ in notified += 1 } }
            greenlet.start()
            try greenlet.join()
            // The links are notified in order with everything else that is ready.
            try sleep()
        }
    }
    try expect(notified == run.operations, "\(notified) links were notified")
}

private func kills(_ hub: Hub, _ run: Run) throws {
    try needStacks(run.operations)
    let victims = (0..<run.operations).map { _ in spawn { try sleep(for: .seconds(3_600)) } }
    try sleep()
    try expect(hub.statistics.pendingTimers == victims.count, "not all sleep")
    try run.measure {
        for victim in victims { try victim.kill() }
    }
    try expect(hub.statistics.liveGreenlets <= 2, "a victim survived")
}

private func groupJoin(_ run: Run) throws {
    let size = min(1_000, run.operations)
    var ended = 0
    try run.measure {
        for _ in 0..<run.operations / size {
            try withGroup { group in
                for _ in 0..<size { group.spawn { ended += 1 } }
            }
        }
    }
    try expect(ended == run.operations, "a greenlet is missing")
}

/// Makes greenlets that wait at a gate, on their own stacks already, and run `body` once the gate is started.
private func parked(
    _ count: Int, _ body: @escaping () throws -> Void
) throws -> (gate: Greenlet<Void>, greenlets: [Greenlet<Void>]) {
    try needStacks(count)
    let gate = Greenlet {}
    let greenlets = (0..<count).map { _ in
        spawn {
            try gate.join()
            try body()
        }
    }
    try sleep()
    return (gate, greenlets)
}

func expect(_ condition: Bool, _ message: @autoclosure () -> String) throws {
    if !condition { throw CaseFailed(message()) }
}

/// Formats a number with thousands separators: 1,000,000.
func grouped(_ number: Int) -> String {
    var digits = Array(String(number))
    for place in stride(from: digits.count - 3, to: 0, by: -3) { digits.insert(",", at: place) }
    return String(digits)
}
