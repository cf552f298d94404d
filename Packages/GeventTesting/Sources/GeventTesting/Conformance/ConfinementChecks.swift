internal import GeventLoop
internal import Synchronization

extension LoopConformance {
    /// The checks of line 9: confinement and closing. Traps on misuse cannot be checked inside a process; `CheckedLoop`
    /// implements them.
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
        Check(9, "two loops watch one descriptor independently") { bench in
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
        Check(9, "each thread can have its own loop") { bench in
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
        Check(9, "creating and closing loops does not leak descriptors") { bench in
            // A loop that leaks one descriptor each time reaches the limit, which is usually 1,024 and was raised to
            // 4,096.
            for _ in 0..<5000 { try bench.makeLoop().close() }
        },
    ]
}
