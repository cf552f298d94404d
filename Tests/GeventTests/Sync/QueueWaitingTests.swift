import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Waiting for queues")
struct QueueWaitingTests {
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
}
