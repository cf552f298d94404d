import CGevent
import CGeventSystem
import Gevent
import GeventTesting
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// Tests how late timers, descriptors and posts are when the hub is busy with other work.
@Suite("Pacing of the hub")
struct PacingTests {
    /// A greenlet that sleeps for a millisecond repeatedly, and its largest delay.
    ///
    /// On a real clock the delay is the CPU time that the hub's thread used from one wake to the next: the hub's work
    /// in between, independent of the load of the machine.
    private final class Ticker {
        private(set) var worst = Duration.zero
        private(set) var tickCount = 0
        private var greenlet: Greenlet<Void>?

        init(_ hub: Hub) {
            let isVirtual = hub.loop is VirtualLoop
            greenlet = spawn { [unowned self] in
                while true {
                    let due = hub.now.advanced(by: .milliseconds(1))
                    let before = gevent_thread_processor_time()
                    try sleep(for: .milliseconds(1))
                    let used = Duration.nanoseconds(gevent_thread_processor_time() - before)
                    worst = max(worst, isVirtual ? due.duration(to: hub.now) : used)
                    tickCount += 1
                }
            }
        }

        /// Discards the delays seen so far.
        func startAnew() { (worst, tickCount) = (.zero, 0) }

        func stop() throws { try greenlet?.kill() }
    }

    /// The smallest of up to three results. Stops early at a small one.
    private func best(under limit: Duration, _ attempt: () throws -> Duration) rethrows -> Duration {
        var best = try attempt()
        for _ in 0..<2 where best >= limit { best = min(best, try attempt()) }
        return best
    }

    // MARK: Slow greenlets

    @Test("Fifty greenlets that compute a millisecond between yields delay a timer by the switch interval, not a round")
    func computingYielders() throws {
        try withHub { hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            let yielders = (0..<50).map { _ in
                spawn {
                    while true {
                        loop.advance(by: .milliseconds(1))
                        try sleep()
                    }
                }
            }
            let ticker = Ticker(hub)
            try sleep(for: .seconds(1))
            #expect(ticker.tickCount > 100)
            #expect(ticker.worst <= .milliseconds(8))
            try ticker.stop()
            try killAll(yielders)
        }
    }

    @Test("Slow greenlets among many quick ones are detected too, once they have been slow before")
    func mixedYielders() throws {
        try withHub { hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            let quick = (0..<300).map { _ in spawn { while true { try sleep() } } }
            let slow = (0..<50).map { _ in
                spawn {
                    while true {
                        loop.advance(by: .milliseconds(1))
                        try sleep()
                    }
                }
            }
            let ticker = Ticker(hub)
            try sleep(for: .milliseconds(200))
            ticker.startAnew()
            try sleep(for: .seconds(1))
            #expect(ticker.tickCount > 100)
            #expect(ticker.worst <= .milliseconds(10))
            try ticker.stop()
            try killAll(quick + slow)
        }
    }

    @Test("The hub checks the clock after each slow greenlet, after 128 quick ones, and relearns the pace each time")
    func clockPace() {
        func checks(_ pace: inout ClockPace, turns: Int, nanosecondsEach: Int64) -> [Int] {
            var checks: [Int] = []
            var left = turns
            pace.begin()
            while left > 0 {
                let count = min(pace.count, left)
                checks.append(count)
                left -= count
                pace.looked(turns: count, elapsed: Int64(count) * nanosecondsEach, tolerance: 1000)
            }
            pace.end()
            return checks
        }
        var pace = ClockPace()
        #expect(checks(&pace, turns: 511, nanosecondsEach: 1) == [1, 2, 4, 8, 16, 32, 64, 128, 128, 128])
        #expect(checks(&pace, turns: 13, nanosecondsEach: 300) == [1, 2, 4, 3, 3])
        #expect(checks(&pace, turns: 7, nanosecondsEach: 300) == [1, 2, 3, 1])
        #expect(checks(&pace, turns: 3, nanosecondsEach: 5000) == [1, 1, 1])
        #expect(checks(&pace, turns: 5, nanosecondsEach: 1) == [1, 1, 1, 1, 1])
        #expect(checks(&pace, turns: 5, nanosecondsEach: 1) == [1, 2, 2])
        for _ in 0..<6 { _ = checks(&pace, turns: 5, nanosecondsEach: 1) }
        #expect(checks(&pace, turns: 255, nanosecondsEach: 1) == [1, 2, 4, 8, 16, 32, 64, 128])
    }

    // MARK: Greenlets woken by timers

