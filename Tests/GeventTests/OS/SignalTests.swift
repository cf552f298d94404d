import Gevent
import GeventTesting
import Glibc
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// Waits, in a greenlet, until the condition is true.
func waitUntil(_ condition: () -> Bool) throws {
    while !condition() { try sleep(for: .milliseconds(1)) }
}

private func disposition(of number: CInt) -> Bool {
    var action = sigaction()
    sigaction(number, nil, &action)
    return action.__sigaction_handler.sa_handler == nil
}

@Suite("Signals")
struct SignalTests {
    @Test(
        "A handler runs in its own greenlet and may park; it stays registered", arguments: bothLoops)
    func inAGreenlet(loop: TestLoop) throws {
        let entries = try logged(on: loop) { log, hub in
            var seen: [AnyGreenlet] = []
            let registration = try onSignal(SIGUSR1) {
                seen.append(.current)
                try sleep(for: .milliseconds(2))
                log.note("handled")
            }
            for round in 1...3 {
                raise(SIGUSR1)
                try waitUntil { log.entries.count == round }
            }
            #expect(Set(seen.map(ObjectIdentifier.init)).count == 3)
            #expect(seen.allSatisfy { $0 is RawGreenlet })
            #expect(registration.isActive)
            registration.cancel()
            registration.cancel()
            #expect(!registration.isActive)
        }
        #expect(entries == ["handled", "handled", "handled"])
    }

