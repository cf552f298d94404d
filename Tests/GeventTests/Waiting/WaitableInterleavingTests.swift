import Gevent
import GeventTesting
import Testing

@testable import GeventCore

/// The objects of these tests: two queues and a semaphore.
private enum Resource: Int, CaseIterable { case first, second, permits }

/// The kinds of waits.
private enum Waiting {
    /// Takes from the first of these that has something.
    case takes([Resource], timeout: Bool)
    /// Gets from a single queue.
    case gets(Resource)
    /// Waits for that many of these, and takes nothing.
    case observes([Resource], count: Int)
}

/// The actions of the test between the waits and the end.
private enum Move: Int, CaseIterable {
    case putFirst, putSecond, release, killFirst, killLast, run, expire
}

private enum Ending: Hashable {
    case waits
    case took(Int, element: Int)
    case observed([Int])
    case timedOut
    case killed
}

/// The outcome of a sequence of moves according to the contract, without a hub: which waiter is chosen depends on the
/// moves alone, and not on when greenlets run.
private struct Contract {
    private(set) var endings: [Ending]
    private(set) var stored: [[Int]] = Resource.allCases.map { _ in [] }
    private let waitings: [Waiting]
    /// The waiters of each object, with the object's index among all that they wait for.
    private var lines: [[(greenlet: Int, place: Int)]] = Resource.allCases.map { _ in [] }
    private var observed: [[Int]]
    private var count = 0

    init(_ waitings: [Waiting]) {
        self.waitings = waitings
        endings = waitings.map { _ in .waits }
        observed = waitings.map { _ in [] }
        for (greenlet, waiting) in waitings.enumerated() {
            let things: [Resource] =
                switch waiting {
                case .takes(let things, _), .observes(let things, _): things
                case .gets(let thing): [thing]
                }
            for (place, thing) in things.enumerated() { lines[thing.rawValue].append((greenlet, place)) }
        }
    }

    mutating func make(_ move: Move) {
        switch move {
        case .putFirst: add(to: .first)
        case .putSecond: add(to: .second)
        case .release: add(to: .permits)
        case .killFirst: end(0, .killed)
        case .killLast: end(waitings.count - 1, .killed)
        case .run: break
        case .expire:
            for (greenlet, waiting) in waitings.enumerated() {
                if case .takes(_, true) = waiting { end(greenlet, .timedOut) }
            }
        }
    }

    private mutating func end(_ greenlet: Int, _ ending: Ending) {
        guard endings[greenlet] == .waits else { return }
        endings[greenlet] = ending
        for thing in lines.indices { lines[thing].removeAll { $0.greenlet == greenlet } }
    }

    private mutating func add(to thing: Resource) {
        count += 1
        while !lines[thing.rawValue].isEmpty {
            let (greenlet, place) = lines[thing.rawValue].removeFirst()
            if case .observes(_, let wanted) = waitings[greenlet] {
                observed[greenlet].append(place)
                if observed[greenlet].count == wanted { end(greenlet, .observed(observed[greenlet])) }
            } else {
                return end(greenlet, .took(place, element: thing == .permits ? 0 : count))
            }
        }
        stored[thing.rawValue].append(count)
    }
}

/// The same on the library.
private final class Run {
    private let queues = [SimpleQueue<Int>(), SimpleQueue<Int>()]
    private let semaphore = Semaphore(0)
    private(set) var endings: [Ending]
    private var greenlets: [Greenlet<Void>] = []
    private var count = 0

    init(_ waitings: [Waiting]) throws {
        endings = waitings.map { _ in .waits }
        for (number, waiting) in waitings.enumerated() {
            greenlets.append(
                spawn {
                    // A value that was handed over arrives even if a kill follows.
                    do { self.endings[number] = try self.wait(waiting) } catch is GreenletExit {
                        self.endings[number] = .killed
                    }
                })
        }
        try sleep()
    }

    private func wait(_ waiting: Waiting) throws -> Ending {
        switch waiting {
        case .gets(let thing): return .took(0, element: try queues[thing.rawValue].get())
        case .takes(let things, let hasTimeout):
            var taken = 0
            let cases = things.map { thing in
                thing == .permits
                    ? TakeCase(self.semaphore) {} : TakeCase(self.queues[thing.rawValue]) { taken = $0 }
            }
            let place = try takeFirst(of: cases, timeout: hasTimeout ? .seconds(1) : nil)
            return place.map { .took($0, element: taken) } ?? .timedOut
        case .observes(let things, let count):
            let objects = things.map { thing -> any Waitable in
                if thing == .permits { semaphore } else { queues[thing.rawValue] }
            }
            let ready = try Gevent.wait(objects, count: count)
            return .observed(ready.map { one in objects.firstIndex { $0 === one }! })
        }
    }

    func make(_ move: Move) throws {
        switch move {
        case .putFirst, .putSecond:
            count += 1
            try queues[move == .putFirst ? 0 : 1].put(count)
        case .release:
            count += 1
            semaphore.release()
        case .killFirst: try greenlets.first!.kill(blocking: false)
        case .killLast: try greenlets.last!.kill(blocking: false)
        case .run: try sleep()
        case .expire: try sleep(for: .seconds(2))
        }
    }

    /// Lets all greenlets run, and returns the remaining contents of the objects.
    func finish() throws -> [[Int]] {
        try sleep()
        try sleep()
        let stored = try queues.map { queue in
            #expect(queue.getters.isEmpty || queue.isEmpty)
            return try (0..<queue.count).map { _ in try queue.getNowait() }
        }
        let permits = semaphore.counter
        let seen = endings
        try killAll(greenlets)
        endings = seen
        #expect(queues.allSatisfy { $0.getters.isEmpty } && semaphore.linkCount == 0)
        return stored + [Array(repeating: 0, count: permits)]
    }
}

@Suite("Waiting for several objects: all interleavings")
struct WaitableInterleavings {
    /// Computed: as a constant, its storage would keep arrays alive where LeakSanitizer does not look for pointers.
    private static var crowds: [[Waiting]] {
        [
            [.takes([.first, .second, .permits], timeout: false), .takes([.second, .first], timeout: false)],
            [.takes([.first, .permits], timeout: true), .gets(.first), .takes([.permits, .second], timeout: true)],
            [.observes([.first, .permits], count: 2), .takes([.second, .first, .permits], timeout: false)],
            [
                .takes([.first, .second], timeout: true), .observes([.first, .second, .permits], count: 1),
                .gets(.second), .takes([.permits, .first, .first], timeout: false),
            ],
        ]
    }

    @Test(
        "Whatever the order, exactly one object hands a value to each waiter, and nothing is lost",
        arguments: 0..<crowds.count)
    func allOrders(crowd: Int) throws {
        try withHub { _ in
            let waitings = Self.crowds[crowd]
            let length = isSanitized ? 3 : 4
            var total = 1
            for _ in 0..<length { total *= Move.allCases.count }
            for number in 0..<total {
                var rest = number
                let moves = (0..<length).map { _ in
                    defer { rest /= Move.allCases.count }
                    return Move.allCases[rest % Move.allCases.count]
                }
                var contract = Contract(waitings)
                let run = try Run(waitings)
                for move in moves {
                    contract.make(move)
                    try run.make(move)
                }
                let stored = try run.finish()
                let expected = contract.stored.dropLast() + [contract.stored.last!.map { _ in 0 }]
                if run.endings == contract.endings && stored == Array(expected) { continue }
                Issue.record("\(moves): \(run.endings), left \(stored); not \(contract.endings), left \(expected)")
                return
            }
        }
    }
}