    @Test(
        "A greenlet woken by a timer runs before the ready ones; those of several timers run in order of their deadlines"
    )
    func timersFirst() throws {
        let log = try logged { log, hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            // The hub checks the timers after each greenlet.
            hub.switchInterval = .zero
            for number in 1...3 {
                spawn {
                    try sleep(for: .milliseconds(4 - number))
                    log.note("slept \(4 - number)")
                }
            }
            spawn(after: .milliseconds(2)) { log.note("delayed 2") }
            let spinners = (0..<3).map { number in
                spawn {
                    for _ in 0..<3 {
                        loop.advance(by: .milliseconds(5))
                        log.note("spinner \(number)")
                        try sleep()
                    }
                }
            }
            try joinAll(spinners)
        }
        // All timers are due after the first greenlet.
        #expect(log.prefix(6) == ["spinner 0", "slept 1", "delayed 2", "slept 2", "slept 3", "spinner 1"])
    }

    @Test("Greenlets that compute at each timer wake leave half of the time to those that yield")
    func timersDoNotStarve() throws {
        try withHub { hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            var slept = 0
            var yielded = 0
            let sleepers = (0..<20).map { _ in
                spawn {
                    while true {
                        try sleep(for: .milliseconds(1))
                        loop.advance(by: .milliseconds(1))
                        slept += 1
                    }
                }
            }
            let yielders = (0..<3).map { _ in
                spawn {
                    while true {
                        loop.advance(by: .milliseconds(1))
                        yielded += 1
                        try sleep()
                    }
                }
            }
            try sleep(for: .seconds(2))
            #expect(slept > 600)
            #expect(yielded > 600)
            try killAll(sleepers + yielders)
        }
    }

    @Test("Waiters of an event set earlier keep their position, even if timers put other greenlets first")
    func earlierWakingsAreKnown() throws {
        let log = try logged { log, hub in
            let loop = try #require(hub.loop as? VirtualLoop)
            // The hub checks the timers after each greenlet.
            hub.switchInterval = .zero
            let event = Event()
            let waiters = (0..<2).map { _ in spawn { try event.wait() } }
            for number in 0..<2 {
                spawn {
                    try sleep(for: .milliseconds(1))
                    log.note("\(number) woke")
                    try event.wait()
                    log.note("\(number) found it set")
                }
            }
            try sleep()
            event.set()
            spawn {
                // The waiters have run, and timers are due at the hub's next check.
                loop.advance(by: .milliseconds(10))
                try sleep()
                log.note("yielded")
            }
            try joinAll(waiters)
            try sleep(for: .milliseconds(20))
        }
        #expect(log == ["0 woke", "0 found it set", "1 woke", "1 found it set", "yielded"])
    }

    // MARK: Posts

    @Test("A flood of posts delays a timer by little more than the switch interval, and runs in order")
    func floodOfPosts() throws {
        try withHub { hub in
            let loop = Smuggled(try #require(hub.loop as? VirtualLoop))
            final class Order { var numbers: [Int] = [] }
            let order = Smuggled(Order())
            let ticker = Ticker(hub)
            try sleep(for: .milliseconds(1))
            for number in 0..<5000 {
                #expect(
                    hub.handle.post {
                        loop.value.advance(by: .microseconds(100))
                        order.value.numbers.append(number)
                    })
            }
            #expect(hub.statistics.waitingPosts == 5000)
            let before = hub.statistics.postCount
            while hub.statistics.waitingPosts > 0 { try sleep(for: .milliseconds(1)) }
            #expect(ticker.tickCount > 50)
            #expect(ticker.worst <= .milliseconds(8))
            #expect(order.value.numbers == Array(0..<5000))
            #expect(hub.statistics.postCount == before)
            try ticker.stop()
        }
    }

    @Test("Threads that post continuously delay a ticker by less than 20 ms")
    func threadsThatPost() throws {
        let worst = try best(under: .milliseconds(20)) {
            try withHub(on: .configured) { hub in
                let handle = hub.handle
                let over = Counter()
                let ticker = Ticker(hub)
                let posters = (0..<2).map { _ in
                    TestThread {
                        while over.count == 0 { for _ in 0..<100 { _ = handle.post(limit: 200_000) {} } }
                    }
                }
                try sleep(for: .milliseconds(300))
                over.add()
                for poster in posters { poster.join() }
                let worst = ticker.worst
                while hub.statistics.waitingPosts > 0 { try sleep(for: .milliseconds(1)) }
                try ticker.stop()
                return worst
            }
        }
        #expect(worst < .milliseconds(20))
    }

