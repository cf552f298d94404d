import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Queues")
struct QueueTests {
    @Test("Elements are returned in the order in which they were put, also when the ring wraps and grows")
    func firstInFirstOut() throws {
        try withHub { hub in
            let queue = SimpleQueue<Int>()
            var (put, got) = (0, 0)
            let before = hub.statistics.switchCount
            for round in 0..<200 {
                for _ in 0..<(round % 37) {
                    try queue.put(put)
                    put += 1
                }
                for _ in 0..<(round % 31) where !queue.isEmpty {
                    try #expect(queue.get() == got)
                    got += 1
                }
                #expect(queue.count == put - got)
            }
            #expect(queue.count > 16)
            while !queue.isEmpty {
                try #expect(queue.getNowait() == got)
                got += 1
            }
            #expect(put == got && hub.statistics.switchCount == before)
        }
    }

    @Test("A producer and a consumer of different speeds pass all elements, at any size", arguments: [nil, 1, 2, 128])
    func producerAndConsumer(maxSize: Int?) throws {
        try withHub { _ in
            let queue = SimpleQueue<Int>(maxSize: maxSize)
            let producers = (0..<3).map { producer in
                spawn {
                    for number in 0..<500 {
                        try queue.put(producer * 1000 + number)
                        if number % (producer + 2) == 0 { try sleep() }
                    }
                }
            }
            let consumers = (0..<2).map { consumer in
                spawn {
                    var got: [Int] = []
                    while let number = try queue.next() {
                        got.append(number)
                        if number % (consumer + 3) == 0 { try sleep() }
                        if let maxSize { #expect(queue.count <= maxSize) }
                    }
                    return got
                }
            }
            try joinAll(producers)
            queue.shutdown()
            let all = try consumers.map { try $0.get() }
            let expected = (0..<3).flatMap { producer in (0..<500).map { producer * 1000 + $0 } }
            #expect(all.joined().sorted() == expected)
            // Each consumer gets the elements of one producer in that producer's order.
            for got in all {
                for producer in 0..<3 {
                    let part = got.filter { $0 / 1000 == producer }
                    #expect(part == part.sorted())
                }
            }
        }
    }

    @Test("Without blocking, put and get throw at once, without a switch")
    func notBlocking() throws {
        try withHub { hub in
            let queue = SimpleQueue<Int>(maxSize: 1)
            let before = hub.statistics.switchCount
            #expect(throws: QueueError.empty) { try queue.get(blocking: false) }
            #expect(throws: QueueError.empty) { try queue.getNowait() }
            #expect(throws: QueueError.empty) { try queue.get(timeout: .zero) }
            #expect(throws: QueueError.empty) { try queue.peek(blocking: false) }
            #expect(throws: QueueError.empty) { try queue.peekNowait() }
            try queue.putNowait(1)
            #expect(throws: QueueError.full) { try queue.put(2, blocking: false) }
            #expect(throws: QueueError.full) { try queue.putNowait(2) }
            #expect(throws: QueueError.full) { try queue.put(2, timeout: .seconds(-1)) }
            try #expect(queue.peekNowait() == 1)
            try #expect(queue.getNowait() == 1)
            #expect(hub.statistics.switchCount == before)
        }
    }

    @Test("In a hub callback, put and get serve parked peers instead of failing, and never park")
    func inHub() throws {
        let log = try logged { log, hub in
            let queue = SimpleQueue<Int>(maxSize: 1)
            let getters = (0..<2).map { _ in spawn { try queue.get() } }
            try sleep()
            hub.runCallback {
                try queue.putNowait(1)
                try queue.put(2)
                try queue.put(3)
                log.outcome("put") { try queue.put(4) }
            }
            log.note("\(try getters.map { try $0.get() })")
            let putters = (5...6).map { number in spawn { try queue.put(number) } }
            try sleep()
            hub.runCallback {
                log.note("\(try queue.getNowait()) \(try queue.get()) \(try queue.peek()) \(try queue.get())")
                log.outcome("get") { try queue.get() }
                log.outcome("peek") { try queue.peek() }
            }
            try joinAll(putters)
        }
        #expect(
            log == [
                "put: threw the queue is full", "[1, 2]", "3 5 6 6", "get: threw the queue is empty",
                "peek: threw the queue is empty",
            ])
    }

