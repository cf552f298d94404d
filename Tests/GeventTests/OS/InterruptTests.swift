import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Ctrl-C")
struct InterruptTests {
    @Test("SIGINT is raised in main wherever it is parked, and in no other greenlet", arguments: bothLoops)
    func whereverMainIs(loop: TestLoop) throws {
        let entries = try logged(on: loop) { log, hub in
            let registration = try installSIGINTHandler()
            #expect(try installSIGINTHandler() === registration)
            let pipe = try Pipe()
            let bystander = spawn { log.outcome("bystander") { try sleep(for: .seconds(50)) } }
            let waits: [(String, () throws -> Void)] = [
                ("sleep", { try sleep(for: .seconds(9)) }), ("join", { try bystander.join() }),
                ("get", { try bystander.get() }), ("joinAll", { try joinAll([bystander]) }),
                ("read", { try waitRead(pipe.readEnd) }), ("hub.join", { _ = try hub.join() }),
            ]
            for (name, wait) in waits {
                spawnRaw { raise(SIGINT) }
                log.outcome(name, of: wait)
            }
            #expect(bystander.isActive)
            try bystander.kill()
            registration.cancel()
            registration.cancel()
            #expect(!registration.isActive)
        }
        #expect(
            entries == [
                "sleep: threw KeyboardInterrupt", "join: threw KeyboardInterrupt", "get: threw KeyboardInterrupt",
                "joinAll: threw KeyboardInterrupt", "read: threw KeyboardInterrupt",
                "hub.join: threw KeyboardInterrupt", "bystander: threw GreenletExit",
            ])
    }

    @Test("A running main gets it at its next park, once, however many were sent")
    func atTheNextPark() throws {
        let entries = try logged { log, hub in
            let registration = try installSIGINTHandler()
            raise(SIGINT)
            raise(SIGINT)
            log.outcome("first") { try sleep(for: .milliseconds(1)) }
            log.outcome("second") { try sleep(for: .milliseconds(1)) }
            registration.cancel()
        }
        #expect(entries == ["first: threw KeyboardInterrupt", "second: returned"])
    }

    @Test("The interrupt is a control error, so rethrowControl rethrows it")
    func controlError() {
        #expect(throws: KeyboardInterrupt.self) { try rethrowControl(KeyboardInterrupt()) }
    }

    @Test("shutdown removes the handler and runs the hub until no work remains")
    func shuttingDown() async {
        await #expect(processExitsWith: .signal(SIGINT)) {
            dieQuietly()
            try withHub { _ in
                try installSIGINTHandler()
                var ended = 0
                for number in 1...3 {
                    spawn {
                        try sleep(for: .seconds(number))
                        ended += 1
                    }
                }
                try Gevent.shutdown()
                if ended != 3 { exit(1) }
                // The default action applies again.
                var interrupt = sigset_t()
                sigemptyset(&interrupt)
                sigaddset(&interrupt, SIGINT)
                pthread_sigmask(SIG_UNBLOCK, &interrupt, nil)
                raise(SIGINT)
                exit(2)
            }
        }
    }

    @Test("shutdown works in main only, and does nothing without a hub")
    func shutdownElsewhere() throws {
        try onFreshThread {
            try Gevent.shutdown()
            #expect(!Hub.exists)
        }
        try withHub { hub in
            try installSIGINTHandler()
            try spawn { #expect(hubErrorCode { try Gevent.shutdown() } == .invalidSwitch) }.get()
            #expect(hub.existingService(SignalService.self)?.interrupt != nil)
            try Gevent.shutdown()
            #expect(hub.existingService(SignalService.self) == nil)
        }
    }

    @Test("A SIGINT a second after the first ends a program that has not reacted")
    func unanswered() async {
        await #expect(processExitsWith: .signal(SIGINT)) {
            dieQuietly()
            try withHub(on: .configured) { _ in
                try installSIGINTHandler()
                raise(SIGINT)
                // A duplicate, as from a parent that forwards the signal, counts once.
                raise(SIGINT)
                Glibc.usleep(1_100_000)
                raise(SIGINT)
                exit(1)
            }
        }
    }

    @Test(
        "An interrupt that ends a greenlet or a callback is raised in main and not reported",
        arguments: bothLoops)
    func endsAGreenlet(loop: TestLoop) throws {
        let entries = try logged(on: loop) { log, hub in
            hub.errorHandler = { error, _ in log.note("reported \(error)") }
            let greenlet = spawn { throw KeyboardInterrupt() }
            log.outcome("sleep") { try sleep(for: .seconds(9)) }
            #expect(greenlet.error is KeyboardInterrupt)
            hub.runCallback { throw KeyboardInterrupt() }
            log.outcome("join") { try Greenlet {}.join() }
            hub.systemErrors = []
            spawn { throw KeyboardInterrupt() }
            log.outcome("yields") { for _ in 0..<3 { try sleep() } }
        }
        #expect(
            entries == [
                "sleep: threw KeyboardInterrupt", "join: threw KeyboardInterrupt", "reported KeyboardInterrupt",
                "yields: returned",
            ])
    }

    @Test("An interrupt that main does not catch propagates like any error, and the hub remains")
    func uncaught() throws {
        #expect(throws: KeyboardInterrupt.self) {
            try withHub { _ in
                try installSIGINTHandler()
                raise(SIGINT)
                try sleep(for: .seconds(1))
            }
        }
        var action = sigaction()
        sigaction(SIGINT, nil, &action)
        #expect(action.__sigaction_handler.sa_handler == nil)
    }
}
