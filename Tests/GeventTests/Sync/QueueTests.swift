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

    @Test("put on a full queue parks; putters resume in order; elements keep their order")
    func fullQueue() throws {
        let log = try logged { log, _ in
            let queue = SimpleQueue<Int>(maxSize: 2)
            let putters = (0..<6).map { number in
                spawn {
                    try queue.put(number)
                    log.note("put \(number)")
                }
            }
            try sleep()
            #expect(queue.isFull && queue.count == 2)
            for _ in 0..<6 {
                log.note("got \(try queue.get())")
                try sleep()
            }
            try joinAll(putters)
        }
        #expect(
            log == [
                "put 0", "put 1", "got 0", "put 2", "got 1", "put 3", "got 2", "put 4", "got 3", "put 5", "got 4",
                "got 5",
            ])
    }

    @Test("get on an empty queue parks; getters are served in order, from one put each")
    func emptyQueue() throws {
        let log = try logged { log, _ in
            let queue = SimpleQueue<String>()
            let getters = (0..<3).map { number in spawn { log.note("\(number): \(try queue.get())") } }
            try sleep()
            for text in ["a", "b", "c", "d"] { try queue.put(text) }
            try joinAll(getters)
            log.note("\(queue.count)")
        }
        #expect(log == ["0: a", "1: b", "2: c", "1"])
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

    @Test("With no getter left, the element stays in the queue")
    func withoutGetters() throws {
        try withHub { _ in
            let queue = SimpleQueue<Int>()
            let killed = spawn { try queue.get() }
            let late = spawn { #expect(throws: QueueError.empty) { try queue.get(timeout: .seconds(1)) } }
            try sleep()
            try killed.kill()
            try late.join()
            try queue.put(1)
            #expect(queue.count == 1)
            try #expect(queue.get() == 1)
        }
    }

    @Test(
        "A getter killed after it was served has the element and is killed at its next park; no waiter is left"
    )
    func servedThenKilled() throws {
        let log = try logged { log, _ in
            let queue = SimpleQueue<Int>()
            let first = spawn {
                log.outcome("first") { try queue.get() }
                log.outcome("sleep") { try sleep() }
            }
            let second = spawn { log.outcome("second") { try queue.get() } }
            try sleep()
            try queue.put(1)
            try first.kill()
            try queue.put(2)
            try second.join()
            log.note("\(queue.count)")
        }
        #expect(log == ["first: 1", "sleep: threw GreenletExit", "second: 2", "0"])
    }

    @Test("A putter killed while it waits leaves no element; one killed after its element was added has put it")
    func putterKilled() throws {
        let log = try logged { log, _ in
            let queue = SimpleQueue<Witness>(maxSize: 1)
            try queue.put(Witness())
            var gone = 0
            let waiting = spawn { log.outcome("waiting") { try queue.put(Witness { gone += 1 }) } }
            let served = spawn {
                log.outcome("served") { try queue.put(Witness { gone += 1 }) }
                log.outcome("sleep") { try sleep() }
            }
            try sleep()
            try waiting.kill()
            #expect(gone == 1)
            _ = try queue.get()
            #expect(queue.count == 1)
            try served.kill()
            #expect(gone == 1 && queue.count == 1)
            _ = try queue.get()
            #expect(gone == 2)
        }
        #expect(log == ["waiting: threw GreenletExit", "served: returned", "sleep: threw GreenletExit"])
    }

    @Test("put, get and peek throw on timeout; a foreign Timeout passes through", arguments: bothLoops)
    func timeouts(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let full = SimpleQueue<Int>(maxSize: 1, [0])
            let empty = SimpleQueue<Int>()
            log.outcome("put") { try full.put(1, timeout: .milliseconds(1)) }
            log.outcome("get") { try empty.get(timeout: .milliseconds(1)) }
            log.outcome("peek") { try empty.peek(timeout: .milliseconds(1)) }
            let waits: [() throws -> Void] = [
                { try full.put(1) }, { _ = try empty.get() }, { _ = try empty.peek() },
                { try full.put(1, timeout: .seconds(60)) }, { _ = try empty.get(timeout: .seconds(60)) },
                { _ = try empty.next() },
            ]
            for wait in waits { log.note("\(letsForeignTimeoutPass(wait))") }
            #expect(hub.statistics.pendingTimers == 0)
            #expect(full.count == 1 && empty.isEmpty)
            // The fast path is enabled again.
            try empty.put(5)
            try #expect(empty.get() == 5)
            try #expect(full.get() == 0)
        }
        #expect(
            log == [
                "put: threw the queue is full", "get: threw the queue is empty", "peek: threw the queue is empty",
                "true", "true", "true", "true", "true", "true",
            ])
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

    @Test("peek parks, removes nothing and wakes no putter; with no other work it would block forever")
    func peek() throws {
        let log = try logged { log, _ in
            let queue = SimpleQueue<Int>(maxSize: 1)
            #expect(hubErrorCode { _ = try queue.peek() } == .wouldBlockForever)
            let peekers = (0..<2).map { number in spawn { log.outcome("peek \(number)") { try queue.peek() } } }
            let getter = spawn { log.outcome("get") { try queue.get() } }
            let behind = spawn { log.outcome("behind") { try queue.peek() } }
            try sleep()
            try queue.put(1)
            try joinAll(peekers + [getter])
            #expect(!behind.isReady)
            try queue.put(2)
            try behind.join()
            let putter = spawn { try queue.put(3) }
            try sleep()
            try #expect(queue.peek() == 2)
            try sleep()
            #expect(!putter.isReady)
            try #expect(queue.get() == 2)
            try putter.join()
            try #expect(queue.peek() == 3 && queue.count == 1)
        }
        #expect(log == ["peek 0: 1", "peek 1: 1", "get: 1", "behind: 2"])
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

    // MARK: Joining

    @Test("join returns at once when nothing was ever put; initial elements count as unfinished")
    func joinUnused() throws {
        try withHub { hub in
            let queue = Queue<Int>()
            let before = hub.statistics.switchCount
            try #expect(queue.join())
            #expect(hub.statistics.switchCount == before)
            let filled = Queue<Int>([1, 2])
            #expect(filled.unfinishedTasks == 2)
            try #expect(!filled.join(timeout: .zero))
            try #expect(!filled.join(timeout: .seconds(1)))
        }
    }

    @Test("join resumes when the last task is done, and not before")
    func joinTasks() throws {
        let log = try logged { log, _ in
            let queue = Queue<Int>(maxSize: 2)
            let worker = spawn {
                while let number = try queue.next() {
                    try sleep(for: .seconds(1))
                    log.note("done \(number)")
                    queue.taskDone()
                }
            }
            let other = spawn { log.outcome("other") { try queue.join() } }
            for number in 1...4 { try queue.put(number) }
            #expect(queue.unfinishedTasks == 3)
            log.outcome("early") { try queue.join(timeout: .milliseconds(500)) }
            log.outcome("join") { try queue.join() }
            queue.shutdown()
            try joinAll([worker, other])
        }
        #expect(
            log == ["done 1", "early: false", "done 2", "done 3", "done 4", "other: true", "join: true"])
    }

    @Test("Elements dropped after they were reported as done leave nothing to join")
    func doneBeforeDropped() throws {
        try withHub { _ in
            let queue = Queue<Int>([1, 2])
            queue.taskDone()
            queue.taskDone()
            queue.shutdown(immediate: true)
            #expect(queue.unfinishedTasks == 0)
            try #expect(queue.join())
        }
    }

    @Test("Reporting one task too many as done throws")
    func tooManyDone() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try onFreshThread {
                let queue = Queue<Int>([1])
                queue.taskDone()
                queue.taskDone()
            }
        }
        #expect(text(result.standardErrorContent).contains("taskDone was called more often than elements were put"))
    }

    @Test("A kill or timeout in join leaves nothing behind")
    func joinInterrupted() throws {
        try withHub { hub in
            let queue = Queue<Int>([1])
            let joiner = spawn { try queue.join() }
            try sleep()
            try joiner.kill()
            #expect(throws: Timeout.self) { try withTimeout(.seconds(1)) { _ in try queue.join() } }
            #expect(queue.joiners.isEmpty && hub.statistics.pendingTimers == 0)
            queue.taskDone()
            try #expect(queue.join())
        }
    }

    // MARK: Shutting down

    @Test("After shutdown puts fail at once; gets take the remaining elements, then fail")
    func shutdown() throws {
        try withHub { _ in
            let queue = Queue<Int>(maxSize: 2, [1, 2])
            queue.shutdown()
            #expect(queue.isShutDown && queue.description == "<Queue 2 of 2, shut down>")
            #expect(throws: QueueError.shutDown) { try queue.put(3) }
            #expect(throws: QueueError.shutDown) { try queue.putNowait(3) }
            try #expect(queue.peek() == 1)
            try #expect(queue.get() == 1)
            try #expect(queue.next() == 2)
            #expect(throws: QueueError.shutDown) { try queue.get() }
            #expect(throws: QueueError.shutDown) { try queue.getNowait() }
            #expect(throws: QueueError.shutDown) { try queue.peek() }
            try #expect(queue.next() == nil)
            // A taken element must still be reported as done.
            #expect(queue.unfinishedTasks == 2)
            queue.shutdown()
        }
    }

    @Test("shutdown throws into every parked greenlet, immediate or not", arguments: [false, true])
    func shutdownParked(immediate: Bool) throws {
        let log = try logged { log, hub in
            let (empty, full) = (SimpleQueue<Int>(), SimpleQueue<Int>(maxSize: 1, [0]))
            let parked = [
                spawn { log.outcome("get") { try empty.get() } }, spawn { log.outcome("peek") { try empty.peek() } },
                spawn { log.outcome("next") { try empty.next() == nil } },
                spawn { log.outcome("put") { try full.put(1, timeout: .seconds(9)) } },
                spawn { log.outcome("put") { try full.put(2) } },
            ]
            try sleep()
            empty.shutdown(immediate: immediate)
            full.shutdown(immediate: immediate)
            log.note("\(full.count)")
            try joinAll(parked)
            #expect(hub.statistics.pendingTimers == 0 && full.putters.isEmpty && empty.getters.isEmpty)
        }
        let refused = "threw the queue was shut down"
        #expect(
            log == [
                immediate ? "0" : "1", "get: \(refused)", "peek: \(refused)", "next: true", "put: \(refused)",
                "put: \(refused)",
            ])
    }

    @Test("Immediate shutdown drops the elements, counts them as done and resumes join")
    func shutdownImmediate() throws {
        let log = try logged { log, _ in
            let queue = Queue<Witness>()
            var gone = 0
            for _ in 0..<3 { try queue.put(Witness { gone += 1 }) }
            let joiner = spawn { log.outcome("join") { try queue.join() } }
            try sleep()
            queue.shutdown(immediate: true)
            #expect(gone == 3 && queue.isEmpty && queue.unfinishedTasks == 0)
            try joiner.join()
            #expect(throws: QueueError.shutDown) { try queue.get() }

            let drained = Queue<Int>([1, 2])
            _ = try drained.get()
            drained.shutdown()
            drained.shutdown(immediate: true)
            // An element that a worker has taken must still be reported as done.
            #expect(drained.unfinishedTasks == 1)
            drained.taskDone()
            log.outcome("drained") { try drained.join() }
        }
        #expect(log == ["join: true", "drained: true"])
    }

    @Test("A getter that was served before a shutdown has its element")
    func servedThenShutDown() throws {
        let log = try logged { log, _ in
            let queue = SimpleQueue<Int>()
            let getter = spawn { log.outcome("get") { try queue.get() } }
            try sleep()
            try queue.put(1)
            queue.shutdown(immediate: true)
            try getter.join()
        }
        #expect(log == ["get: 1"])
    }

    @Test("Iteration ends once the queue is shut down and drained")
    func iteration() throws {
        let log = try logged { log, _ in
            let queue = SimpleQueue<Int>([1, 2])
            let reader = spawn {
                while let number = try queue.next() { log.note("\(number)") }
                log.note("end")
            }
            try sleep()
            try queue.put(3)
            queue.shutdown()
            try reader.join()
        }
        #expect(log == ["1", "2", "3", "end"])
    }

    // MARK: Misuse and lifetime

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