    @Test("maxSize 0 or nil means unbounded; count is the number of elements")
    func sizes() throws {
        try withHub { _ in
            for queue in [SimpleQueue<Int>(), SimpleQueue<Int>(maxSize: 0), SimpleQueue<Int>(maxSize: nil, [])] {
                #expect(queue.maxSize == nil && queue.isEmpty)
                for number in 0..<1000 { try queue.put(number, blocking: false) }
                #expect(queue.count == 1000 && !queue.isFull)
                #expect(queue.description == "<SimpleQueue 1000>")
            }
            // The initial elements exceed the limit.
            let queue = Queue<Int>(maxSize: 2, 0..<5)
            #expect(queue.count == 5 && queue.isFull && queue.description == "<Queue 5 of 2>")
            #expect(throws: QueueError.full) { try queue.putNowait(6) }
            for number in 0..<5 { try #expect(queue.get() == number) }
            try queue.putNowait(6)
        }
    }

    @Test("maxSize may change at run time: more room resumes waiters, less room drops nothing")
    func changingMaxSize() throws {
        let log = try logged { log, _ in
            let queue = SimpleQueue<Int>(maxSize: 1)
            let putters = (0..<6).map { number in
                spawn {
                    try queue.put(number)
                    log.note("\(number)")
                }
            }
            try sleep()
            queue.maxSize = 3
            #expect(queue.maxSize == 3 && queue.count == 3)
            try sleep()
            log.note("more")
            queue.maxSize = 2
            #expect(queue.count == 3 && queue.isFull)
            _ = try queue.get()
            #expect(queue.count == 2)
            try sleep()
            log.note("none")
            queue.maxSize = nil
            #expect(queue.maxSize == nil && queue.count == 5)
            try joinAll(putters)
        }
        #expect(log == ["0", "1", "2", "more", "none", "3", "4", "5"])
    }

    @Test("A negative maxSize throws")
    func negativeMaxSize() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            _ = SimpleQueue<Int>(maxSize: -1)
        }
        #expect(text(result.standardErrorContent).contains("a queue's maxSize is nil, 0 or positive, not -1"))
    }

    @Test("A copy has the same limit and elements, and is independent")
    func copying() throws {
        try withHub { _ in
            let simple = SimpleQueue<Int>(maxSize: 5, [1, 2, 3])
            _ = try simple.get()
            try simple.put(4)
            let copy = simple.copy()
            simple.shutdown(immediate: true)
            #expect(copy.count == 3 && copy.maxSize == 5 && !copy.isShutDown)
            try #expect([copy.get(), copy.get(), copy.get()] == [2, 3, 4])

            let queue = Queue<Int>([1, 2])
            _ = try queue.get()
            let second = queue.copy()
            #expect(second.unfinishedTasks == 2 && second.count == 1)
        }
    }

    @Test("wouldBlockForever names the queue; use on another thread throws wrongThread")
    func misuse() throws {
        try withHub { _ in
            let queue = Queue<Int>(maxSize: 1)
            let get = #expect(throws: HubError.self) { try queue.get() }
            #expect(get?.code == .wouldBlockForever && get?.message.contains("get or peek of <Queue 0 of 1>") == true)
            try queue.put(1)
            let put = #expect(throws: HubError.self) { try queue.put(2) }
            #expect(put?.code == .wouldBlockForever && put?.message.contains("put into <Queue 1 of 1>") == true)
            let join = #expect(throws: HubError.self) { try queue.join() }
            #expect(join?.code == .wouldBlockForever && join?.message.contains("join of <Queue 1 of 1>") == true)
            let smuggled = Smuggled(queue)
            for hasHub in [false, true] {
                try onFreshThread {
                    if hasHub { try sleep() }
                    #expect(hubErrorCode { _ = try smuggled.value.get() } == .wrongThread)
                    #expect(hubErrorCode { _ = try smuggled.value.getNowait() } == .wrongThread)
                    #expect(hubErrorCode { try smuggled.value.put(1) } == .wrongThread)
                    #expect(hubErrorCode { try smuggled.value.putNowait(1) } == .wrongThread)
                    #expect(hubErrorCode { _ = try smuggled.value.peek() } == .wrongThread)
                    #expect(hubErrorCode { _ = try smuggled.value.join() } == .wrongThread)
                }
            }
        }
    }

    @Test("A queue is released with its last reference, including its elements; waiting makes no cycle")
    func life() throws {
        try withHub { _ in
            weak var seen: Queue<Witness>?
            var gone = 0
            do {
                let queue = Queue<Witness>(maxSize: 2)
                seen = queue
                for _ in 0..<2 { try queue.put(Witness { gone += 1 }) }
                let putter = spawn { try queue.put(Witness { gone += 1 }) }
                let joiner = spawn { try queue.join() }
                try sleep()
                try putter.kill()
                try joiner.kill()
                #expect(gone == 1)
                _ = try queue.get()
                #expect(gone == 2)
                let other = Queue<Witness>()
                let getter = spawn { try other.get() }
                try sleep()
                try other.put(Witness { gone += 1 })
                try getter.join()
            }
            try sleep()
            #expect(seen == nil && gone == 4)
        }
    }

    @Test("Elements of any size are passed on, including those larger than a word and empty ones")
    func elementSizes() throws {
        try withHub { _ in
            struct Large { var words = InlineWords(), text = "" }
            struct InlineWords { var a = 0, b = 1, c = 2, d = 3, e = 4 }
            let large = SimpleQueue<Large>(maxSize: 1)
            let putter = spawn {
                for number in 0..<20 { try large.put(Large(text: String(repeating: "x", count: number))) }
            }
            for number in 0..<20 { try #expect(large.get().text.count == number) }
            try putter.join()
            let nothing = SimpleQueue<Void>(maxSize: 1)
            let getter = spawn { for _ in 0..<20 { try nothing.get() } }
            for _ in 0..<20 { try nothing.put(()) }
            try getter.join()
            #expect(nothing.isEmpty)
        }
    }
}
