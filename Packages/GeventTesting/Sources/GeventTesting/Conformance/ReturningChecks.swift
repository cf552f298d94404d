internal import GeventLoop
internal import Glibc
internal import Synchronization

extension LoopConformance {
    /// The checks of line 4: the time of a poll's return.
    static let returningChecks: [Check] = [
        Check(4, "a deadline that has passed does not block") { bench in
            let start = realTime()
            for deadline in [
                .distantPast, LoopInstant(nanoseconds: 0), bench.loop.now, bench.loop.now.advanced(by: .seconds(-5)),
            ] {
                _ = try bench.poll(until: deadline)
            }
            try expect(realTime() - start < .seconds(5), "four polls took \(realTime() - start)")
        },
        Check(4, "a poll that does not block still reports ready descriptors") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            // More than one poll, because an early return is allowed.
            for _ in 0..<10 {
                if try !bench.poll(until: .distantPast).isEmpty { return }
            }
            throw CheckFailure("ten polls did not report a readable pipe")
        },
        Check(4, "a return at the deadline is never before it") { bench in
            // Odd fractions: a loop that rounds down, to micro- or milliseconds, returns early each time.
            var early = 0
            for step in 0..<20 {
                let wait = Duration.nanoseconds(1_000_001 + 137_731 * step)
                early += try bench.countEarlyReturns(until: bench.loop.now.advanced(by: wait))
            }
            try expect(early <= 5, "\(early) returns before 20 deadlines: they are rounded down")
        },
        Check(4, "a deadline one nanosecond ahead is reached") { bench in
            for _ in 0..<10 {
                let early = try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .nanoseconds(1)))
                try expect(early <= 1, "\(early) returns before a deadline one nanosecond ahead")
            }
        },
        Check(4, "a deadline is not missed by seconds") { bench in
            let start = realTime()
            _ = try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(10)))
            try expect(realTime() - start < .seconds(5), "10 ms took \(realTime() - start)")
        },
        Check(4, "an event ends a poll long before its deadline") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            let deadline = bench.loop.now.advanced(by: .seconds(3600))
            while try bench.poll(until: deadline).isEmpty {}
            try expect(bench.loop.now < deadline, "the clock is at \(bench.loop.now), the deadline was \(deadline)")
        },
        Check(4, "a poll without a deadline waits for a descriptor") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            let writer = CheckThread {
                pause(milliseconds: 20)
                writeByte(to: pipe.writeEnd)
            }
            defer { writer.join() }
            var found: [ReadyEvent] = []
            while found.isEmpty { found = try bench.poll(until: nil) }
            try expectEqual(found.map(\.fileDescriptor), [pipe.readEnd], "descriptors reported")
        },
        Check(4, "a deadline in the distant future counts as no deadline") { bench in
            let waker = bench.loop.waker
            let thread = CheckThread {
                pause(milliseconds: 20)
                waker.wake()
            }
            _ = try bench.poll(until: .distantFuture)
            thread.join()
        },
        Check(4, "a deadline in three hundred years does not overflow") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            let deadline = LoopInstant(nanoseconds: .max - 1)
            while try bench.poll(until: deadline).isEmpty {}
        },
        Check(4, "a thousand deadlines in a row do not drift") { bench in
            let start = bench.loop.now
            let realStart = realTime()
            let step = Duration.microseconds(200)
            var early = 0
            for number in 1...1000 {
                early += try bench.countEarlyReturns(until: start.advanced(by: step * number))
            }
            try expect(early <= 100, "\(early) returns before 1,000 deadlines")
            // A late return is allowed, because the machine may be busy; an accumulation of a thousand roundings is
            // not.
            let late = start.advanced(by: step * 1000).duration(to: bench.loop.now)
            try expect(late < .milliseconds(500), "the last of 1,000 deadlines was missed by \(late)")
            try expect(realTime() - realStart < .seconds(5), "1,000 times 200 us took \(realTime() - realStart)")
        },
        Check(4, "waiting without a deadline takes no processor time") { bench in
            let idle = try bench.pipe()
            try bench.watch(idle.readEnd, .read)
            // The timer of an earlier deadline must not end this wait.
            try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(1)))
            let waker = bench.loop.waker
            final class Flag: Sendable {
                let isSet = Atomic<Bool>(false)
            }
            let flag = Flag()
            let thread = CheckThread {
                pause(milliseconds: 100)
                flag.isSet.store(true, ordering: .releasing)
                waker.wake()
            }
            defer { thread.join() }
            let start = processorTime()
            var returns = 0
            while !flag.isSet.load(ordering: .acquiring) {
                _ = try bench.poll(until: nil)
                returns += 1
            }
            let spent = processorTime() - start
            try expect(spent < .milliseconds(50), "waiting for 100 ms took \(spent) of processor time")
            try expect(returns <= 10, "the poll returned \(returns) times")
        },
        Check(4, "an earlier deadline after a later one is kept") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            _ = try bench.poll(until: bench.loop.now.advanced(by: .seconds(3600)))
            bench.drain(pipe.readEnd)
            let start = realTime()
            try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(5)))
            try expect(realTime() - start < .seconds(5), "5 ms took \(realTime() - start)")
        },
        Check(4, "signals every 100 us neither break a poll nor delay its deadline") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            let storm = try SignalStorm()
            defer { storm.stop() }
            let start = realTime()
            var step = 0
            // On a loop whose time is virtual, fifty deadlines may pass before the first signal.
            while step < 50 || storm.count < 20 {
                step += 1
                try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(1)))
                if step % 10 == 0 {
                    try bench.write(pipe.writeEnd)
                    _ = try bench.nextEvent(of: pipe.readEnd)
                    bench.drain(pipe.readEnd)
                    bench.loop.waker.wake()
                    _ = try bench.poll(until: nil)
                }
            }
            try expect(realTime() - start < .seconds(5), "\(step) times 1 ms took \(realTime() - start)")
        },
        Check(4, "the clock never moves backwards") { bench in
            var last = bench.loop.now
            for _ in 0..<1000 {
                let now = bench.loop.now
                try expect(now >= last, "\(now) came after \(last)")
                last = now
                _ = try bench.poll(until: last)
            }
        },
        Check(4, "the timer resolution is positive and at most 20 ms") { bench in
            let resolution = bench.loop.timerResolution
            try expect(resolution > .zero && resolution <= .milliseconds(20), "it is \(resolution)")
        },
    ]

    /// The checks of line 5: a poll appends plain values.
    static let appendingChecks: [Check] = [
        Check(5, "a poll appends to the batch and keeps existing events") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read, generation: 3)
            try bench.write(pipe.writeEnd)
            let old = ReadyEvent(fileDescriptor: 12345, generation: 99, readiness: .write)
            var events = ReadyEvents(minimumCapacity: 1)
            events.append(old)
            for _ in 0..<10 where events.count == 1 {
                try bench.loop.poll(until: bench.loop.now.advanced(by: .milliseconds(100)), into: &events)
            }
            try expectEqual(events.count, 2, "events in the batch")
            try expectEqual(events[0], old, "the existing event")
            try expectEqual(
                events[1], ReadyEvent(fileDescriptor: pipe.readEnd, generation: 3, readiness: .read), "the new event")
        },
        Check(5, "1,000 descriptors ready at once are all reported") { bench in
            try expectAllReported(bench, 1000)
        },
        Check(5, "10,000 descriptors ready at once are all reported, each once per poll") { bench in
            try bench.withDescriptorLimit(10_500) { limit in
                // As many as the system allows, if that is fewer.
                try expectAllReported(bench, min(10_000, limit - 500))
            }
        },
    ]

    private static func expectAllReported(_ bench: Workbench, _ count: Int) throws {
        let pipe = try bench.pipe()
        try bench.write(pipe.writeEnd)
        var expected: Set<CInt> = []
        for _ in 0..<count {
            let fileDescriptor = try bench.duplicate(pipe.readEnd)
            try bench.watch(fileDescriptor, .read, generation: UInt32(fileDescriptor))
            expected.insert(fileDescriptor)
        }
        var seen: Set<CInt> = []
        for _ in 0..<100 where seen.count < expected.count {
            let found = try bench.poll(until: bench.loop.now.advanced(by: .milliseconds(10)))
            for event in found { try expectEqual(event.generation, UInt32(event.fileDescriptor), "generation") }
            let descriptors = Set(found.map(\.fileDescriptor))
            try expectEqual(descriptors.count, found.count, "different descriptors in one poll")
            seen.formUnion(descriptors)
        }
        try expectEqual(seen.count, expected.count, "descriptors reported in 100 polls")
        for fileDescriptor in expected {
            try bench.watch(fileDescriptor, [])
            bench.close(fileDescriptor)
        }
        try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(5)))
    }
}
