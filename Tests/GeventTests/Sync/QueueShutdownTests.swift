import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Shutting down queues")
struct QueueShutdownTests {
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
}
