internal import GeventLoop
internal import Glibc

extension LoopConformance {
    /// The checks of lines 2 and 3: the contents of events, hang-up and error, and spurious readiness.
    static let eventChecks: [Check] = [
        Check(2, "an event carries the generation given at registration") { bench in
            let pipe = try bench.pipe()
            try bench.write(pipe.writeEnd)
            for generation: UInt32 in [0, 1, 7, 0x8000_0000, .max] {
                try bench.watch(pipe.readEnd, .read, generation: generation)
                try expectEqual(try bench.nextEvent(of: pipe.readEnd).generation, generation, "generation")
            }
        },
        Check(2, "a pipe whose writer has closed wakes a reader") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            bench.close(pipe.writeEnd)
            for _ in 0..<3 {
                let readiness = try bench.nextEvent(of: pipe.readEnd).readiness
                try expect(readiness.contains(.read), "readiness: \(readiness)")
            }
        },
        Check(2, "a pipe whose reader has closed wakes a writer, repeatedly") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.writeEnd, .write)
            bench.close(pipe.readEnd)
            for _ in 0..<3 {
                let readiness = try bench.nextEvent(of: pipe.writeEnd).readiness
                try expect(readiness.contains(.write), "readiness: \(readiness)")
            }
            try bench.watch(pipe.writeEnd, [])
            try bench.expectNoEvent(of: pipe.writeEnd, "its interest was removed")
        },
        Check(2, "a hang-up is reported as read and write") { bench in
            let (left, right) = try bench.socketPair()
            // The buffer is full, so that only the hang-up can make the socket writable.
            bench.fill(left)
            try bench.watch(left, [.read, .write])
            try bench.expectNoEvent(of: left, "there is nothing to read and no room to write")
            bench.close(right)
            for _ in 0..<3 {
                try expectEqual(try bench.nextEvent(of: left).readiness, [.read, .write], "readiness")
            }
        },
        Check(2, "an error is reported as read and write") { bench in
            let pipe = try bench.pipe()
            bench.fill(pipe.writeEnd)
            try bench.watch(pipe.writeEnd, [.read, .write])
            try bench.expectNoEvent(of: pipe.writeEnd, "the pipe is full")
            bench.close(pipe.readEnd)
            for _ in 0..<3 {
                try expectEqual(try bench.nextEvent(of: pipe.writeEnd).readiness, [.read, .write], "readiness")
            }
        },
        Check(2, "a hang-up wakes a writer") { bench in
            let (left, right) = try bench.socketPair()
            bench.fill(left)
            try bench.watch(left, .write)
            try bench.expectNoEvent(of: left, "its buffer is full")
            bench.close(right)
            let readiness = try bench.nextEvent(of: left).readiness
            try expect(readiness.contains(.write), "readiness: \(readiness)")
        },
        Check(2, "a refused connection wakes its waiter") { bench in
            let socket = try bench.refusedConnection()
            try bench.watch(socket, .write)
            let readiness = try bench.nextEvent(of: socket).readiness
            try expect(readiness.contains(.write), "readiness: \(readiness)")
        },
        Check(2, "a half-closed socket is readable and not hung up") { bench in
            let (left, right) = try bench.socketPair()
            try bench.watch(left, .read)
            try expectEqual(shutdown(right, CInt(SHUT_WR)), 0, "shutdown")
            try expectEqual(try bench.nextEvent(of: left).readiness, .read, "readiness")
        },
        Check(2, "descriptors that become ready in the order of their numbers are reported in that order") { bench in
            let pipes = try (0..<20).map { _ in try bench.pipe() }.sorted { $0.readEnd < $1.readEnd }
            for isWatchedBefore in [true, false] {
                for pipe in pipes where isWatchedBefore { try bench.watch(pipe.readEnd, .read) }
                // After this poll they are registered, even on a loop that registers during the poll.
                try bench.expectNoEvent(of: pipes[0].readEnd, "nothing was written")
                for pipe in pipes { try bench.write(pipe.writeEnd) }
                for pipe in pipes where !isWatchedBefore { try bench.watch(pipe.readEnd, .read) }
                let order = try bench.nextEvents().map(\.fileDescriptor)
                try expectEqual(order, pipes.map(\.readEnd), "descriptors of one poll")
                for pipe in pipes {
                    bench.drain(pipe.readEnd)
                    try bench.watch(pipe.readEnd, [])
                }
            }
        },
        Check(2, "a number that was closed and reused reports its new generation only") { bench in
            let number = bench.privateNumber()
            let first = try bench.pipe()
            try bench.move(first.readEnd, to: number)
            try bench.watch(number, .read, generation: 1)
            try bench.write(first.writeEnd)
            // An event of generation 1 is in the batch while the number is reused, as can happen in the core.
            let batch = try bench.nextEvents()
            try expectEqual(batch.map(\.generation), [1], "generations in the batch")
            try bench.watch(number, [])
            bench.close(number)
            let second = try bench.pipe()
            try bench.move(second.readEnd, to: number)
            try bench.watch(number, .read, generation: 2)
            try bench.expectNoEvent(of: number, "there is nothing to read in its new file")
            try bench.write(second.writeEnd)
            for _ in 0..<3 {
                try expectEqual(try bench.nextEvent(of: number).generation, 2, "generation after the reuse")
            }
        },
        Check(3, "after EAGAIN a waiter is notified again") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            for _ in 0..<3 {
                try bench.write(pipe.writeEnd)
                _ = try bench.nextEvent(of: pipe.readEnd)
                bench.drain(pipe.readEnd)
                var byte: UInt8 = 0
                try expectEqual(read(pipe.readEnd, &byte, 1), -1, "result of reading an empty pipe")
                try expectEqual(errno, EAGAIN, "errno of reading an empty pipe")
            }
        },
        Check(3, "urgent data causes spurious readiness at most") { bench in
            let (left, right) = try bench.connection()
            try bench.watch(left, .read)
            var byte: UInt8 = 1
            try expectEqual(send(right, &byte, 1, CInt(MSG_OOB)), 1, "urgent bytes sent")
            for _ in 0..<5 {
                for event in try bench.poll(until: bench.loop.now.advanced(by: .milliseconds(2))) {
                    try expectEqual(event.readiness, .read, "readiness")
                    try expectEqual(read(left, &byte, 1), -1, "result of reading only urgent data")
                    try expectEqual(errno, EAGAIN, "errno of reading only urgent data")
                }
            }
            try bench.write(right)
            repeat { _ = try bench.nextEvent(of: left) } while read(left, &byte, 1) < 0
        },
        Check(3, "an idle descriptor does not keep a poll from reaching its deadline") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            _ = try bench.nextEvent(of: pipe.readEnd)
            bench.drain(pipe.readEnd)
            let early = try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(20)))
            try expect(early <= 10, "\(early) polls returned early although nothing was ready")
        },
    ]
}
