import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Joining queues")
struct QueueJoinTests {
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
}
