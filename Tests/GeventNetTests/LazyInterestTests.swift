import Gevent
import GeventNet
import GeventTesting
import Testing

/// The number of registrations a connection needs.
@Suite struct LazyInterestTests {
    @Test func aConnectionThatTalksIsRegisteredOnce() throws {
        try withHub(on: .custom { try CountingLoop() }) { hub in
            // The hub polls after every few greenlets, so most of the woken ones have not run yet.
            hub.switchInterval = .zero
            let pairs = try (0..<300).map { _ in try Socket.pair() }
            let greenlets = pairs.flatMap { a, b in
                [
                    spawn {
                        for _ in 0..<10 {
                            try a.writeAll("x")
                            _ = try a.readExactly(1)
                        }
                    },
                    spawn {
                        for _ in 0..<10 {
                            _ = try b.read()
                            try b.writeAll("y")
                        }
                    },
                ]
            }
            for greenlet in greenlets { try greenlet.get() }
            #expect(CountingLoop.settings > 0)
            // Two sockets per pair, each registered at its first wait. A few may become ready again while no greenlet
            // waits.
            #expect(CountingLoop.settings < 3 * pairs.count)
        }
    }
}

/// Counts the registrations with the loop that `GEVENT_LOOP` selects.
private final class CountingLoop: Loop {
    // Tests run one at a time, on one thread.
    nonisolated(unsafe) static var settings = 0
    static let backendName = "counting"
    private let inner: any Loop

    init() throws {
        inner = try Gevent.configuration.resolve().makeLoop().loop
        Self.settings = 0
    }

    var now: LoopInstant { inner.now }
    var timerResolution: Duration { inner.timerResolution }
    var waker: any LoopWaker { inner.waker }

    func setInterest(_ interest: Readiness, for fileDescriptor: CInt, generation: UInt32) throws(LoopError) {
        if !interest.isEmpty { Self.settings += 1 }
        try inner.setInterest(interest, for: fileDescriptor, generation: generation)
    }

    func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        try inner.poll(until: deadline, into: &events)
    }

    func recoverAfterFork() throws(LoopError) { try inner.recoverAfterFork() }
    func close() { inner.close() }
}
