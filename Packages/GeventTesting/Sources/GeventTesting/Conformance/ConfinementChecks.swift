internal import GeventLoop
internal import Synchronization

extension LoopConformance {
    /// Line 9: confinement and closing. That misuse traps cannot be checked from inside; `CheckedLoop` does.
    static let confinementChecks: [Check] = [
        Check(9, "closing twice is harmless") { bench in
            bench.closeLoop()
            bench.loop.close()
        },
        Check(9, "closing leaves watched descriptors open") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            bench.closeLoop()
            try bench.write(pipe.writeEnd)
        },
        Check(9, "two loops watch one descriptor without knowing of each other") { bench in
            let other = try bench.makeLoop()
            defer { other.close() }
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read, generation: 1)
            try other.setInterest(.read, for: pipe.readEnd, generation: 2)
            try bench.write(pipe.writeEnd)
            try expectEqual(try bench.nextEvent(of: pipe.readEnd).generation, 1, "generation")
            try other.setInterest([], for: pipe.readEnd, generation: 2)
            other.waker.wake()
            try expectEqual(try bench.nextEvent(of: pipe.readEnd).generation, 1, "generation")
        },
        Check(9, "each thread can have a loop of its own") { bench in
            let makeLoop = bench.makeLoop
            final class Failures: Sendable {
                let list = Mutex<[String]>([])
            }
            let failures = Failures()
            let threads = (0..<4).map { _ in
                CheckThread {
                    do {
                        let loop = try makeLoop()
                        loop.waker.wake()
                        var events = ReadyEvents()
                        try loop.poll(until: nil, into: &events)
                        loop.close()
                    } catch {  // control: a loop's check runs no greenlets
                        failures.list.withLock { $0.append("\(error)") }
                    }
                }
            }
            for thread in threads { thread.join() }
            try expectEqual(failures.list.withLock { $0 }, [], "failures")
        },
        Check(9, "making and closing loops does not use descriptors up") { bench in
            // Whoever loses one per loop runs into the limit, which is usually 1,024 and was raised to 4,096.
            for _ in 0..<5000 { try bench.makeLoop().close() }
        },
    ]
}
