internal import GeventLoop
internal import Glibc

extension LoopConformance {
    /// Line 7: bad descriptors are typed errors, and closing a watched one does no harm.
    static let descriptorChecks: [Check] = [
        Check(7, "descriptor -1 is an error") { bench in
            try expectRefusal(bench, -1, .badDescriptor)
            try expectRefusal(bench, .min, .badDescriptor)
        },
        Check(7, "a number far beyond any descriptor is an error") { bench in
            try expectRefusal(bench, .max, .badDescriptor)
        },
        Check(7, "a closed descriptor is an error") { bench in
            let number = bench.privateNumber()
            try bench.move(bench.pipe().readEnd, to: number)
            bench.close(number)
            try expectRefusal(bench, number, .badDescriptor)
        },
        Check(7, "a regular file is an error") { bench in
            try expectRefusal(bench, bench.open("/proc/self/exe"), .notPollable)
        },
        Check(7, "a directory is an error") { bench in
            try expectRefusal(bench, bench.open("/"), .notPollable)
        },
        Check(7, "removing what could never be watched is harmless") { bench in
            for fileDescriptor in [CInt(-1), .min, .max, bench.privateNumber(), try bench.open("/")] {
                try bench.watch(fileDescriptor, [])
            }
        },
        Check(7, "after an error the loop works on") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try expectRefusal(bench, -1, .badDescriptor)
            try expectRefusal(bench, bench.open("/"), .notPollable)
            try bench.write(pipe.writeEnd)
            _ = try bench.nextEvent(of: pipe.readEnd)
        },
        Check(7, "a descriptor that was closed while watched can be removed") { bench in
            let number = bench.privateNumber()
            let pipe = try bench.pipe()
            try bench.move(pipe.readEnd, to: number)
            try bench.watch(number, .read)
            bench.close(number)
            try bench.watch(number, [])
            try bench.expectNoEvent(of: number, "it was closed and removed")
        },
        Check(7, "watching what was closed while watched is an error") { bench in
            let number = bench.privateNumber()
            try bench.move(bench.pipe().readEnd, to: number)
            try bench.watch(number, .read)
            bench.close(number)
            try expectRefusal(bench, number, .badDescriptor)
        },
        Check(7, "closing a watched descriptor does not keep a poll from its deadline") { bench in
            let number = bench.privateNumber()
            let pipe = try bench.pipe()
            try bench.move(pipe.readEnd, to: number)
            try bench.watch(number, .read)
            try bench.write(pipe.writeEnd)
            bench.close(number)
            try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(20)))
        },
        Check(7, "a number that was closed without being removed can be watched again") { bench in
            let number = bench.privateNumber()
            let first = try bench.pipe()
            try bench.move(first.readEnd, to: number)
            try bench.watch(number, .read, generation: 1)
            bench.close(number)
            let second = try bench.pipe()
            try bench.move(second.readEnd, to: number)
            try bench.watch(number, .read, generation: 2)
            try bench.write(second.writeEnd)
            try expectEqual(try bench.nextEvent(of: number).generation, 2, "generation")
        },
        Check(7, "a closed descriptor whose duplicate lives on does not spin the loop") { bench in
            let number = bench.privateNumber()
            let pipe = try bench.pipe()
            _ = try bench.duplicate(pipe.readEnd)
            try bench.move(pipe.readEnd, to: number)
            try bench.watch(number, .read)
            try bench.write(pipe.writeEnd)
            bench.close(number)
            // The kernel still has the file under a number that cannot take it out any more.
            try bench.watch(number, [])
            let other = try bench.pipe()
            try bench.watch(other.readEnd, .read, generation: 5)
            let early = try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(20)))
            try expect(early <= 10, "\(early) polls returned early on account of it")
            try bench.write(other.writeEnd)
            try expectEqual(try bench.nextEvent(of: other.readEnd).generation, 5, "generation of another descriptor")
        },
        Check(7, "a descriptor number above 1,024 works") { bench in
            let number = bench.privateNumber()
            let pipe = try bench.pipe()
            try bench.move(pipe.readEnd, to: number)
            try bench.watch(number, .read)
            try bench.write(pipe.writeEnd)
            _ = try bench.nextEvent(of: number)
        },
    ]

    private static func expectRefusal(_ bench: Workbench, _ fileDescriptor: CInt, _ code: LoopError.Code) throws {
        for interest in [Readiness.read, .write, [.read, .write]] {
            do throws(LoopError) {
                try bench.loop.setInterest(interest, for: fileDescriptor, generation: 1)
            } catch {
                try expectEqual(error.code, code, "code of \"\(error)\"")
                try expectEqual(error.fileDescriptor, fileDescriptor, "descriptor of \"\(error)\"")
                continue
            }
            throw CheckFailure("watching descriptor \(fileDescriptor) for \(interest) was not refused")
        }
    }
}
