import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Waiting for descriptors")
struct DescriptorWaitTests {
    @Test("A reader parks until data arrives, a writer until the buffer has room", arguments: bothLoops)
    func readAndWrite(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let pipe = try Pipe()
            let reader = spawn {
                try waitRead(pipe.readEnd)
                log.note("read \(pipe.read())")
            }
            try sleep()
            log.note("write")
            pipe.write(3)
            try reader.join()
            pipe.fill()
            let writer = spawn {
                try waitWrite(pipe.writeEnd)
                log.note("writable")
            }
            try sleep()
            log.note("drain")
            while pipe.read() > 0 {}
            try writer.join()
            // A descriptor that is already ready costs one check.
            try waitWrite(pipe.writeEnd)
        }
        #expect(log == ["write", "read 3", "drain", "writable"])
    }

    @Test("Bytes pass through a pipe in order, whichever end is faster", arguments: bothLoops)
    func stream(loop: TestLoop) throws {
        let total = 1 << 20
        let received = try withHub(on: loop) { _ in
            let pipe = try Pipe()
            let writer = spawn {
                let chunk = [UInt8](repeating: 1, count: 10_000)
                var left = total
                while left > 0 {
                    let written = write(pipe.writeEnd, chunk, min(left, chunk.count))
                    if written > 0 { left -= written } else { try waitWrite(pipe.writeEnd) }
                }
                pipe.closeWriteEnd()
            }
            var received = 0
            while true {
                let count = pipe.read(4096)
                if count == 0 { break }
                if count > 0 { received += count } else { try waitRead(pipe.readEnd) }
            }
            try writer.join()
            return received
        }
        #expect(received == total)
    }

    @Test("Greenlets whose descriptors become ready between two polls are resumed in order of readiness, on every loop")
    func order() throws {
        let log = try logged(on: .configured) { log, _ in
            let pipes = try (0..<20).map { _ in try Pipe() }
            let order = (0..<20).map { $0 * 7 % 20 }
            let readers = pipes.enumerated().map { index, pipe in
                spawn {
                    try waitRead(pipe.readEnd)
                    log.note("\(index)")
                }
            }
            // All of them are registered with the kernel.
            try sleep(for: .milliseconds(1))
            for index in order { pipes[index].write() }
            try joinAll(readers)
            log.note("\(order.map(String.init))")
        }
        #expect(log.dropLast().description == log.last)
    }

    @Test("A bad descriptor throws and costs no memory", arguments: bothLoops, [CInt.max, 0x4000_0000, -1, .min])
    func badDescriptor(loop: TestLoop, number: CInt) throws {
        try withHub(on: loop) { hub in
            let before = residentBytes()
            for call in [
                { try waitRead(number) }, { try waitWrite(number) }, { try waitRead(number, timeout: .seconds(1)) },
                { try waitWrite(number, timeout: .zero) },
                { _ = try WatchedDescriptor(number).waitReadable(timeout: .seconds(1)) },
            ] as [() throws -> Void] {
                let error = thrownError(call) as? LoopError
                #expect(error?.code == .badDescriptor)
                #expect(error?.errno == EBADF)
                #expect(error?.fileDescriptor == number)
            }
            #expect(residentBytes() - before < 4 << 20)
            #expect(hub.statistics.descriptorWaiters == 0)
        }
    }

    @Test(
        "End of stream and a closed reader wake the waiter, whose own system call reports the condition",
        arguments: bothLoops)
    func hangUp(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let pipe = try Pipe()
            let reader = spawn {
                try waitRead(pipe.readEnd)
                log.note("read \(pipe.read())")
            }
            try sleep()
            pipe.closeWriteEnd()
            try reader.join()
            let full = try Pipe()
            full.fill()
            let writer = spawn {
                try waitWrite(full.writeEnd)
                log.note("woken")
            }
            try sleep()
            full.closeReadEnd()
            try writer.join()
        }
        #expect(log == ["read 0", "woken"])
    }

    @Test(
        "A second reader of a descriptor throws concurrentUse; one reader and one writer may wait at once",
        arguments: bothLoops)
    func concurrentUse(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            var ends: [CInt] = [-1, -1]
            try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &ends) == 0)
            let (near, far) = (ends[0], ends[1])
            defer { for end in [near, far] { close(end) } }
            let reader = spawn {
                try waitRead(near)
                log.note("readable")
            }
            try sleep()
            log.note("\(hubErrorCode { try waitRead(near) } == .concurrentUse)")
            log.note("\(hubErrorCode { try waitRead(near, timeout: .seconds(1)) } == .concurrentUse)")
            try waitWrite(near)
            log.note("writable")
            var byte: UInt8 = 1
            _ = write(far, &byte, 1)
            try reader.join()
            // Another greenlet may wait again.
            try waitRead(near)
        }
        #expect(log == ["true", "true", "writable", "readable"])
    }

    @Test(
        "Waiting on descriptor -1, a closed descriptor or a regular file throws and does not crash",
        arguments: bothLoops)
    func badDescriptors(loop: TestLoop) throws {
        @Sendable func code(_ body: () throws -> Void) -> LoopError.Code? {
            do { try body() } catch { return (error as? LoopError)?.code }
            return nil
        }
        try withHub(on: loop) { hub in
            let pipe = try Pipe()
            let file = open("/proc/self/maps", O_RDONLY)
            let regular = openTemporaryFile()
            defer { for descriptor in [file, regular] { close(descriptor) } }
            let closed = pipe.readEnd
            pipe.closeReadEnd()
            for descriptor in [-1, -7, CInt.min, closed, 100_000] {
                #expect(code { try waitRead(descriptor) } == .badDescriptor)
                #expect(code { try waitWrite(descriptor) } == .badDescriptor)
                #expect(code { try waitRead(descriptor, timeout: .seconds(1)) } == .badDescriptor)
                #expect(code { try waitRead(descriptor, timeout: .zero) } == .badDescriptor)
            }
            #expect(code { try waitRead(regular) } == .notPollable)
            #expect(hub.statistics.descriptorWaiters == 0)
            #expect(hub.statistics.pendingTimers == 0)
            try sleep(for: .milliseconds(1))
        }
    }

    @Test("A wait with a timeout throws Timeout or the given error, and leaves nothing behind", arguments: bothLoops)
    func timeouts(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let pipe = try Pipe()
            pipe.fill()
            let empty = try Pipe()
            log.outcome("read") { try waitRead(empty.readEnd, timeout: .milliseconds(1)) }
            log.outcome("write") { try waitWrite(pipe.writeEnd, timeout: .milliseconds(1)) }
            log.outcome("own error") { try waitRead(empty.readEnd, timeout: .milliseconds(1), throwing: Boom()) }
            log.outcome("zero") { try waitRead(empty.readEnd, timeout: .zero) }
            log.outcome("zero, ready") { try waitRead(pipe.readEnd, timeout: .zero) }
            log.outcome("foreign") {
                try withTimeout(.milliseconds(1), throwing: Boom("foreign")) { _ in try waitRead(empty.readEnd) }
            }
            #expect(hub.statistics.pendingTimers == 0 && hub.statistics.descriptorWaiters == 0)
            empty.write()
            try waitRead(empty.readEnd, timeout: .seconds(1000))
            #expect(hub.statistics.pendingTimers == 0)
        }
        #expect(
            log == [
                "read: threw 0.001 seconds", "write: threw 0.001 seconds", "own error: threw Boom",
                "zero: threw 0 seconds", "zero, ready: returned", "foreign: threw foreign",
            ])
    }

    @Test("WatchedDescriptor returns whether it became ready or timed out", arguments: bothLoops)
    func watchedResults(loop: TestLoop) throws {
        try withHub(on: loop) { _ in
            let pipe = try Pipe()
            let reader = try WatchedDescriptor(dup(pipe.readEnd))
            let writer = try WatchedDescriptor(dup(pipe.writeEnd))
            try #expect(!reader.waitReadable(timeout: .milliseconds(1)))
            try #expect(!reader.waitReadable(timeout: .zero))
            try #expect(writer.waitWritable())
            try #expect(writer.waitWritable(timeout: .zero))
            pipe.write()
            try #expect(reader.waitReadable())
            try #expect(reader.waitReadable(timeout: .seconds(1000)))
        }
    }

    @Test(
        "Closing a descriptor in another greenlet resumes its waiters with EBADF, and every later wait throws it too",
        arguments: bothLoops)
    func closedWhileWaiting(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            var ends: [CInt] = [-1, -1]
            try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &ends) == 0)
            defer { close(ends[1]) }
            fillSocket(ends[0])
            let watched = try WatchedDescriptor(ends[0])
            func wait(_ name: String, _ body: @escaping () throws -> Bool) -> Greenlet<Void> {
                spawn {
                    do { _ = try body() } catch let error as LoopError {
                        log.note("\(name) \(error.errno == EBADF) \(error.code)")
                    }
                }
            }
            let waiters = [
                wait("reader") { try watched.waitReadable() },
                wait("writer") { try watched.waitWritable(timeout: .seconds(1000)) },
            ]
            try sleep()
            #expect(hub.statistics.descriptorWaiters == 2)
            try watched.close()
            try watched.close()
            #expect(watched.fileDescriptor == -1)
            try joinAll(waiters)
            try wait("later") { try watched.waitReadable() }.join()
            #expect(hub.statistics.descriptorWaiters == 0 && hub.statistics.pendingTimers == 0)
        }
        #expect(log == ["reader true closed", "writer true closed", "later true badDescriptor"])
    }

    @Test("A descriptor number that was closed and reopened is a new descriptor", arguments: bothLoops)
    func reusedNumber(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            for round in 0..<3 {
                let pipe = try Pipe()
                let other = try Pipe()
                let watched = try WatchedDescriptor(dup(pipe.readEnd))
                let number = watched.fileDescriptor
                log.note("\(try watched.waitReadable(timeout: .milliseconds(1)))")
                pipe.write()
                log.note("\(try watched.waitReadable())")
                if round == 1 { try watched.close() } else { close(try watched.detach()) }
                // The old interest must be dropped: the same number now waits for something else.
                let reopened = try WatchedDescriptor(dup(other.readEnd))
                #expect(reopened.fileDescriptor == number)
                log.note("\(try reopened.waitReadable(timeout: .milliseconds(1)))")
                other.write()
                log.note("\(try reopened.waitReadable())")
            }
        }
        #expect(log == (0..<3).flatMap { _ in ["false", "true", "false", "true"] })
    }

    @Test("An event of a closed descriptor wakes no waiter of a new one with the same number")
    func staleEvent() throws {
        let log = try logged(on: .custom { CountingLoop(try VirtualLoop()) }) { log, hub in
            let loop = try #require(hub.loop as? CountingLoop)
            let pipe = try Pipe()
            let watched = try WatchedDescriptor(dup(pipe.readEnd))
            let number = watched.fileDescriptor
            _ = try watched.waitReadable(timeout: .milliseconds(1))
            let generation = loop.lastGeneration
            try watched.close()
            let reopened = try WatchedDescriptor(dup(pipe.readEnd))
            #expect(reopened.fileDescriptor == number)
            loop.injected = [ReadyEvent(fileDescriptor: number, generation: generation, readiness: .read)]
            log.note("\(try reopened.waitReadable(timeout: .milliseconds(1)))")
            // An event of the new descriptor does.
            loop.injected = [ReadyEvent(fileDescriptor: number, generation: loop.lastGeneration, readiness: .read)]
            log.note("\(try reopened.waitReadable(timeout: .milliseconds(1)))")
        }
        #expect(log == ["false", "true"])
    }

    @Test("Interest is lazy: a connection that waits repeatedly is registered once")
    func lazyInterest() throws {
        let calls = try withHub(on: .custom { CountingLoop(try VirtualLoop()) }) { hub in
            let loop = try #require(hub.loop as? CountingLoop)
            let pipe = try Pipe()
            let watched = try WatchedDescriptor(dup(pipe.readEnd))
            for _ in 0..<100 {
                let writer = spawn { pipe.write() }
                try #expect(watched.waitReadable())
                pipe.read()
                try writer.join()
            }
            let calls = loop.interestCalls
            // Data without a waiter is reported once. Then the interest is dropped.
            pipe.write()
            try sleep(for: .seconds(1))
            try sleep(for: .seconds(1))
            #expect(loop.interestCalls == calls + 1)
            // The next wait sets it again.
            try #expect(watched.waitReadable())
            #expect(loop.interestCalls == calls + 2)
            return calls
        }
        #expect(calls == 1)
    }

    @Test("waitRead leaves no interest behind, so the descriptor's owner may close it", arguments: bothLoops)
    func noInterestLeft(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            for _ in 0..<3 {
                let pipe = try Pipe()
                pipe.write()
                try waitRead(pipe.readEnd)
                let number = pipe.readEnd
                pipe.closeReadEnd()
                let other = try Pipe()
                try #require(dup2(other.readEnd, number) == number)
                defer { close(number) }
                log.outcome("other") { try waitRead(number, timeout: .milliseconds(1)) }
                other.write()
                log.outcome("other") { try waitRead(number) }
            }
        }
        #expect(log == (0..<3).flatMap { _ in ["other: threw 0.001 seconds", "other: returned"] })
    }

    @Test("A killed waiter unregisters, and readiness that came with the kill is not lost", arguments: bothLoops)
    func killedWaiter(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let pipe = try Pipe()
            let victim = spawn { try waitRead(pipe.readEnd) }
            try sleep()
            pipe.write()
            try victim.kill()
            #expect(hub.statistics.descriptorWaiters == 0)
            let next = spawn {
                try waitRead(pipe.readEnd)
                log.note("read \(pipe.read())")
            }
            try next.join()
        }
        #expect(log == ["read 1"])
    }

    @Test("A thousand pipes at once", arguments: bothLoops)
    func thousandPipes(loop: TestLoop) throws {
        // Each needs two descriptors; the usual soft limit is 1024.
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = min(limit.rlim_max, max(limit.rlim_cur, 4096))
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        let before = openDescriptorCount()
        let sum = try withHub(on: loop) { hub in
            let pipes = try (0..<1000).map { _ in try Pipe() }
            let readers = pipes.map { pipe in
                spawn {
                    try waitRead(pipe.readEnd)
                    return pipe.read()
                }
            }
            try sleep()
            #expect(hub.statistics.descriptorWaiters == 1000)
            for pipe in pipes.reversed() { pipe.write(2) }
            return try readers.map { try $0.get() }.reduce(0, +)
        }
        #expect(sum == 2000)
        #expect(openDescriptorCount() == before)
    }

    @Test("The last reference to a WatchedDescriptor closes it")
    func closedByTheLastReference() throws {
        let before = openDescriptorCount()
        try withHub(on: .configured) { _ in
            let pipe = try Pipe()
            let inside = openDescriptorCount()
            do {
                let watched = try WatchedDescriptor(dup(pipe.readEnd))
                _ = try watched.waitReadable(timeout: .milliseconds(1))
                #expect(openDescriptorCount() == inside + 1)
            }
            #expect(openDescriptorCount() == inside)
        }
        #expect(openDescriptorCount() == before)
    }
}