    @Test("A registration does not keep the loop alive unless it is referenced", arguments: bothLoops)
    func referenced(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let registration = try onSignal(SIGUSR1) {}
            #expect(try hub.join())
            var handled = false
            let other = try onSignal(SIGUSR2, referenced: true) { handled = true }
            raise(SIGUSR2)
            #expect(try hub.join(timeout: .milliseconds(50)) == false)
            #expect(handled)
            other.cancel()
            #expect(try hub.join())
            registration.cancel()
            #expect(try hub.join())
        }
    }

    @Test("An error from the handler is raised in main, and the handler remains", arguments: bothLoops)
    func errors(loop: TestLoop) throws {
        let entries = try logged(on: loop) { log, hub in
            var count = 0
            let registration = try onSignal(SIGUSR1) {
                count += 1
                throw Boom("\(count)")
            }
            for _ in 1...2 {
                raise(SIGUSR1)
                log.outcome("main") { try sleep(for: .seconds(5)) }
            }
            #expect(registration.isActive)
            registration.cancel()
        }
        #expect(entries == ["main: threw 1", "main: threw 2"])
    }

    @Test("An exit ends a handler silently")
    func exits() throws {
        let entries = try logged { log, hub in
            let registration = try onSignal(SIGUSR1) {
                log.note("handled")
                throw OwnExit()
            }
            raise(SIGUSR1)
            try sleep(for: .milliseconds(1))
            registration.cancel()
        }
        #expect(entries == ["handled"])
    }

    @Test("Each delivery runs one greenlet, however many signals arrive before the hub checks")
    func counted() throws {
        try withHub(on: .configured) { _ in
            var handled = 0
            let registration = try onSignal(SIGUSR1) { handled += 1 }
            for _ in 0..<100 { raise(SIGUSR1) }
            try waitUntil { handled >= 100 }
            try sleep(for: .milliseconds(1))
            #expect(handled == 100)
            registration.cancel()
        }
    }

    @Test("Several registrations for a signal each get it, in order; each is cancelled alone")
    func several() throws {
        let entries = try logged { log, hub in
            let first = try onSignal(SIGUSR1) { log.note("first") }
            let second = try onSignal(SIGUSR1) { log.note("second") }
            raise(SIGUSR1)
            try sleep(for: .milliseconds(1))
            first.cancel()
            raise(SIGUSR1)
            try sleep(for: .milliseconds(1))
            second.cancel()
        }
        #expect(entries == ["first", "second", "second"])
    }

    @Test("A registration gets no signal from before it, and none after its cancellation")
    func onlyWhileRegistered() throws {
        let entries = try logged { log, hub in
            let first = try onSignal(SIGUSR1) { log.note("first") }
            raise(SIGUSR1)
            let second = try onSignal(SIGUSR1) { log.note("second") }
            raise(SIGUSR1)
            second.cancel()
            try sleep(for: .milliseconds(1))
            first.cancel()
        }
        #expect(entries == ["first", "first"])
    }

    @Test("The hubs of several threads each get each delivery")
    func severalHubs() throws {
        let handled = Counter()
        let ready = Counter()
        let done = Counter()
        let threads = (0..<3).map { _ in
            TestThread {
                do {
                    try withHub(on: .configured) { _ in
                        let registration = try onSignal(SIGUSR1) { handled.add() }
                        ready.add()
                        try waitUntil { done.count > 0 }
                        registration.cancel()
                    }
                } catch {
                    Issue.record(error)
                    ready.add()
                }
            }
        }
        while ready.count < 3 { Glibc.usleep(1000) }
        for round in 1...5 {
            kill(getpid(), SIGUSR1)
            while handled.count < 3 * round { Glibc.usleep(1000) }
        }
        done.add()
        for thread in threads { thread.join() }
        #expect(handled.count == 15)
    }

    @Test("A sleeping hub is woken by a signal that another thread receives", arguments: [TestLoop.configured])
    func wakesSleepingHub(loop: TestLoop) throws {
        try withHub(on: loop) { _ in
            let main = AnyGreenlet.current
            let registration = try onSignal(SIGUSR2) { try Gevent.kill(main, throwing: Boom()) }
            let sender = TestThread {
                Glibc.usleep(5000)
                kill(getpid(), SIGUSR2)
            }
            #expect(throws: Boom.self) { try sleep(for: .seconds(60)) }
            sender.join()
            registration.cancel()
        }
    }

    @Test("The process's previous signal action is restored with the last registration of all hubs")
    func restored() async {
        await #expect(processExitsWith: .success) {
            #expect(disposition(of: SIGUSR1))
            try withHub { _ in
                let first = try onSignal(SIGUSR1) {}
                let second = try onSignal(SIGUSR1) {}
                try onFreshThread {
                    try withHub { _ in _ = try onSignal(SIGUSR1) {} }
                }
                guard !disposition(of: SIGUSR1) else { exit(1) }
                first.cancel()
                guard !disposition(of: SIGUSR1) else { exit(2) }
                second.cancel()
                guard disposition(of: SIGUSR1) else { exit(3) }
                try onSignal(SIGUSR1) {}
            }
            // A destroyed hub cancels its registrations.
            guard disposition(of: SIGUSR1) else { exit(4) }
            // A handler that replaced ours is left alone.
            try withHub { _ in
                let registration = try onSignal(SIGUSR1) {}
                signal(SIGUSR1) { _ in }
                registration.cancel()
            }
            exit(disposition(of: SIGUSR1) ? 5 : 0)
        }
    }

    @Test("Signals that cannot be delivered to a program are refused, and leave nothing behind")
    func refused() throws {
        let before = openDescriptorCount()
        try withHub { _ in
            func code(_ number: CInt) -> SignalError.Code? {
                do {
                    try onSignal(number) {}.cancel()
                    return nil
                } catch {
                    #expect("\(error)".hasPrefix("signal \(number): "))
                    return (error as? SignalError)?.code
                }
            }
            #expect(code(SIGKILL) == .cannotBeCaught)
            #expect(code(SIGSTOP) == .cannotBeCaught)
            #expect(code(0) == .noSuchSignal)
            #expect(code(-1) == .noSuchSignal)
            #expect(code(65) == .noSuchSignal)
            // A signal that the C library uses itself.
            #expect(code(32) == .noSuchSignal)
            for number in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS] {
                #expect(code(number) == .synchronous)
            }
            #expect(code(SIGTERM) == nil)
            #expect(code(SIGUSR1) == nil)
        }
        #expect(openDescriptorCount() == before)
    }

    @Test("Registrations leak no descriptor, cancelled or not, and the hub releases their closures")
    func leavesNothing() throws {
        let before = openDescriptorCount()
        let alive = Counter()
        for _ in 0..<3 {
            try withHub(on: .configured) { _ in
                alive.add(2)
                let own = openDescriptorCount()
                let first = Witness { alive.add(-1) }
                let second = Witness { alive.add(-1) }
                try onSignal(SIGUSR1) { withExtendedLifetime(first) {} }.cancel()
                #expect(openDescriptorCount() == own)
                try onSignal(SIGUSR2) { withExtendedLifetime(second) {} }
            }
        }
        #expect(alive.count == 0)
        #expect(openDescriptorCount() == before)
    }

    @Test("Running out of descriptors throws, and the next attempt works")
    func outOfDescriptors() async {
        await #expect(processExitsWith: .success) {
            try withHub { _ in
                let taken = takeAllDescriptors()
                do {
                    try onSignal(SIGUSR1) {}
                    exit(1)
                } catch let error as SystemError {
                    if error.errno != EMFILE { exit(2) }
                }
                for descriptor in taken { close(descriptor) }
                try onSignal(SIGUSR1) {}.cancel()
            }
            exit(0)
        }
    }

    @Test("A handler for SIGCHLD runs in addition to waits for children", arguments: bothLoops)
    func childSignals(loop: TestLoop) throws {
        try withHub(on: loop) { _ in
            var signals = 0
            let registration = try onSignal(SIGCHLD) { signals += 1 }
            let child = try shell("exit 4")
            #expect(try waitPID(child).status.exitCode == 4)
            try waitUntil { signals > 0 }
            registration.cancel()
        }
    }

    @Test("Cancelling or referencing on another thread stops the program with a message that says so")
    func elsewhere() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let registration = Smuggled(try onSignal(SIGUSR1) {})
                try onFreshThread { registration.value.cancel() }
            }
        }
        #expect(text(result.standardErrorContent).contains("wrongThread"))
    }

    @Test("Code interrupted by a signal keeps its errno")
    func errnoKept() throws {
        try withHub { _ in
            let registration = try onSignal(SIGUSR1) {}
            errno = EDOM
            raise(SIGUSR1)
            #expect(errno == EDOM)
            registration.cancel()
        }
    }
}
