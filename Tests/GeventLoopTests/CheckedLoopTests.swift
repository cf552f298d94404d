import GeventLoop
import GeventTesting
import Glibc
import Testing

@Suite("The checked loop")
struct CheckedLoopTests {
    @Test("Each call is logged with the time, the loop and its result")
    func log() throws {
        var lines: [String] = []
        let loop = CheckedLoop(try VirtualLoop(), log: { lines.append($0) })
        var events = ReadyEvents()
        try loop.setInterest([], for: 7, generation: 3)
        try loop.poll(until: LoopInstant(nanoseconds: 5), into: &events)
        #expect(throws: LoopError.self) { try loop.setInterest(.read, for: -1, generation: 1) }
        loop.close()
        loop.close()
        let thread = lines.first?.split(separator: " ")[4].dropLast() ?? ""
        #expect(
            lines == [
                "[0.000000000 s] virtual thread \(thread): setInterest(none, for: 7, generation: 3)",
                "[0.000000005 s] virtual thread \(thread): poll(until: 0.000000005 s) appended nothing",
                "[0.000000005 s] virtual thread \(thread): setInterest(read, for: -1, generation: 1) threw "
                    + "setInterest on descriptor -1: the descriptor is not open: EBADF (Bad file descriptor)",
                "[0.000000005 s] virtual thread \(thread): close()",
                "[closed] virtual thread \(thread): close() again",
            ])
    }

    @Test("Events are logged with descriptor, generation and readiness")
    func logEvents() throws {
        var lines: [String] = []
        let loop = CheckedLoop(try VirtualLoop(), log: { lines.append($0) })
        defer { loop.close() }
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        try loop.setInterest(.write, for: ends[1], generation: 9)
        var events = ReadyEvents()
        try loop.poll(until: nil, into: &events)
        #expect(lines.last?.hasSuffix("poll(until: nil) appended \(ends[1]) (generation 9) write") == true)
    }

    @Test("Use after close ends the program and names the call")
    func afterClose() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let loop = CheckedLoop(StubLoop(), log: { _ in })
            loop.close()
            var events = ReadyEvents()
            try loop.poll(until: nil, into: &events)
        }
        let text = String(decoding: result.standardErrorContent, as: UTF8.self)
        #expect(text.contains("stub loop: poll(until: nil) was called after close()"))
    }

    @Test("Use on another thread ends the program and names the call")
    func otherThread() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            // The box circumvents the rule that this test breaks on purpose.
            struct Smuggled: @unchecked Sendable {
                // Invariant: none; the test checks that the loop detects the misuse.
                let loop: CheckedLoop<StubLoop>
            }
            let smuggled = Smuggled(loop: CheckedLoop(StubLoop(), log: { _ in }))
            smuggled.loop.waker.wake()
            onOtherThread { smuggled.loop.waker.wake() }
            onOtherThread { _ = smuggled.loop.now }
        }
        let text = String(decoding: result.standardErrorContent, as: UTF8.self)
        #expect(text.contains("stub loop: now was called on another thread; only the waker may be used there"))
    }

    @Test("The log is written to standard error by default")
    func standardError() async throws {
        let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
            let loop = CheckedLoop(StubLoop())
            try loop.setInterest(.read, for: 5, generation: 1)
        }
        let text = String(decoding: result.standardErrorContent, as: UTF8.self)
        #expect(text.contains(": setInterest(read, for: 5, generation: 1)\n"))
    }
}

private func onOtherThread(_ body: @escaping @Sendable () -> Void) {
    final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    pthread_create(
        &thread, nil,
        { argument in
            if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
            return nil
        }, Unmanaged.passRetained(Box(body)).toOpaque())
    pthread_join(thread, nil)
}