private func openTemporaryFile() -> CInt {
    let directory = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    return open(directory, unnamedFile | O_RDWR, 0o600)
}

/// glibc's O_TMPFILE, which Swift does not import.
private let unnamedFile: CInt = 0o20000000 | O_DIRECTORY

private func fillSocket(_ descriptor: CInt) {
    _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    let bytes = [UInt8](repeating: 7, count: 4096)
    while write(descriptor, bytes, bytes.count) > 0 {}
}

/// Forwards every call, counts how often interest is set, and reports events that a test injects.
final class CountingLoop: Loop {
    static var backendName: String { "counting" }
    private let inner: VirtualLoop
    private(set) var interestCalls = 0
    private(set) var lastGeneration: UInt32 = 0
    /// Additional events for the next poll to report.
    var injected: [ReadyEvent] = []

    init(_ inner: VirtualLoop) { self.inner = inner }

    var now: LoopInstant { inner.now }
    var timerResolution: Duration { inner.timerResolution }
    var waker: any LoopWaker { inner.waker }

    func setInterest(_ interest: Readiness, for fileDescriptor: CInt, generation: UInt32) throws(LoopError) {
        interestCalls += 1
        lastGeneration = generation
        try inner.setInterest(interest, for: fileDescriptor, generation: generation)
    }

    func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        for event in injected { events.append(event) }
        try inner.poll(until: injected.isEmpty ? deadline : .distantPast, into: &events)
        injected = []
    }

    func recoverAfterFork() throws(LoopError) { try inner.recoverAfterFork() }
    func close() { inner.close() }
}
