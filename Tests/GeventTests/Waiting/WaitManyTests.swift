import Gevent
import GeventTesting
// Both modules on purpose: `wait` is libc's name too, and the calls below must mean this library's. `Semaphore` is also
// a type of Glibc, and needs its module's name where it is used as a type.
import Glibc
import Testing

/// A third party's object that forwards to an event of its own.
private final class Forwarding: Waitable {
    let event = Event()
    var isReady: Bool { event.isReady }
    func enlist(_ waiter: Enlistment<Void>) throws { try event.enlist(waiter) }
    func withdraw(_ waiter: Enlistment<Void>) { event.withdraw(waiter) }
}

/// A third party's object that manages its waiters itself.
private final class Bell: Waitable {
    private(set) var links: [Enlistment<Void>] = []
    private(set) var isReady = false

    func enlist(_ waiter: Enlistment<Void>) {
        if isReady { waiter.choose() } else { links.append(waiter) }
    }

    func withdraw(_ waiter: Enlistment<Void>) { links.removeAll { $0 == waiter } }

    func ring() {
        isReady = true
        let chosen = links
        links = []
        for waiter in chosen { waiter.choose() }
    }
}

@Suite("wait and iwait")
struct WaitTests {
    // MARK: wait(timeout:)

    @Test("wait() runs until no work remains; greenlets parked forever do not count", arguments: bothLoops)
    func waitForAll(loop: TestLoop) throws {
        try withHub(on: loop) { _ in
            let event = Event()
            let parked = spawn { try event.wait() }
            let worker = spawn { try sleep(for: .milliseconds(2)) }
            try #expect(wait())
            #expect(worker.isReady && !parked.isReady)
            try #expect(wait())
            event.set()
            try #expect(wait(timeout: nil))
            #expect(parked.isReady)
        }
    }

    @Test("wait(timeout:) is false when work remains, and the worker is unaffected", arguments: bothLoops)
    func waitTimeout(loop: TestLoop) throws {
        try withHub(on: loop) { _ in
            let worker = spawn { () throws -> Int in
                try sleep(for: .milliseconds(30))
                return 7
            }
            try #expect(!wait(timeout: .milliseconds(1)))
            #expect(!worker.isReady)
            try #expect(wait(timeout: .seconds(60)))
            try #expect(worker.get() == 7)
        }
    }

    @Test("hub.join(), and so wait(), is repeatable, the hub is usable in between, and it throws outside main")
    func waitAwayFromMain() throws {
        try withHub { hub in
            for number in 0..<3 {
                let worker = spawn { number }
                try #expect(hub.join() && wait())
                #expect(worker.value == number)
            }
            let other = spawn { hubErrorCode { try wait(timeout: .seconds(1)) } }
            try #expect(other.get() == .invalidSwitch)
        }
    }

    // MARK: wait(objects)

