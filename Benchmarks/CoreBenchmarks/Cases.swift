import Gevent

/// One thing to measure: what it is called, how many operations one run makes, and the run itself, which is given a hub.
///
/// Whatever a run needs beforehand it makes before it calls `measure`.
struct Case: Sendable {
    let name: String
    let operations: Int
    let run: @Sendable (_ hub: Hub, _ measure: (() throws -> Void) throws -> Void) throws -> Void
}

/// The list: adding a case here is all it takes.
let cases: [Case] =
    [2, 100, 1_000, 10_000].map(yields)
    + [
        Case(name: "spawn and join, one at a time", operations: 100_000) { _, measure in
            try measure {
                for _ in 0..<100_000 { try spawn {}.join() }
            }
        },
        Case(name: "spawn and join, 1,000,000 at once", operations: 1_000_000) { _, measure in
            try measure {
                try joinAll((0..<1_000_000).map { _ in spawn {} })
            }
        },
        timers(pending: 0),
        timers(pending: 1_000_000),
        queue(of: 128),
        queue(of: 1),
        Case(name: "event, there and back", operations: 1_000_000) { _, measure in
            let (there, back) = (Event(), Event())
            let partner = spawn {
                for _ in 0..<1_000_000 {
                    try there.wait()
                    there.clear()
                    back.set()
                }
            }
            try measure {
                for _ in 0..<1_000_000 {
                    there.set()
                    try back.wait()
                    back.clear()
                }
            }
            try partner.join()
        },
        Case(name: "semaphore acquire and release", operations: 1_000_000) { _, measure in
            let semaphore = Semaphore()
            try measure {
                for _ in 0..<1_000_000 {
                    try semaphore.acquire()
                    semaphore.release()
                }
            }
        },
    ]

/// Greenlets that do nothing but yield.
private func yields(_ count: Int) -> Case {
    let operations = 4_000_000
    return Case(name: "yield, \(count) ready", operations: operations) { _, measure in
        let each = operations / count
        // All wait at the gate first: stacks are taken at the first run.
        let gate = Greenlet {}
        let greenlets = (0..<count).map { _ in
            spawn {
                try gate.join()
                for _ in 0..<each { try sleep() }
            }
        }
        try sleep()
        try measure {
            gate.start()
            try joinAll(greenlets)
        }
    }
}

/// Starting and cancelling one timeout while others are pending, as a request under a timeout does.
private func timers(pending: Int) -> Case {
    Case(name: "timeout start and cancel, \(pending) pending", operations: 1_000_000) { _, measure in
        let others = (0..<pending).map { Timeout(.milliseconds(60_000 + $0 * 7 % 600_000)) }
        for timeout in others { timeout.start() }
        let timeout = Timeout(.seconds(5))
        try measure {
            for _ in 0..<1_000_000 {
                timeout.start()
                timeout.cancel()
            }
        }
        for timeout in others { timeout.cancel() }
    }
}

/// One greenlet puts, another gets.
private func queue(of size: Int) -> Case {
    let operations = 4_000_000
    return Case(name: "queue of \(size), per item", operations: operations) { _, measure in
        let queue = Queue<Int>(maxSize: size)
        let gate = Greenlet {}
        let producer = spawn {
            try gate.join()
            for number in 0..<operations { try queue.put(number) }
        }
        let consumer = spawn { for _ in 0..<operations { _ = try queue.get() } }
        try sleep()
        try measure {
            gate.start()
            try joinAll([producer, consumer])
        }
    }
}
