internal import Gevent

/// Cases with events, queues and semaphores: greenlets that wait for each other.
let objectCases: [Case] =
    [1, 128].map(queues)
    + [
        Case(
            "event-ping-pong", "two greenlets and two events, there and back", group: "greenlets",
            operations: 1_000_000, quickOperations: 100_000
        ) { _, run in try events(run) },
        Case(
            "semaphore", "acquire and release a free semaphore", group: "greenlets", operations: 4_000_000,
            quickOperations: 400_000
        ) { _, run in
            let semaphore = Semaphore()
            try run.measure {
                for _ in 0..<run.operations {
                    try semaphore.acquire()
                    semaphore.release()
                }
            }
        },
    ]

/// One greenlet puts, another gets.
private func queues(of size: Int) -> Case {
    Case(
        "queue-\(size)", "a queue of \(size), each element", group: "greenlets", operations: 4_000_000,
        quickOperations: 400_000
    ) { _, run in
        let queue = Queue<Int>(maxSize: size)
        let gate = Event()
        let producer = spawn {
            try gate.wait()
            for number in 0..<run.operations { try queue.put(number) }
        }
        var sum = 0
        let consumer = spawn { for _ in 0..<run.operations { sum &+= try queue.get() } }
        try sleep()
        try run.measure {
            gate.set()
            try joinAll([producer, consumer])
        }
        try expect(sum == run.operations * (run.operations - 1) / 2, "an element got lost")
    }
}

private func events(_ run: Run) throws {
    let (there, back) = (Event(), Event())
    let partner = spawn {
        for _ in 0..<run.operations {
            try there.wait()
            there.clear()
            back.set()
        }
    }
    try run.measure {
        for _ in 0..<run.operations {
            there.set()
            try back.wait()
            back.clear()
        }
    }
    try partner.join()
}