    @Test("A post with a limit is refused once as many jobs wait, and accepted again when they have run")
    func limitedPosts() throws {
        let log = try logged { log, hub in
            let handle = hub.handle
            log.note("\((0..<3).map { _ in handle.post(limit: 2) {} })")
            // Posts without a limit are accepted, but count.
            log.note(
                "\(handle.post {}) \(handle.post(limit: 3) {}) \(handle.post(limit: 4) {}) \(handle.post(limit: 0) {})")
            log.note("\(hub.statistics.waitingPosts) of \(hub.statistics.postCount)")
            try sleep()
            log.note("\(hub.statistics.waitingPosts) of \(hub.statistics.postCount), \(handle.post(limit: 1) {})")
            try sleep()
        }
        #expect(log == ["[true, true, false]", "true false true false", "4 of 4", "0 of 4, true"])
    }

    @Test("Captures of a job are released when the job has run, not at the end of a burst")
    func jobsAreReleased() throws {
        let log = try logged { log, hub in
            let box = Smuggled(log)
            for number in 0..<3 {
                let witness = Smuggled(Witness { box.value.note("\(number) released") })
                hub.handle.post { withExtendedLifetime(witness) { box.value.note("\(number) runs") } }
            }
            try sleep()
            try sleep()
        }
        #expect(log == ["0 runs", "0 released", "1 runs", "1 released", "2 runs", "2 released"])
    }

    // MARK: Timer slack

    @Test("Timers at random moments share wakes; none is early, and each is late by at most the slack")
    func timersTogether() throws {
        try withHub(on: .configured) { hub in
            #expect(hub.timerSlack == 500_000)
            var random = SeededNumbers(seed: 1)
            let before = hub.statistics.pollCount
            var early = 0
            let sleepers = (0..<4000).map { _ in
                let length = Duration.microseconds(Int.random(in: 20_000..<220_000, using: &random))
                return spawn {
                    let due = hub.now.advanced(by: length)
                    try sleep(for: length)
                    if hub.now < due { early += 1 }
                }
            }
            try joinAll(sleepers)
            #expect(early == 0)
            // Without slack nearly every timer would have its own wake, 20 per millisecond.
            #expect(hub.statistics.pollCount - before < 1000)
        }
    }

    @Test("On virtual time every timer is exact, however close the others are")
    func virtualTimers() throws {
        let times = try withHub { hub in
            var times: [Int64] = []
            let sleepers = (1...40).map { number in
                spawn {
                    try sleep(for: .microseconds(10 * number))
                    times.append(hub.now.nanoseconds)
                }
            }
            try joinAll(sleepers)
            return times
        }
        #expect(times == (1...40).map { 10_000 * Int64($0) })
    }

    // MARK: Many descriptors

    /// Keeps the thread busy.
    private static func compute(_ length: Duration, _ hub: Hub) {
        let end = hub.now.advanced(by: length)
        while hub.now < end {}
    }

    @Test("A ticker stays on time next to hundreds of ready descriptors whose greenlets compute")
    func crowd() throws {
        let count = 400
        let rounds = 3
        let worst = try best(under: .milliseconds(20)) {
            try withHub(on: .configured) { hub in
                let pipes = try (0..<count).map { _ in try Pipe() }
                for pipe in pipes { for _ in 0..<rounds { pipe.write() } }
                let ticker = Ticker(hub)
                let readers = pipes.map { pipe in
                    spawn {
                        for _ in 0..<rounds {
                            try waitRead(pipe.readEnd)
                            PacingTests.compute(.microseconds(100), hub)
                            pipe.read(1)
                        }
                    }
                }
                try joinAll(readers)
                try ticker.stop()
                return ticker.worst
            }
        }
        #expect(worst < .milliseconds(20))
    }

    @Test("A late event does not end a wait that started after the poll")
    func lateEvents() throws {
        let log = try logged(on: .configured) { log, hub in
            // More than the hub delivers at a time.
            let pipes = try (0..<400).map { _ in try Pipe() }
            for pipe in pipes { pipe.write() }
            let last = pipes[399]
            var isFirst = true
            var others: [Greenlet<Void>] = []
            let waiter = spawn { try waitRead(last.readEnd) }
            for pipe in pipes.dropLast() {
                others.append(
                    spawn {
                        try waitRead(pipe.readEnd)
                        guard isFirst else { return }
                        isFirst = false
                        // Reads the data that the other greenlet was about to read.
                        try waiter.kill()
                        last.read()
                        spawn {
                            do {
                                try waitRead(last.readEnd, timeout: .milliseconds(20))
                                log.note("woken for nothing")
                            } catch is Timeout {
                                log.note("timed out")
                            }
                        }
                    })
            }
            try joinAll(others)
            _ = try hub.join()
        }
        #expect(log == ["timed out"])
    }
}
