internal import GeventLoop
internal import Glibc

extension LoopConformance {
    /// The checks of line 1: interest replaces, the empty set removes, repeating is harmless, readiness is
    /// level-triggered.
    static let interestChecks: [Check] = [
        Check(1, "a readable pipe is reported for read") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            try expectEqual(try bench.nextEvent(of: pipe.readEnd).readiness, .read, "readiness")
        },
        Check(1, "a writable pipe is reported for write") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.writeEnd, .write)
            try expectEqual(try bench.nextEvent(of: pipe.writeEnd).readiness, .write, "readiness")
        },
        Check(1, "read and write are reported in one event") { bench in
            let (left, right) = try bench.socketPair()
            try bench.watch(left, [.read, .write])
            try bench.write(right)
            let found = try bench.nextEvents().filter { $0.fileDescriptor == left }
            try expectEqual(found.map(\.readiness), [[.read, .write]], "events")
        },
        Check(1, "only the readiness in the interest is reported") { bench in
            let (left, right) = try bench.socketPair()
            try bench.watch(left, .read)
            try bench.write(right)
            try expectEqual(
                try bench.nextEvent(of: left).readiness, .read, "readiness of a socket that is also writable")
        },
        Check(1, "readiness is reported again for as long as it lasts") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            for _ in 0..<3 { _ = try bench.nextEvent(of: pipe.readEnd) }
        },
        Check(1, "a new interest replaces the old one") { bench in
            let (left, right) = try bench.socketPair()
            try bench.watch(left, .write)
            _ = try bench.nextEvent(of: left)
            try bench.watch(left, .read)
            try bench.expectNoEvent(of: left, "write was replaced by read and there is nothing to read")
            try bench.write(right)
            try expectEqual(try bench.nextEvent(of: left).readiness, .read, "readiness")
            try bench.watch(left, .write)
            try expectEqual(try bench.nextEvent(of: left).readiness, .write, "readiness after replacing read by write")
        },
        Check(1, "the empty set removes") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            _ = try bench.nextEvent(of: pipe.readEnd)
            try bench.watch(pipe.readEnd, [])
            try bench.expectNoEvent(of: pipe.readEnd, "its interest was removed")
        },
        Check(1, "a removed descriptor does not report a hang-up") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try bench.watch(pipe.readEnd, [])
            bench.close(pipe.writeEnd)
            try bench.expectNoEvent(of: pipe.readEnd, "its interest was removed")
        },
        Check(1, "a removed descriptor can be watched again") { bench in
            let pipe = try bench.pipe()
            try bench.write(pipe.writeEnd)
            for generation in UInt32(1)...3 {
                try bench.watch(pipe.readEnd, .read, generation: generation)
                try expectEqual(try bench.nextEvent(of: pipe.readEnd).generation, generation, "generation")
                try bench.watch(pipe.readEnd, [])
            }
        },
        Check(1, "repeating an interest is harmless and makes one event") { bench in
            let pipe = try bench.pipe()
            for _ in 0..<3 { try bench.watch(pipe.readEnd, .read) }
            try bench.write(pipe.writeEnd)
            let found = try bench.nextEvents().filter { $0.fileDescriptor == pipe.readEnd }
            try expectEqual(found.count, 1, "events in one poll")
        },
        Check(1, "after a thousand changes of interest between polls the last one applies") { bench in
            let (left, right) = try bench.socketPair()
            for step in UInt32(0)..<1000 {
                try bench.watch(left, step % 2 == 0 ? .write : [.read, .write], generation: step)
                if step % 5 == 0 { try bench.watch(left, []) }
            }
            try bench.watch(left, .read, generation: 1000)
            try bench.expectNoEvent(of: left, "write is no longer watched and there is nothing to read")
            try bench.write(right)
            try expectEqual(
                try bench.nextEvent(of: left),
                ReadyEvent(fileDescriptor: left, generation: 1000, readiness: .read), "the event")
        },
        Check(1, "watching leaves a blocking file blocking") { bench in
            let pipe = try bench.pipe()
            let flags = fcntl(pipe.readEnd, F_GETFL)
            try expectEqual(fcntl(pipe.readEnd, F_SETFL, flags & ~O_NONBLOCK), 0, "result of F_SETFL")
            try bench.watch(pipe.readEnd, .read)
            try bench.write(pipe.writeEnd)
            _ = try bench.nextEvent(of: pipe.readEnd)
            try expectEqual(fcntl(pipe.readEnd, F_GETFL), flags & ~O_NONBLOCK, "flags of the file")
        },
        Check(1, "removing a descriptor that is not watched is harmless") { bench in
            let pipe = try bench.pipe()
            for _ in 0..<2 { try bench.watch(pipe.readEnd, []) }
            try bench.watch(pipe.readEnd, .read)
            for _ in 0..<2 { try bench.watch(pipe.readEnd, []) }
        },
        Check(1, "both ends of a pipe are watched independently") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read, generation: 1)
            try bench.watch(pipe.writeEnd, .write, generation: 2)
            try bench.write(pipe.writeEnd)
            var seen: [CInt: Readiness] = [:]
            while seen.count < 2 {
                let found = try bench.nextEvents()
                try expect(!found.isEmpty, "only these were reported: \(seen)")
                for event in found { seen[event.fileDescriptor] = event.readiness }
            }
            try expectEqual(seen, [pipe.readEnd: .read, pipe.writeEnd: .write], "events")
        },
    ]
}
