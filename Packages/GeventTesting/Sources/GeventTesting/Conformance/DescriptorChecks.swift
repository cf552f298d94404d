internal import GeventLoop
internal import Glibc

extension LoopConformance {
    /// The checks of line 7: bad descriptors are typed errors, and closing a watched descriptor is harmless.
    static let descriptorChecks: [Check] = [
        Check(7, "descriptor -1 is an error") { bench in
            try expectRejection(bench, -1, .badDescriptor)
            try expectRejection(bench, .min, .badDescriptor)
        },
        Check(7, "a number far beyond any descriptor is an error") { bench in
            try expectRejection(bench, .max, .badDescriptor)
        },
        Check(7, "a closed descriptor is an error") { bench in
            let number = bench.privateNumber()
            try bench.move(bench.pipe().readEnd, to: number)
            bench.close(number)
            try expectRejection(bench, number, .badDescriptor)
        },
        Check(7, "a regular file is an error") { bench in
            try expectRejection(bench, bench.open("/proc/self/exe"), .notPollable)
        },
        Check(7, "a directory is an error") { bench in
            try expectRejection(bench, bench.open("/"), .notPollable)
        },
        Check(7, "a device that is always ready is an error") { bench in
            try expectRejection(bench, bench.open("/dev/null"), .notPollable)
        },
        Check(7, "a descriptor opened with O_PATH is an error") { bench in
            try expectRejection(bench, bench.open("/", onlyNaming: true), .badDescriptor)
        },
        Check(7, "a descriptor that only the registration can reject is an error, immediately or later") {
            bench in
            // Epoll descriptors nested as deep as the kernel allows: no further one can watch the outermost.
            let pipe = try bench.pipe()
            var outermost = pipe.readEnd
            while let next = try bench.epoll(watching: outermost) { outermost = next }
            let number = outermost
            do throws(LoopError) {
                try bench.loop.setInterest(.read, for: number, generation: 1)
            } catch {
                return try expectEqual(error.errno, ELOOP, "errno of \"\(error)\"")
            }
            // A loop on poll(2) may be able to watch it.
            try bench.write(pipe.writeEnd)
            try expect(!bench.nextEvents().isEmpty, "it was neither rejected nor reported as ready or lost")
        },
        Check(7, "removing a descriptor that cannot be watched is harmless") { bench in
            for fileDescriptor in [CInt(-1), .min, .max, bench.privateNumber(), try bench.open("/")] {
                try bench.watch(fileDescriptor, [])
            }
        },
        Check(7, "the loop keeps working after an error") { bench in
            let pipe = try bench.pipe()
            try bench.watch(pipe.readEnd, .read)
            try expectRejection(bench, -1, .badDescriptor)
            try expectRejection(bench, bench.open("/"), .notPollable)
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
        Check(7, "closing a descriptor before the first poll is harmless") { bench in
            let number = bench.privateNumber()
            let other = try bench.pipe()
            try bench.watch(other.readEnd, .read)
            for keepsDuplicate in [false, true] {
                let pipe = try bench.pipe()
                try bench.write(pipe.writeEnd)
                if keepsDuplicate { _ = try bench.duplicate(pipe.readEnd) }
                try bench.move(pipe.readEnd, to: number)
                try bench.watch(number, .read)
                bench.close(number)
                // While a duplicate exists, the kernel may still report the file.
                for _ in 0..<5 { _ = try bench.poll(until: bench.loop.now.advanced(by: .milliseconds(1))) }
                try bench.watch(number, [])
                try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(2)))
            }
            try bench.write(other.writeEnd)
            _ = try bench.nextEvent(of: other.readEnd)
        },
        Check(7, "a watched number that is reused for a regular file is harmless") { bench in
            let number = bench.privateNumber()
            for isPolledBetween in [false, true] {
                try bench.move(bench.pipe().readEnd, to: number)
                try bench.watch(number, .read)
                if isPolledBetween { _ = try bench.poll(until: bench.loop.now) }
                // Closes the file that had this number.
                try bench.move(bench.open("/proc/self/exe"), to: number)
                try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(2)))
                try expectRejection(bench, number, .notPollable)
                try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(2)))
            }
        },
        Check(7, "a number that is reused with another interest is never rejected") { bench in
            let number = bench.privateNumber()
            for step in UInt32(1)...20 {
                let (left, right) = try bench.socketPair()
                try bench.move(left, to: number)
                try bench.watch(number, step % 3 == 0 ? [.read, .write] : .read, generation: step)
                try bench.write(right)
                try expectEqual(try bench.nextEvent(of: number).generation, step, "generation")
            }
        },
        Check(7, "watching a descriptor again after it was closed while watched is an error") { bench in
            let number = bench.privateNumber()
            try bench.move(bench.pipe().readEnd, to: number)
            try bench.watch(number, .read)
            bench.close(number)
            try expectRejection(bench, number, .badDescriptor)
        },
        Check(7, "closing a watched descriptor does not delay the deadline of a poll") { bench in
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
        Check(7, "a closed descriptor with a remaining duplicate does not make the loop spin") { bench in
            let number = bench.privateNumber()
            let pipe = try bench.pipe()
            _ = try bench.duplicate(pipe.readEnd)
            try bench.move(pipe.readEnd, to: number)
            try bench.watch(number, .read)
            try bench.write(pipe.writeEnd)
            bench.close(number)
            // The kernel still has the file under a number that can no longer remove it.
            try bench.watch(number, [])
            let other = try bench.pipe()
            try bench.watch(other.readEnd, .read, generation: 5)
            let early = try bench.countEarlyReturns(until: bench.loop.now.advanced(by: .milliseconds(20)))
            try expect(early <= 10, "\(early) polls returned early because of it")
            try bench.write(other.writeEnd)
            try expectEqual(try bench.nextEvent(of: other.readEnd).generation, 5, "generation of another descriptor")
        },
        Check(7, "a number whose former file is still open is watched for its new file only") { bench in
            let number = bench.privateNumber()
            let former = try bench.pipe()
            _ = try bench.duplicate(former.readEnd)
            try bench.move(former.readEnd, to: number)
            try bench.watch(number, .read, generation: 1)
            try bench.write(former.writeEnd)
            _ = try bench.nextEvent(of: number)
            // Without notice to the loop, which still gets the kernel's events of the former file.
            let current = try bench.pipe()
            try bench.move(current.readEnd, to: number)
            try bench.watch(number, .read, generation: 2)
            for _ in 0..<5 { _ = try bench.poll(until: bench.loop.now) }
            try bench.expectNoEvent(of: number, "there is nothing to read in its new file")
            try bench.write(current.writeEnd)
            try expectEqual(try bench.nextEvent(of: number).generation, 2, "generation")
        },
        Check(7, "a descriptor number above 1,024 works") { bench in
            let number = bench.privateNumber()
            let pipe = try bench.pipe()
            try bench.move(pipe.readEnd, to: number)
            try bench.watch(number, .read)
            try bench.write(pipe.writeEnd)
            _ = try bench.nextEvent(of: number)
        },
        Check(7, "a descriptor number above 65,535 works, or the highest that the system allows") { bench in
            try bench.withDescriptorLimit(70_000) { limit in
                let number = CInt(limit - 1)
                let pipe = try bench.pipe()
                try bench.move(pipe.readEnd, to: number)
                try bench.watch(number, .read, generation: 3)
                try bench.write(pipe.writeEnd)
                try expectEqual(try bench.nextEvent(of: number).generation, 3, "generation")
                try bench.watch(number, [])
                try bench.expectNoEvent(of: number, "its interest was removed")
                bench.close(number)
            }
        },
        Check(7, "descriptors 0, 1 and 2 can be watched") { bench in
            // In a child, because the process needs its own.
            try bench.inChild {
                let loop = try bench.makeLoop()
                var events = ReadyEvents()
                for number in CInt(0)...2 {
                    let pipe = try bench.pipe()
                    try bench.move(pipe.readEnd, to: number)
                    try loop.setInterest(.read, for: number, generation: 7)
                    try bench.write(pipe.writeEnd)
                    events.removeAll()
                    while events.isEmpty { try loop.poll(until: nil, into: &events) }
                    try expectEqual(
                        events[0], ReadyEvent(fileDescriptor: number, generation: 7, readiness: .read), "the event")
                    try loop.setInterest([], for: number, generation: 7)
                }
                loop.close()
            }
        },
    ]

    private static func expectRejection(_ bench: Workbench, _ fileDescriptor: CInt, _ code: LoopError.Code) throws {
        for interest in [Readiness.read, .write, [.read, .write]] {
            do throws(LoopError) {
                try bench.loop.setInterest(interest, for: fileDescriptor, generation: 1)
            } catch {
                try expectEqual(error.code, code, "code of \"\(error)\"")
                try expectEqual(error.fileDescriptor, fileDescriptor, "descriptor of \"\(error)\"")
                continue
            }
            throw CheckFailure("watching descriptor \(fileDescriptor) for \(interest) was not rejected")
        }
    }
}
