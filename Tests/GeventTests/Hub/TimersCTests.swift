import CGevent
import Gevent
import Testing

/// A naive reference implementation: all timers in one sorted list.
private struct ReferenceTimers {
    struct Key: Comparable {
        let deadline: Int64
        let sequence: Int
        static func < (a: Key, b: Key) -> Bool { (a.deadline, a.sequence) < (b.deadline, b.sequence) }
    }

    private(set) var pending: [(key: Key, timer: Int)] = []
    private var keys: [Int: Key] = [:]
    private var next = 0

    func isPending(_ timer: Int) -> Bool { keys[timer] != nil }

    mutating func start(_ timer: Int, _ deadline: Int64) {
        let key = Key(deadline: deadline, sequence: next)
        next += 1
        keys[timer] = key
        pending.insert((key, timer), at: place(key))
    }

    mutating func cancel(_ timer: Int) {
        guard let key = keys.removeValue(forKey: timer) else { return }
        pending.remove(at: place(key))
    }

    mutating func popDue(_ now: Int64) -> Int? {
        guard let first = pending.first, first.key.deadline <= now else { return nil }
        pending.removeFirst()
        keys[first.timer] = nil
        return first.timer
    }

    private func place(_ key: Key) -> Int {
        var (low, high) = (0, pending.count)
        while low < high {
            let middle = (low + high) / 2
            if pending[middle].key < key { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

/// The timers under test, with their own memory.
private final class Wheel {
    let timers = UnsafeMutablePointer<gevent_timers>.allocate(capacity: 1)
    let pool: UnsafeMutablePointer<gevent_timer>
    let size: Int

    init(_ size: Int) {
        self.size = size
        pool = .allocate(capacity: size)
        pool.initialize(repeating: gevent_timer(), count: size)
        gevent_timers_init(timers)
    }

    deinit {
        gevent_timers_destroy(timers)
        timers.deallocate()
        pool.deallocate()
    }

    func start(_ timer: Int, _ deadline: Int64, now: Int64, referenced: Bool = true) {
        pool[timer].referenced = referenced
        gevent_timers_start(timers, pool + timer, deadline, now)
    }

    func cancel(_ timer: Int) { gevent_timers_cancel(timers, pool + timer) }

    func popDue(_ now: Int64) -> Int? { gevent_timers_pop_due(timers, now).map { $0 - pool } }

    func next(_ now: Int64) -> Int64 { gevent_timers_next(timers, now) }

    func nextTogether(_ now: Int64, slack: Int64) -> Int64 { gevent_timers_next_together(timers, now, slack) }

    func isPending(_ timer: Int) -> Bool { gevent_timer_is_pending(pool + timer) }

    func drain(_ now: Int64) -> [Int] {
        var due: [Int] = []
        while let timer = popDue(now) { due.append(timer) }
        return due
    }
}

@Suite("Timers in C")
struct TimersCTests {
    /// The kinds of deadlines: near, far, equal, extreme, past.
    private static func deadline(_ now: Int64, _ random: inout SeededNumbers) -> Int64 {
        let ahead: Int64
        switch Int.random(in: 0..<12, using: &random) {
        case 0: ahead = 0
        case 1: ahead = -Int64.random(in: 0...1_000_000_000, using: &random)
        case 2: ahead = Int64.random(in: 0..<1000, using: &random)
        case 3: ahead = Int64.random(in: 0..<10, using: &random) * 65_536
        case 4: ahead = Int64.random(in: 0..<200_000, using: &random)
        case 5: ahead = 1_000_000
        case 6: ahead = Int64.random(in: 0..<100_000_000, using: &random)
        case 7: ahead = 5_000_000_000
        case 8: ahead = Int64.random(in: 0..<100_000_000_000, using: &random)
        case 9: ahead = Int64.random(in: 0..<10_000_000_000_000_000, using: &random)
        case 10: ahead = 1 << Int64.random(in: 0..<62, using: &random)
        default: return Bool.random(using: &random) ? .max : .max - Int64.random(in: 0..<100_000, using: &random)
        }
        let (sum, overflows) = now.addingReportingOverflow(ahead)
        return overflows ? .max : sum
    }

    @Test(
        "With slack one wake serves all timers up to the last near one; an isolated timer is exact",
        arguments: 1...8)
    func together(seed: UInt64) {
        var random = SeededNumbers(seed: seed)
        let slack: Int64 = 500_000
        let size = [2, 8, 40, 400][Int(seed) % 4]
        let wheel = Wheel(size)
        var deadlines: [Int: Int64] = [:]
        var now: Int64 = 1_000_000_000
        var (exact, shared) = (0, 0)
        for _ in 0..<4000 {
            for timer in 0..<size where deadlines[timer] == nil && Bool.random(using: &random) {
                let deadline =
                    now + Int64.random(in: 1...[10_000, 1_000_000, 10_000_000][Int(seed) % 3], using: &random)
                wheel.start(timer, deadline, now: now)
                deadlines[timer] = deadline
            }
            guard let first = deadlines.values.min() else { continue }
            let together = deadlines.values.filter { $0 <= first + slack }
            let wake = wheel.nextTogether(now, slack: slack)
            #expect(wake >= first && wake <= first + slack)
            if together.count < 16 {
                #expect(wake == together.max())
                if wake == first { exact += 1 } else { shared += 1 }
            }
            #expect(wheel.nextTogether(now, slack: 0) == first)
            now = wake
            for timer in wheel.drain(now) {
                #expect(deadlines[timer]! <= now)
                deadlines[timer] = nil
            }
            #expect(deadlines.values.allSatisfy { $0 > now })
            if size > 2, Bool.random(using: &random), let timer = deadlines.keys.min() {
                wheel.cancel(timer)
                deadlines[timer] = nil
            }
        }
        if size <= 8 { #expect(exact + shared > 100) }
    }

    @Test("Any sequence of starts, cancels and advances matches a sorted list", arguments: [1, 2, 3, 4, 5, 6])
    func againstReference(seed: UInt64) {
        var random = SeededNumbers(seed: seed)
        let size = [4, 30, 300, 3000][Int(seed) % 4]
        let wheel = Wheel(size)
        var reference = ReferenceTimers()
        // Clocks do not start at zero; virtual ones do.
        var now: Int64 = seed.isMultiple(of: 2) ? 0 : Int64.random(in: 0..<1 << 50, using: &random)
        var mismatches = 0
        func check(_ condition: Bool) { if !condition { mismatches += 1 } }

        for _ in 0..<30_000 {
            let timer = Int.random(in: 0..<size, using: &random)
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                if reference.isPending(timer) {
                    wheel.cancel(timer)
                    reference.cancel(timer)
                }
                let deadline = Self.deadline(now, &random)
                wheel.start(timer, deadline, now: now, referenced: timer.isMultiple(of: 3))
                reference.start(timer, deadline)
            case 5..<7:
                wheel.cancel(timer)
                reference.cancel(timer)
            case 7:
                let next = wheel.next(now)
                let first = reference.pending.first?.key.deadline ?? .max
                // Never late; exact when near; and closer when read again at that time.
                check(next <= first)
                check(first == .max || next > now || first <= now || first - now < 20_000_000)
                if first != .max, first > now, first - now < 10_000_000 { check(next == first) }
            default:
                switch Int.random(in: 0..<4, using: &random) {
                case 0: break
                case 1: now += Int64.random(in: 0..<100_000, using: &random)
                case 2: now += Int64.random(in: 0..<1 << Int64.random(in: 1..<44, using: &random), using: &random)
                default:
                    // Like the hub: poll until the time that the timers return.
                    let next = wheel.next(now)
                    if next > now && next < Int64.max / 2 { now = next }
                }
                while true {
                    let (actual, expected) = (wheel.popDue(now), reference.popDue(now))
                    check(actual == expected)
                    guard let fired = actual, actual == expected else { break }
                    // Sometimes a firing timer starts another, or cancels one that is due as well.
                    switch Int.random(in: 0..<8, using: &random) {
                    case 0:
                        let deadline = Self.deadline(now, &random)
                        if deadline > now {
                            wheel.start(fired, deadline, now: now, referenced: fired.isMultiple(of: 3))
                            reference.start(fired, deadline)
                        }
                    case 1:
                        if let due = reference.pending.first?.timer {
                            wheel.cancel(due)
                            reference.cancel(due)
                        }
                    default: break
                    }
                }
            }
            check(wheel.timers.pointee.count == UInt64(reference.pending.count))
            check(wheel.isPending(timer) == reference.isPending(timer))
            if now > Int64.max / 2 { now = Int64.max / 2 }
            if mismatches > 10 { break }
        }
        #expect(mismatches == 0)
        let referenced = reference.pending.count { $0.timer.isMultiple(of: 3) }
        #expect(wheel.timers.pointee.referenced_count == UInt64(referenced))
        // The remaining timers fire in order at the end of time.
        #expect(wheel.drain(.max) == reference.pending.map(\.timer))
        #expect(wheel.timers.pointee.count == 0)
        #expect(wheel.timers.pointee.referenced_count == 0)
        #expect(wheel.next(now) == .max)
    }

    @Test("Equal deadlines fire in the order started, even if some were started long before the others")
    func equalDeadlines() {
        let wheel = Wheel(1000)
        let deadline: Int64 = 3_600_000_000_000
        var now: Int64 = 0
        for timer in 0..<1000 {
            wheel.start(timer, deadline, now: now)
            // Towards the deadline, the distance passes through every level of the wheel.
            now += (deadline - now) / 20
            #expect(wheel.popDue(now) == nil)
            _ = wheel.next(now)
        }
        #expect(wheel.drain(deadline - 1).isEmpty)
        #expect(wheel.drain(deadline) == Array(0..<1000))
    }

    @Test("Deadlines keep nanosecond precision")
    func nanoseconds() {
        let wheel = Wheel(100)
        for timer in 0..<100 { wheel.start(timer, 1_000_000_000 + Int64(timer), now: 0) }
        for timer in 0..<100 {
            #expect(wheel.drain(1_000_000_000 + Int64(timer)) == [timer])
        }
    }

    @Test(
        "next reaches the deadline in a few steps, never past it",
        arguments: [0, 1, 65_536, 1 << 40, Int64.max - 1, .max])
    func nextReachesDeadline(deadline: Int64) {
        let wheel = Wheel(1)
        wheel.start(0, deadline, now: 0)
        var now: Int64 = 0
        var steps = 0
        while wheel.popDue(now) == nil {
            let next = wheel.next(now)
            #expect(next > now && next <= deadline)
            now = next
            steps += 1
            if steps > 20 { break }
        }
        #expect(now == max(deadline, 0))
        #expect(steps <= 10)
    }

    @Test("A past deadline is due at once, even a negative one")
    func past() {
        let wheel = Wheel(3)
        let now: Int64 = 1 << 45
        wheel.start(0, now - 5, now: now)
        wheel.start(1, -5, now: now)
        wheel.start(2, .min, now: now)
        #expect(wheel.next(now) <= now)
        #expect(wheel.drain(now) == [2, 1, 0])
    }

    @Test("Without timers next is the end of time; cancelling an idle timer is harmless")
    func empty() {
        let wheel = Wheel(1)
        #expect(wheel.next(0) == .max)
        #expect(wheel.popDue(.max) == nil)
        wheel.cancel(0)
        wheel.start(0, 5, now: 0)
        wheel.cancel(0)
        wheel.cancel(0)
        #expect(!wheel.isPending(0))
        #expect(wheel.timers.pointee.count == 0)
        #expect(wheel.next(0) == .max)
    }

    @Test("A hundred thousand timers, most of them cancelled, the rest fire in order")
    func many() {
        let size = 100_000
        let wheel = Wheel(size)
        var random = SeededNumbers(seed: 11)
        var deadlines: [Int64] = []
        for timer in 0..<size {
            let deadline = Int64.random(in: 0..<60_000_000_000, using: &random)
            deadlines.append(deadline)
            wheel.start(timer, deadline, now: 0)
        }
        for timer in 0..<size where timer % 10 != 0 { wheel.cancel(timer) }
        var fired: [Int] = []
        var now: Int64 = 0
        while wheel.timers.pointee.count > 0 {
            now = wheel.next(now)
            fired += wheel.drain(now)
        }
        let expected = stride(from: 0, to: size, by: 10).sorted { (deadlines[$0], $0) < (deadlines[$1], $1) }
        #expect(fired == expected)
    }
}
