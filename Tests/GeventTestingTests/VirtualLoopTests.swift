import GeventLoop
import GeventTesting
import Glibc
import Testing

@Suite("The virtual loop")
struct VirtualLoopTests {
    private func at(_ duration: Duration) -> LoopInstant {
        LoopInstant(nanoseconds: 0).advanced(by: duration)
    }

    @Test("Time starts at zero and jumps to the deadline when nothing is ready")
    func jumps() throws {
        let loop = try VirtualLoop()
        defer { loop.close() }
        var events = ReadyEvents()
        #expect(loop.now == at(.zero))
        try loop.poll(until: at(.seconds(86_400)), into: &events)
        #expect(loop.now == at(.seconds(86_400)))
        try loop.poll(until: at(.seconds(1)), into: &events)
        #expect(loop.now == at(.seconds(86_400)))
        #expect(events.count == 0)
    }

    @Test("Time does not move on an event or a wake")
    func doesNotJump() throws {
        let loop = try VirtualLoop()
        defer { loop.close() }
        var events = ReadyEvents()
        loop.waker.wake()
        try loop.poll(until: at(.seconds(5)), into: &events)
        #expect(loop.now == at(.zero))
        try loop.poll(until: at(.seconds(5)), into: &events)
        #expect(loop.now == at(.seconds(5)))
    }

    @Test("After a hundred polls, time passes even for a program that is never idle")
    func busy() throws {
        let loop = try VirtualLoop()
        defer { loop.close() }
        var events = ReadyEvents()
        for _ in 0..<VirtualLoop.busyPollLimit { try loop.poll(until: .distantPast, into: &events) }
        #expect(loop.now == at(.zero))
        for _ in 0..<3 { try loop.poll(until: .distantPast, into: &events) }
        #expect(loop.now == at(.microseconds(300)))
        // A poll that waits resets the count.
        try loop.poll(until: at(.milliseconds(1)), into: &events)
        for _ in 0..<VirtualLoop.busyPollLimit { try loop.poll(until: loop.now, into: &events) }
        #expect(loop.now == at(.milliseconds(1)))
    }

    @Test("Busy time stops at a future deadline")
    func busyClamp() throws {
        let loop = try VirtualLoop()
        defer { loop.close() }
        var events = ReadyEvents()
        for _ in 0...VirtualLoop.busyPollLimit {
            loop.waker.wake()
            try loop.poll(until: at(.microseconds(30)), into: &events)
        }
        #expect(loop.now == at(.microseconds(30)))
    }

    @Test("A manual clock moves only by advance(by:)")
    func manual() throws {
        let loop = try VirtualLoop(advancesAutomatically: false)
        defer { loop.close() }
        var events = ReadyEvents()
        for _ in 0..<300 { try loop.poll(until: .distantPast, into: &events) }
        loop.waker.wake()
        try loop.poll(until: at(.seconds(1)), into: &events)
        #expect(loop.now == at(.zero))
        loop.advance(by: .milliseconds(1500))
        #expect(loop.now == at(.milliseconds(1500)))
        try loop.poll(until: at(.seconds(1)), into: &events)
        #expect(loop.now == at(.milliseconds(1500)))
    }

    @Test("Readiness made by a test is reported until it is cleared, limited to the interest")
    func injection() throws {
        let loop = try VirtualLoop()
        defer { loop.close() }
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        let readEnd = ends[0]
        var events = ReadyEvents()
        loop.makeReady(readEnd, [.read, .write])
        try loop.setInterest(.read, for: readEnd, generation: 4)
        for _ in 0..<2 {
            events.removeAll()
            try loop.poll(until: at(.seconds(1)), into: &events)
            #expect(events.count == 1)
            #expect(events[0] == ReadyEvent(fileDescriptor: readEnd, generation: 4, readiness: .read))
        }
        loop.clearReady(readEnd)
        events.removeAll()
        try loop.poll(until: at(.seconds(1)), into: &events)
        #expect(events.count == 0)
        #expect(loop.now == at(.seconds(1)))
    }

    @Test("Removing the interest clears readiness made by a test")
    func injectionEnds() throws {
        let loop = try VirtualLoop()
        defer { loop.close() }
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        loop.makeReady(ends[0], .read)
        try loop.setInterest(.read, for: ends[0], generation: 1)
        try loop.setInterest([], for: ends[0], generation: 1)
        try loop.setInterest(.read, for: ends[0], generation: 2)
        var events = ReadyEvents()
        try loop.poll(until: at(.seconds(1)), into: &events)
        #expect(events.count == 0)
    }

    @Test("Events come in the order of their descriptors")
    func order() throws {
        let loop = try VirtualLoop()
        defer { loop.close() }
        var pipes: [[CInt]] = []
        defer { for end in pipes.joined() { close(end) } }
        for _ in 0..<10 {
            var ends: [CInt] = [-1, -1]
            try #require(pipe(&ends) == 0)
            pipes.append(ends)
        }
        for ends in pipes.reversed() { try loop.setInterest(.write, for: ends[1], generation: 0) }
        var events = ReadyEvents()
        try loop.poll(until: nil, into: &events)
        let reported = (0..<events.count).map { events[$0].fileDescriptor }
        #expect(reported == pipes.map { $0[1] }.sorted())
    }
}
