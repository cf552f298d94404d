import CGevent
import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore

/// A third party's object with elements, as in the documentation of `Waitable`.
private final class Mailbox: Waitable {
    private(set) var letters: [String] = []
    private(set) var waiters: [Enlistment<String>] = []
    var isReady: Bool { !letters.isEmpty }

    func takeIfReady() -> String? { letters.isEmpty ? nil : letters.removeFirst() }

    func enlist(_ waiter: Enlistment<String>) {
        waiters.append(waiter)
        serve()
    }

    func withdraw(_ waiter: Enlistment<String>) { waiters.removeAll { $0 == waiter } }

    func add(_ letter: String) {
        letters.append(letter)
        serve()
    }

    func close(_ error: any Error) {
        for waiter in waiters { waiter.refuse(throwing: error) }
        waiters = []
    }

    private func serve() {
        while !letters.isEmpty, !waiters.isEmpty {
            waiters.removeFirst().choose { letters.removeFirst() }
        }
    }
}

@Suite("Waitable")
struct WaitableTests {
    @Test("A third party's object hands its element to one waiter, together with the library's objects")
    func thirdParty() throws {
        let log = try logged { log, _ in
            let (mailbox, queue) = (Mailbox(), SimpleQueue<Int>())
            func taker(_ name: String) -> Greenlet<Void> {
                spawn {
                    log.outcome(name) {
                        var taken = ""
                        let cases = [TakeCase(mailbox) { taken = $0 }, TakeCase(queue) { taken = "\($0)" }]
                        return try takeFirst(of: cases).map { "\(taken) at \($0)" } ?? "nothing"
                    }
                }
            }
            let (first, second, third) = (taker("first"), taker("second"), taker("third"))
            let observer = spawn { log.outcome("observer") { try Gevent.wait([mailbox, Event()], count: 1).count } }
            try sleep()
            #expect(mailbox.waiters.count == 4 && queue.getters.count == 3)
            mailbox.add("a")
            // At this moment the first waiter has left the queue.
            #expect(queue.getters.count == 2)
            try queue.put(1)
            try third.kill()
            try joinAll([first, second])
            mailbox.add("b")
            try observer.join()
            // A waiter that only waits takes nothing.
            #expect(mailbox.letters == ["b"] && mailbox.waiters.isEmpty && queue.getters.isEmpty)
            try taker("fourth").join()
            #expect(!mailbox.isReady)
        }
        #expect(
            log == [
                "third: threw GreenletExit", "first: a at 0", "second: 1 at 1", "observer: 1", "fourth: b at 0",
            ]
                || log == [
                    "first: a at 0", "second: 1 at 1", "third: threw GreenletExit", "observer: 1", "fourth: b at 0",
                ])
    }

    @Test("An enlistment whose wait has ended cannot be chosen, and one that is refused throws")
    func enlistments() throws {
        let log = try logged { log, _ in
            let mailbox = Mailbox()
            let waiter = spawn {
                log.outcome("taker") {
                    try takeFirst(of: [TakeCase(mailbox) { log.note($0) }, TakeCase(Event()) {}]) ?? -1
                }
            }
            try sleep()
            let enlistment = try #require(mailbox.waiters.first)
            #expect(enlistment.isWaiting)
            // The kill ended the wait, although the greenlet has not run.
            try waiter.kill(blocking: false)
            #expect(!enlistment.isWaiting)
            #expect(!enlistment.choose { preconditionFailure("handed over to one who does not wait") })
            #expect(!enlistment.refuse(throwing: Boom()))
            mailbox.add("kept")
            try waiter.join()
            #expect(mailbox.letters == ["kept"] && mailbox.waiters.isEmpty)
            _ = mailbox.takeIfReady()
            let waits = spawn { log.outcome("wait") { try Gevent.wait([mailbox]).count } }
            let iwaits = spawn { log.outcome("iwait") { try iwait([mailbox, mailbox]) { _, _ in } } }
            let link = mailbox.rawLink { log.note("linked") }
            try sleep()
            mailbox.close(Boom())
            try joinAll([waits, iwaits])
            #expect(!link.isActive)
            mailbox.rawLink { log.note("never") }.cancel()
            #expect(mailbox.waiters.isEmpty)
        }
        #expect(
            log == ["taker: threw GreenletExit", "wait: threw Boom", "iwait: threw Boom", "linked"]
                || log == ["taker: threw GreenletExit", "linked", "wait: threw Boom", "iwait: threw Boom"])
    }

    @Test("wait and iwait accept all kinds together, including a descriptor, a queue and a child", arguments: bothLoops)
    func allKinds(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let pipe = try Pipe()
            let (event, gate) = (Event(), Event())
            let (result, semaphore, queue) = (AsyncResult<Int>(), Semaphore(0), Queue<Int>())
            let greenlet = spawn { _ = try gate.wait() }
            let input = DescriptorReadiness(pipe.readEnd, .read)
            let child = try ChildWatch(pid: try shell("exit 3"))
            let objects = [event, result, semaphore, queue, greenlet, input, child] as [any Waitable]
            _ = try child.wait()
            let ready = try Gevent.wait(objects, count: 1)
            #expect(ready.count == 1 && ready[0] === child)
            let steps: [() throws -> Void] = [
                { try queue.put(7) }, { pipe.write() }, { semaphore.release() }, { gate.set() }, { event.set() },
                { result.set(1) },
            ]
            var next = 0
            let count = try iwait(objects) { object, _ in
                log.note("\(type(of: object))")
                if next < steps.count { try steps[next]() }
                next += 1
            }
            #expect(count == 7 && queue.count == 1 && semaphore.counter == 1)
            try #expect(Gevent.wait(objects).count == 7)
            #expect(hub.descriptors.existing(pipe.readEnd)?.pointee.armed ?? 0 == 0)
            #expect(hub.statistics.descriptorWaiters == 0)
        }
        #expect(
            log == [
                "ChildWatch", "Queue<Int>", "DescriptorReadiness", "Semaphore", "Greenlet<()>", "Event",
                "AsyncResult<Int>",
            ])
    }

    @Test("Waiting for a queue takes nothing; a queue that is shut down counts as ready")
    func queues() throws {
        let log = try logged { log, _ in
            let queue = SimpleQueue<Int>(maxSize: 1)
            func watcher(_ name: String) {
                spawn { log.outcome(name) { try Gevent.wait([queue]).count } }
            }
            watcher("first")
            let getter = spawn { log.outcome("getter") { try queue.get() } }
            watcher("second")
            try sleep()
            try queue.put(1)
            try getter.join()
            // The getter took the element before the second waiter was notified.
            #expect(queue.getters.count == 1)
            try queue.put(2)
            try sleep()
            #expect(queue.count == 1 && queue.isReady && queue.isFull)
            try #expect(queue.get() == 2)
            watcher("third")
            var taken = 0
            let taker = spawn { log.outcome("taker") { try takeFirst(of: [TakeCase(queue) { taken = $0 }]) ?? -1 } }
            let called = queue.rawLink { log.note("linked") }
            try sleep()
            queue.shutdown()
            try taker.join()
            #expect(queue.isReady && taken == 0 && !called.isActive)
            try #expect(Gevent.wait([queue]).count == 1)
            #expect(throws: QueueError.shutDown) { try queue.takeIfReady() }
        }
        #expect(
            log == ["first: 1", "getter: 1", "second: 1", "linked", "third: 1", "taker: threw the queue was shut down"])
    }

    @Test(
        "A descriptor that is closed, not open or unwatchable ends the wait with an error", arguments: bothLoops)
    func descriptors(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let pipe = try Pipe()
            let watched = try WatchedDescriptor(dup(pipe.readEnd))
            let input = DescriptorReadiness(watched.fileDescriptor, .read)
            let waits = spawn { try Gevent.wait([input, Event()] as [any Waitable], count: 1) }
            let other = spawn { try Gevent.wait([input], timeout: .milliseconds(1)).count }
            try #expect(other.get() == 0)
            try watched.close()
            try waits.join()
            #expect((waits.error as? LoopError)?.errno == EBADF)
            #expect(hub.statistics.descriptorWaiters == 0)
            #expect(throws: LoopError.self) { try Gevent.wait([input]) }
            #expect(throws: LoopError.self) { try Gevent.wait([DescriptorReadiness(-1, .read)]) }
            let output = DescriptorReadiness(pipe.writeEnd, .write)
            try #expect(Gevent.wait([output, DescriptorReadiness(pipe.readEnd, .read)], count: 1).first === output)
            pipe.fill()
            // Two at once. One of them is parked to write itself and has priority.
            let watcher = spawn { try Gevent.wait([output, output]).count }
            let writer = spawn { try waitWrite(pipe.writeEnd, timeout: .seconds(60)) }
            try sleep()
            while pipe.read() > 0 {}
            try writer.get()
            try #expect(watcher.get() == 2)
            #expect(hub.descriptors.existing(pipe.writeEnd)?.pointee.armed ?? 0 == 0)
        }
    }

    @Test("A released permit is handed to a greenlet that waits for several objects, in order")
    func permits() throws {
        let log = try logged { log, _ in
            let (semaphore, other) = (Semaphore(0), Semaphore(0))
            spawn { log.outcome("first") { try semaphore.acquire() } }
            let second = spawn {
                log.outcome("second") { try takeFirst(of: [TakeCase(other) {}, TakeCase(semaphore) {}]) ?? -1 }
            }
            try sleep()
            #expect(semaphore.release() == 1)
            // The free permit is reserved for the first until another greenlet takes it, so the second gets the next.
            #expect(semaphore.release() == 1 && other.linkCount == 0)
            try second.join()
            #expect(semaphore.counter == 0)
            try #expect(takeFirst(of: [TakeCase(other) {}, TakeCase(semaphore) {}], timeout: .zero) == nil)
            other.release()
            try #expect(takeFirst(of: [TakeCase(semaphore) {}, TakeCase(other) {}]) == 1)
            #expect(other.counter == 0)
        }
        #expect(log == ["first: true", "second: 1"])
    }
}
