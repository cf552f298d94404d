internal import GeventLoop
internal import Glibc
internal import Synchronization

extension LoopConformance {
    /// The checks of line 6: waking.
    static let wakingChecks: [Check] = [
        Check(6, "a wake before the poll ends it") { bench in
            bench.loop.waker.wake()
            _ = try bench.poll(until: nil)
        },
        Check(6, "a wake during the poll ends it") { bench in
            let waker = bench.loop.waker
            for _ in 0..<3 {
                let thread = CheckThread {
                    pause(milliseconds: 20)
                    waker.wake()
                }
                _ = try bench.poll(until: nil)
                thread.join()
            }
        },
        Check(6, "a wake is not an event") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            bench.loop.waker.wake()
            try expectEqual(try bench.poll(until: nil), [], "events")
        },
        Check(6, "a wake and an event can come together") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            bench.loop.waker.wake()
            _ = try bench.nextEvent(of: pipe.readEnd)
        },
        Check(6, "many wakes become few, and then the loop is quiet") { bench in
            for _ in 0..<10_000 { bench.loop.waker.wake() }
            _ = try bench.poll(until: nil)
            let early = try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(20)))
            try expect(early <= 100, "10,000 wakes made \(early) further polls return early")
        },
        Check(6, "each wake counts if there was a poll in between") { bench in
            for _ in 0..<1000 {
                bench.loop.waker.wake()
                _ = try bench.poll(until: nil)
            }
        },
        Check(6, "no wake of eight threads is lost") { bench in
            // After a lost wake the loop sleeps with the count incomplete, and the check does not finish.
            final class Count: Sendable {
                let value = Atomic<Int>(0)
            }
            let count = Count()
            let waker = bench.loop.waker
            let threads = (0..<8).map { _ in
                CheckThread {
                    for _ in 0..<500 {
                        count.value.wrappingAdd(1, ordering: .releasing)
                        waker.wake()
                    }
                }
            }
            while count.value.load(ordering: .acquiring) < 8 * 500 { _ = try bench.poll(until: nil) }
            for thread in threads { thread.join() }
        },
        Check(6, "the waker is always the same object") { bench in
            try expect(bench.loop.waker === bench.loop.waker, "two readings gave two objects")
        },
        Check(6, "a wake after close does nothing, not even to descriptors opened since") { bench in
            let waker = bench.loop.waker
            bench.closeLoop()
            // These get the descriptor numbers that the loop released.
            let pipes = try (0..<8).map { _ in try bench.pipe() }
            for _ in 0..<10 { waker.wake() }
            for pipe in pipes {
                var byte: UInt8 = 0
                try expectEqual(read(pipe.readEnd, &byte, 1), -1, "result of reading a pipe without data")
            }
        },
        Check(6, "threads may wake a loop while it closes") { bench in
            final class Flag: Sendable {
                let stop = Atomic<Bool>(false)
            }
            let flag = Flag()
            let waker = bench.loop.waker
            let threads = (0..<4).map { _ in
                CheckThread {
                    while !flag.stop.load(ordering: .relaxed) { waker.wake() }
                }
            }
            _ = try bench.poll(until: nil)
            bench.closeLoop()
            flag.stop.store(true, ordering: .relaxed)
            for thread in threads { thread.join() }
        },
    ]
}