    @Test(
        "wait returns greenlets, events, results, semaphores and others together, in the order they became ready",
        arguments: bothLoops)
    func mixed(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let gate = Event()
            let greenlet = spawn { _ = try gate.wait() }
            let event = Event()
            let result = AsyncResult<String>()
            let semaphore = Semaphore(0)
            let (forwarding, bell) = (Forwarding(), Bell())
            spawn {
                let steps: [() -> Void] = [
                    { semaphore.release() }, { forwarding.event.set() }, { result.setError(Boom()) }, { gate.set() },
                    { event.set() }, { bell.ring() },
                ]
                for step in steps {
                    try sleep(for: .milliseconds(1))
                    // Everything that follows from the previous step has happened, however late this runs.
                    try idle()
                    step()
                }
            }
            let ready = try wait([greenlet, event, result, semaphore, forwarding, bell])
            for object in ready { log.note("\(type(of: object))") }
            log.note("\(semaphore)")
        }
        #expect(
            log == [
                "Semaphore", "Forwarding", "AsyncResult<String>", "Greenlet<()>", "Event", "Bell", "<Semaphore 1>",
            ])
    }

    @Test("Objects that are ready at the start are returned in the order they became ready, without a switch")
    func readyFromTheStart() throws {
        try withHub { hub in
            let greenlet = spawn {}
            let (first, last) = (Event(), Event())
            let result = AsyncResult<Int>()
            let semaphore = Semaphore(0)
            first.set()
            try greenlet.join()
            semaphore.release()
            result.set(1)
            last.set()
            let bell = Bell()
            bell.ring()
            let objects: [any Waitable] = [bell, last, result, semaphore, greenlet, first]
            let before = hub.statistics.switchCount
            let ready = try wait(objects)
            let expected: [any Waitable] = [first, greenlet, semaphore, result, last, bell]
            #expect(ready.map { ObjectIdentifier($0) } == expected.map { ObjectIdentifier($0) })
            try #expect(wait(objects, count: 2).count == 2)
            #expect(hub.statistics.switchCount == before)
            // A second wait returns the same: nothing was consumed.
            try #expect(wait([last, last]).count == 2)
            try #expect(wait([semaphore]).count == 1)
            #expect(semaphore.counter == 1)
        }
    }

    @Test("A list of one type returns a list of that type")
    func homogeneous() throws {
        try withHub { _ in
            let greenlets = (0..<3).map { number in
                spawn { () throws -> Int in
                    try sleep(for: .seconds(3 - number))
                    return number
                }
            }
            let ended: [Greenlet<Int>] = try wait(greenlets)
            #expect(ended.map(\.value) == [2, 1, 0])
            let some: [Greenlet<Int>] = try wait(greenlets.lazy.reversed(), count: 2)
            #expect(some.map(\.value) == [2, 1])
            let events = [Event(), Event()]
            events[1].set()
            let set: [Event] = try wait(events, timeout: .zero)
            #expect(set.count == 1 && set[0] === events[1])
            let literal = try wait([events[1], events[1]])
            let first: Event = literal[0]
            #expect(first === events[1])
            let joinable: [JoinableGreenlet] = try wait([greenlets[0], spawn { "text" }] as [JoinableGreenlet])
            #expect(joinable.count == 2)
        }
    }

    @Test("The count is respected; 0, less, and an empty list return an empty list at once; a larger count means all")
    func counts() throws {
        try withHub { hub in
            let events = (0..<4).map { _ in Event() }
            for (number, event) in events.enumerated() { spawn(after: .seconds(number + 1)) { event.set() } }
            let before = hub.statistics.switchCount
            try #expect(wait(events, count: 0).isEmpty)
            try #expect(wait(events, count: -3).isEmpty)
            try #expect(wait([Event]()).isEmpty)
            try #expect(wait([any Waitable]()).isEmpty)
            #expect(hub.statistics.switchCount == before)
            let two = try wait(events, count: 2)
            #expect(two.count == 2 && two[0] === events[0] && two[1] === events[1])
            #expect(hub.now.nanoseconds == 2_000_000_000)
            #expect(events.allSatisfy { $0.linkCount == 0 })
            try #expect(wait(events, count: 99).count == 4)
            #expect(hub.now.nanoseconds == 4_000_000_000)
        }
    }

    @Test("Duplicates are counted and returned each time", arguments: [true, false])
    func duplicates(setBefore: Bool) throws {
        try withHub { _ in
            let (event, other) = (Event(), Event())
            if setBefore { event.set() } else { spawn { event.set() } }
            let ready = try wait([event, other, event, event], count: 3)
            #expect(ready.count == 3 && ready.allSatisfy { $0 === event })
            let greenlet = spawn { 1 }
            try #expect(wait([greenlet, greenlet]).count == 2)
            #expect(other.linkCount == 0)
        }
    }

    @Test(
        "A timeout returns the partial list, and zero only checks; a foreign Timeout propagates", arguments: bothLoops)
    func timeouts(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let (ready, never) = (Event(), Event())
            let bell = Bell()
            let greenlet = Greenlet {}
            let objects: [any Waitable] = [never, ready, bell, greenlet]
            try #expect(wait(objects, timeout: .milliseconds(1)).isEmpty)
            ready.set()
            try #expect(wait(objects, timeout: .milliseconds(1)).count == 1)
            let before = hub.statistics.switchCount
            try #expect(wait(objects, timeout: .zero).count == 1)
            try #expect(wait(objects, timeout: .seconds(-1)).count == 1)
            #expect(hub.statistics.switchCount == before)
            #expect(letsForeignTimeoutPass { try wait(objects) })
            #expect(letsForeignTimeoutPass { try wait(objects, timeout: .seconds(60)) })
            #expect(letsForeignTimeoutPass { try iwait([never]) { _, _ in } })
            #expect(never.linkCount == 0 && bell.links.isEmpty && hub.statistics.pendingTimers == 0)
            // No link on the greenlet remains: its end notifies nothing.
            greenlet.start()
            try greenlet.join()
        }
    }

    @Test("An event set and cleared during a wait counts; waiting for it again does not")
    func setAndCleared() throws {
        try withHub { _ in
            let event = Event()
            let waiter = spawn { try wait([event], timeout: .seconds(5)).count }
            try sleep()
            event.set()
            event.clear()
            try #expect(waiter.get() == 1)
            try #expect(wait([event], timeout: .seconds(1)).isEmpty)
        }
    }

    @Test("A wait for a semaphore takes no permit and passes wakes on to acquirers")
    func semaphores() throws {
        let log = try logged { log, _ in
            let semaphore: Gevent.Semaphore = Semaphore(0)
            let watcher = spawn { log.note("watcher \(try wait([semaphore, Event()], count: 1).count)") }
            let acquirer = spawn { log.outcome("acquirer") { try semaphore.acquire() } }
            try sleep()
            semaphore.release()
            try joinAll([watcher, acquirer])
            log.note("\(semaphore)")
        }
        #expect(log == ["watcher 1", "acquirer: true", "<Semaphore 0>"])
    }

    @Test("Killed in a wait for many, a greenlet leaves no links; killed when all are ready, it has them")
    func kills() throws {
        let log = try logged { log, _ in
            let (event, bell) = (Event(), Bell())
            let result = AsyncResult<Int>()
            let objects: [any Waitable] = [event, bell, result]
            func waiter() -> Greenlet<Void> {
                spawn {
                    log.outcome("wait") { try wait(objects).count }
                    log.outcome("sleep") { try sleep() }
                }
            }
            let early = waiter()
            try sleep()
            #expect(event.linkCount == 1 && bell.links.count == 1 && result.linkCount == 1)
            try early.kill()
            #expect(event.linkCount == 0 && bell.links.isEmpty && result.linkCount == 0)
            let late = waiter()
            try sleep()
            event.set()
            result.set(1)
            bell.ring()
            try late.kill()
        }
        #expect(log == ["wait: threw GreenletExit", "sleep: returned", "wait: 3", "sleep: threw GreenletExit"])
    }

    @Test("wouldBlockForever is reported; another thread and the hub are refused, and no link remains")
    func misuse() throws {
        try withHub { hub in
            let (event, other) = (Event(), Event())
            let error = #expect(throws: HubError.self) { try wait([event]) }
            #expect(error?.code == .wouldBlockForever)
            #expect(error?.message.contains("in wait for many objects") == true)
            let each = #expect(throws: HubError.self) { try iwait([event]) { _, _ in } }
            #expect(each?.message.contains("in iwait") == true)
            hub.runCallback { #expect(hubErrorCode { _ = try wait([event]) } == .blockedInHub) }
            hub.runCallback { #expect(hubErrorCode { _ = try iwait([event]) { _, _ in } } == .blockedInHub) }
            try sleep()
            other.set()
            let foreign = Smuggled([event, other])
            let greenlet = Smuggled(Greenlet {})
            try onFreshThread {
                #expect(hubErrorCode { _ = try wait(foreign.value) } == .wrongThread)
                #expect(hubErrorCode { _ = try iwait(foreign.value) { _, _ in } } == .wrongThread)
                let own = Event()
                #expect(hubErrorCode { _ = try wait([own, greenlet.value]) } == .wrongThread)
                #expect(own.linkCount == 0)
            }
            #expect(event.linkCount == 0)
        }
    }

    // MARK: Greenlets as Waitable

    @Test("A greenlet's raw link without an argument is called once, soon after its end, even if made afterwards")
    func rawLinkOfGreenlet() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { log.note("body") }
            greenlet.rawLink { log.note("link \(greenlet.isReady)") }
            let cancelled = greenlet.rawLink { log.note("cancelled") }
            #expect(cancelled.isActive)
            cancelled.cancel()
            cancelled.cancel()
            #expect(!cancelled.isActive)
            _ = try hub.join()
            greenlet.rawLink { log.note("late") }
            log.note("linked")
            _ = try hub.join()
            // A greenlet that never ends is released with its links.
            weak var captured: Witness?
            do {
                let witness = Witness()
                captured = witness
                Greenlet {}.rawLink { withExtendedLifetime(witness) {} }
            }
            #expect(captured == nil)
        }
        #expect(log == ["body", "link true", "linked", "late"])
    }

    // MARK: iwait

    @Test("iwait calls its block with each object as it becomes ready", arguments: bothLoops)
    func iwaits(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            let greenlets = [20, 1, 10].map { number in
                spawn { () throws -> Int in
                    try sleep(for: .milliseconds(number))
                    return number
                }
            }
            let count = try iwait(greenlets) { greenlet, _ in log.note("\(try greenlet.get())") }
            log.note("all \(count)")
            try iwait([greenlets[0], Event()], count: 1) { object, _ in log.note("\(type(of: object))") }
        }
        #expect(log == ["1", "10", "20", "all 3", "Greenlet<Int>"])
    }

    @Test("The block may park between items without losing any, and later ones do not wake it early")
    func parkingBlock() throws {
        let log = try logged { log, hub in
            let events = (0..<4).map { _ in Event() }
            for (number, event) in events.enumerated().reversed() {
                spawn(after: .milliseconds(100 * (number + 1))) { event.set() }
            }
            try iwait(events) { event, _ in
                try sleep(for: .seconds(1))
                log.note("\(events.firstIndex { $0 === event } ?? -1) at \(hub.now.nanoseconds / 100_000_000)")
            }
        }
        #expect(log == ["0 at 11", "1 at 21", "2 at 31", "3 at 41"])
    }

    @Test("iwait left early, by an error or by `stop`, leaves no links on the others")
    func leftEarly() throws {
        try withHub { _ in
            let (event, never) = (Event(), Event())
            let bell = Bell()
            let semaphore = Semaphore(0)
            let objects: [any Waitable] = [never, event, bell, semaphore]
            func links() -> Int { never.linkCount + event.linkCount + bell.links.count + semaphore.linkCount }
            spawn { event.set() }
            #expect(throws: Boom.self) {
                try iwait(objects) { object, _ in
                    #expect(object === event && links() == 3)
                    throw Boom()
                }
            }
            #expect(links() == 0)
            let count = try iwait(objects) { object, stop in
                #expect(object === event && links() == 3)
                stop = true
                try sleep()
            }
            #expect(count == 1 && links() == 0)
            let second = try iwait([event, event, event], count: 3) { object, stop in stop = !stop && object === never }
            #expect(second == 3)
            let killed = spawn { try iwait(objects) { _, _ in try sleep(for: .seconds(9)) } }
            try sleep()
            #expect(links() == 3)
            try killed.kill()
            #expect(links() == 0)
        }
    }

    @Test(
        "iwait respects its count and its timeout, which includes the time of the block", arguments: [0, 1, 2, nil, -1])
    func iwaitLimits(count: Int?) throws {
        try withHub { hub in
            let events = (0..<3).map { _ in Event() }
            for (number, event) in events.enumerated() { spawn(after: .seconds(number + 1)) { event.set() } }
            var seen = 0
            let given = try iwait(events, count: count) { _, _ in seen += 1 }
            #expect(seen == max(count ?? 3, 0) && given == seen)
            #expect(hub.now.nanoseconds == Int64(seen) * 1_000_000_000)
            _ = try hub.join()
            let late = [Event(), Event(), Event()]
            let start = hub.now
            spawn(after: .seconds(1)) { late[0].set() }
            spawn(after: .seconds(2)) { late[1].set() }
            spawn(after: .seconds(9)) { late[2].set() }
            // Both objects that were ready when the first call returned are still delivered.
            let partial = try iwait(late, timeout: .seconds(3)) { _, _ in try sleep(for: .seconds(3)) }
            #expect(partial == 2 && start.duration(to: hub.now) == .seconds(7))
            try #expect(iwait(late, timeout: .zero) { _, _ in } == 2)
            try #expect(iwait([Event]()) { _, _ in } == 0)
            _ = try hub.join()
        }
    }

    @Test("A block in main that destroys the hub gets the objects ready by then, and iwait ends with `destroyed`")
    func destroyed() throws {
        let log = try onFreshThread {
            try Hub.start(on: VirtualLoop())
            let log = Log()
            let (first, never) = (Event(), Event())
            let sleeper = spawn { try sleep(for: .seconds(9)) }
            first.set()
            log.outcome("iwait") {
                try iwait([first, never, sleeper] as [any Waitable], timeout: .seconds(60)) { object, _ in
                    log.note("\(type(of: object))")
                    if object === first { Hub.current.destroy() }
                }
            }
            log.note("\(never.linkCount) \(Hub.exists)")
            return log.entries
        }
        #expect(log.count == 4)
        #expect(log.prefix(2) == ["Event", "Greenlet<()>"])
        #expect(log[2].hasPrefix("iwait: threw destroyed: "))
        #expect(log[3] == "0 false")
    }

    @Test("It retains neither the objects nor the waiters")
    func life() throws {
        try withHub { hub in
            weak var event: Event?
            weak var bell: Bell?
            weak var waiter: Greenlet<Int>?
            do {
                let (kept, ringing) = (Event(), Bell())
                (event, bell) = (kept, ringing)
                let objects: [any Waitable] = [kept, ringing]
                let killed = spawn { try wait(objects).count }
                waiter = killed
                let timedOut = spawn { try wait(objects, timeout: .seconds(1)).count }
                try sleep()
                try killed.kill()
                try #expect(timedOut.get() == 0)
                ringing.ring()
                try #expect(wait(objects, count: 1).count == 1)
            }
            _ = try hub.join()
            #expect(event == nil && bell == nil && waiter == nil)
        }
    }
}
