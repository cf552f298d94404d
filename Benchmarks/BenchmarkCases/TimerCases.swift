internal import Gevent

let timerCases: [Case] = [
    timeouts(pending: 0),
    timeouts(pending: 1_000_000),
    manyTimers(starting: true),
    manyTimers(starting: false),
    // Processor time: while a sleep costs less than a tenth of a microsecond, wall time would show only the
    // millisecond.
    Case(
        "sleep-storm", "sleep for a millisecond, 10,000 greenlets, CPU per sleep", group: "timers",
        figure: .processor, reachesLoop: true, operations: 400_000, quickOperations: 100_000
    ) { _, run in
        let sleepers = 10_000
        let each = run.operations / sleepers
        let gate = Greenlet {}
        let greenlets = (0..<sleepers).map { _ in
            spawn {
                try gate.join()
                for _ in 0..<each { try sleep(for: .milliseconds(1)) }
            }
        }
        try sleep()
        try run.measure {
            gate.start()
            try joinAll(greenlets)
        }
    },
    Case(
        "timers-random", "timers at random moments, 100 a millisecond, CPU per timer", group: "timers",
        figure: .processor, reachesLoop: true, operations: 100_000, quickOperations: 10_000
    ) { _, run in try timersAtRandomMoments(run) },
    Case(
        "sleep-random", "greenlets sleep until random moments, 100 a millisecond, CPU per greenlet", group: "timers",
        figure: .processor, reachesLoop: true, operations: 100_000, quickOperations: 10_000
    ) { _, run in try sleepsUntilRandomMoments(run) },
]

/// A timeout that is made, started and cancelled while others are pending, like the timeout of a request.
private func timeouts(pending: Int) -> Case {
    Case(
        "timeout-\(pending)", "make, start and cancel a timeout, \(grouped(pending)) pending", group: "timers",
        operations: 1_000_000, quickOperations: 200_000
    ) { _, run in
        let others = (0..<pending).map { Timeout(.milliseconds(60_000 + $0 * 7 % 600_000)) }
        for timeout in others { timeout.start() }
        try run.measure {
            for _ in 0..<run.operations {
                let timeout = Timeout(.seconds(5))
                timeout.start()
                timeout.cancel()
            }
        }
        for timeout in others { timeout.cancel() }
    }
}

/// Many timeouts, each its own object: the cost of making and starting all of them, or of cancelling them.
private func manyTimers(starting: Bool) -> Case {
    Case(
        starting ? "timers-start" : "timers-cancel",
        starting
            ? "make and start a timeout, until 100,000 are pending"
            : "cancel a timeout, until 100,000 are not pending",
        group: "timers", operations: 100_000, quickOperations: 100_000
    ) { _, run in
        var timeouts: [Timeout] = []
        timeouts.reserveCapacity(run.operations)
        let startAll = {
            for index in 0..<run.operations {
                let timeout = Timeout(.milliseconds(60_000 + index * 7_919 % 600_000))
                timeout.start()
                timeouts.append(timeout)
            }
        }
        if starting { try run.measure(startAll) } else { startAll() }
        let cancelAll = { for timeout in timeouts { timeout.cancel() } }
        if starting { cancelAll() } else { try run.measure(cancelAll) }
    }
}

/// Delayed starts, which are timers without a running greenlet, from the first start until the last has fired. The hub
/// sleeps between the deadlines, so its polls are part of the cost.
private func timersAtRandomMoments(_ run: Run) throws {
    var moments = RandomMoments(count: run.operations)
    var fired = 0
    let last = Greenlet {}
    try run.measure {
        for _ in 0..<run.operations {
            spawn(after: moments.next()) {
                fired += 1
                if fired == run.operations { last.start() }
            }
        }
        try last.join()
    }
}

/// The same with greenlets that exist already. Each sleeps once and ends.
private func sleepsUntilRandomMoments(_ run: Run) throws {
    try needStacks(run.operations)
    var moments = RandomMoments(count: run.operations)
    let gate = Greenlet {}
    var woken = 0
    let last = Greenlet {}
    for _ in 0..<run.operations {
        let moment = moments.next()
        spawn {
            try gate.join()
            try sleep(for: moment)
            woken += 1
            if woken == run.operations { last.start() }
        }
    }
    try sleep()
    try run.measure {
        gate.start()
        try last.join()
    }
}

/// Random moments, uniformly distributed over a span with a hundred of them per millisecond. Each peer has the same
/// sequence.
private struct RandomMoments {
    private let span: UInt64
    private var state: UInt64 = 1

    /// - Parameter count: the number of moments.
    init(count: Int) { span = UInt64(count) * 10 }

    /// The first tenth of a second is reserved for starting all timers before one fires.
    mutating func next() -> Duration {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return .milliseconds(100) + .microseconds(Int(state >> 33) % Int(span))
    }
}
