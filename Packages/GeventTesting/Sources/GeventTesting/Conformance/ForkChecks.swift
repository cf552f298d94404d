internal import GeventLoop

extension LoopConformance {
    /// The checks of line 8: fork.
    static let forkChecks: [Check] = [
        Check(8, "in a child the loop works and has no registrations") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read, generation: 1)
            try bench.write(pipe.writeEnd)
            try bench.inChild {
                try bench.loop.recoverAfterFork()
                try bench.expectNoEvent(of: pipe.readEnd, "it was registered by the parent")
                try bench.watch(pipe.readEnd, .read, generation: 2)
                try expectEqual(try bench.nextEvent(of: pipe.readEnd).generation, 2, "generation")
            }
        },
        Check(8, "the clock continues in a child") { bench in
            let before = bench.loop.now
            try bench.inChild {
                try bench.loop.recoverAfterFork()
                try expect(bench.loop.now >= before, "\(bench.loop.now) in the child came after \(before)")
                try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(5)))
            }
        },
        Check(8, "a child's use of its loop does not affect the parent's") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read, generation: 1)
            try bench.inChild {
                try bench.loop.recoverAfterFork()
                try bench.watch(pipe.readEnd, .write, generation: 2)
                try bench.watch(pipe.readEnd, [])
                bench.closeLoop()
            }
            try bench.write(pipe.writeEnd)
            try expectEqual(
                try bench.nextEvent(of: pipe.readEnd),
                ReadyEvent(fileDescriptor: pipe.readEnd, generation: 1, readiness: .read), "the parent's event")
        },
        Check(8, "a child that only exits does not affect the parent's loop") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read, generation: 1)
            try bench.inChild {}
            try bench.write(pipe.writeEnd)
            _ = try bench.nextEvent(of: pipe.readEnd)
        },
        Check(8, "parent and child both continue at the same time") { bench in
            let shared = try bench.pipe()
            try bench.watch(shared.writeEnd, .write, generation: 1)
            _ = try bench.nextEvent(of: shared.writeEnd)
            @Sendable func continueRun(_ bench: Workbench, generation: UInt32) throws {
                let own = try bench.pipe()
                try bench.watch(own.readEnd, .read, generation: generation)
                for _ in 0..<20 {
                    try bench.write(own.writeEnd)
                    repeat {
                        let event = try bench.nextEvents().first { $0.fileDescriptor == own.readEnd }
                        if let event { try expectEqual(event.generation, generation, "generation") }
                    } while !bench.drain(own.readEnd)
                    bench.loop.waker.wake()
                    _ = try bench.poll(until: nil)
                    try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(1)))
                }
            }
            try bench.inChild(
                {
                    try bench.loop.recoverAfterFork()
                    try continueRun(bench, generation: 2)
                },
                meanwhile: {
                    try bench.watch(shared.writeEnd, [])
                    try continueRun(bench, generation: 3)
                })
            try bench.watch(shared.writeEnd, .write, generation: 4)
            try expectEqual(try bench.nextEvent(of: shared.writeEnd).generation, 4, "generation in the parent")
        },
        Check(8, "a child of a child recovers as well") { bench in
            let pipe = try bench.pipe()
            try bench.write(pipe.writeEnd)
            try bench.inChild {
                try bench.loop.recoverAfterFork()
                try bench.watch(pipe.readEnd, .read, generation: 1)
                _ = try bench.nextEvent(of: pipe.readEnd)
                try bench.inChild {
                    try bench.loop.recoverAfterFork()
                    try bench.expectNoEvent(of: pipe.readEnd, "it was registered by the parent")
                    try bench.watch(pipe.readEnd, .read, generation: 2)
                    try expectEqual(try bench.nextEvent(of: pipe.readEnd).generation, 2, "generation")
                }
                try expectEqual(try bench.nextEvent(of: pipe.readEnd).generation, 1, "generation")
            }
        },
        Check(8, "closing a loop in a child, recovered or not, does not affect the parent's") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read, generation: 1)
            try bench.inChild {
                try bench.loop.recoverAfterFork()
                bench.closeLoop()
            }
            try bench.inChild { bench.closeLoop() }
            try bench.write(pipe.writeEnd)
            _ = try bench.nextEvent(of: pipe.readEnd)
            bench.loop.waker.wake()
            _ = try bench.poll(until: nil)
        },
        Check(8, "a waker from before the fork wakes the child") { bench in
            let waker = bench.loop.waker
            try bench.inChild {
                try bench.loop.recoverAfterFork()
                try expect(bench.loop.waker === waker, "the waker is another object after the fork")
                // The wake comes before the poll and not from a thread during it, because ThreadSanitizer ends a
                // process that starts threads after a fork with several threads.
                for _ in 0..<3 {
                    waker.wake()
                    _ = try bench.poll(until: nil)
                }
            }
        },
        Check(8, "a wake in the child does not wake the parent") { bench in
            let waker = bench.loop.waker
            var disturbed = 0
            for _ in 0..<5 {
                try bench.inChild {
                    try bench.loop.recoverAfterFork()
                    waker.wake()
                }
                let early = try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(5)))
                if early > 0 { disturbed += 1 }
            }
            // A single early return is allowed.
            try expect(disturbed < 5, "each of 5 wakes in a child ended a poll of the parent")
        },
        Check(8, "recovering twice has the same effect as once") { bench in
            let pipe = try bench.pipe()
            try bench.write(pipe.writeEnd)
            try bench.inChild {
                try bench.loop.recoverAfterFork()
                try bench.watch(pipe.readEnd, .read, generation: 1)
                try bench.loop.recoverAfterFork()
                try bench.expectNoEvent(of: pipe.readEnd, "the loop was recovered again")
                try bench.watch(pipe.readEnd, .read, generation: 2)
                _ = try bench.nextEvent(of: pipe.readEnd)
                bench.loop.waker.wake()
                _ = try bench.poll(until: nil)
            }
        },
    ]
}
