import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A ``Timeout`` is a control error only for the greenlet it was thrown into, until it is cancelled there.
@Suite("Scope of a timeout")
struct TimeoutScopeTests {
    /// Whether the catch-all from the documentation rethrows `error`.
    private static func passes(_ error: any Error) -> Bool { thrownError { try rethrowControl(error) } != nil }

    private static func expiry(_ body: () throws -> Void) -> any Error {
        thrownError(body) ?? Boom("nothing was thrown")
    }

    @Test("A Timeout passes a catch-all inside its scope, and is an ordinary error outside")
    func insideAndOutside() throws {
        let log = try logged { log, _ in
            let error = Self.expiry {
                try withTimeout(.seconds(1)) { timeout in
                    let caught = Self.expiry { try sleep(for: .seconds(5)) }
                    log.note("inside: \(Self.passes(caught)), \(caught as? Timeout === timeout)")
                    throw caught
                }
            }
            log.note("outside: \(Self.passes(error)), \(error is Timeout)")
        }
        #expect(log == ["inside: true, true", "outside: false, true"])
    }

    @Test("A worker that limits each job, and continues after its failures, does not end its group")
    func workerInAGroup() throws {
        let log = try logged { log, _ in
            log.outcome("group") { () throws -> Void in
                try withGroup { group in
                    _ = group.spawn {
                        for job in 1...3 {
                            do {
                                try withTimeout(.milliseconds(10)) { _ in
                                    if job == 2 { throw Boom() }
                                    try sleep(for: .seconds(60))
                                }
                            } catch {
                                try rethrowControl(error)
                                log.note("job \(job): \(error)")
                            }
                        }
                    }
                }
            }
        }
        #expect(log == ["job 1: 0.01 seconds", "job 2: Boom", "job 3: 0.01 seconds", "group: returned"])
    }

    @Test("A Timeout started by hand passes until it is cancelled, restarted or closed; so does a foreign scope's")
    func byHand() throws {
        try withHub { _ in
            let timeout = Timeout(.seconds(1))
            #expect(!Self.passes(timeout))
            timeout.start()
            #expect(Self.passes(timeout))
            let caught = Self.expiry { try sleep(for: .seconds(5)) }
            #expect(caught as? Timeout === timeout && Self.passes(caught) && !timeout.isPending)
            // It was not cancelled: its starter is further up the stack.
            try sleep()
            #expect(Self.passes(caught))
            timeout.start()
            #expect(timeout.isPending && Self.passes(caught))
            timeout.cancel()
            #expect(!timeout.isPending && !Self.passes(caught))
            timeout.start()
            _ = Self.expiry { try sleep(for: .seconds(5)) }
            timeout.close()
            #expect(!Self.passes(timeout))
            try withTimeout(.seconds(1)) { _ in
                let inner = Self.expiry { try withTimeout(.seconds(5)) { _ in try sleep(for: .seconds(9)) } }
                #expect(Self.passes(inner))
            }
        }
    }

    @Test("A greenlet's failure is an ordinary error for greenlets that get it, cancelled or not")
    func ofAnotherGreenlet() throws {
        try withHub { hub in
            hub.quietErrors = [Timeout.self]
            let cancelled = spawn { try withTimeout(.seconds(1)) { _ in try sleep(for: .seconds(5)) } }
            let forgotten = spawn {
                Timeout(.seconds(1)).start()
                try sleep(for: .seconds(5))
            }
            for greenlet in [cancelled, forgotten] {
                let error = Self.expiry { try greenlet.get() }
                #expect(error is Timeout && !Self.passes(error))
            }
            // The timeout was raised in this live greenlet, so it is a control error here and nowhere else.
            let box = Log()
            let living = spawn {
                let timeout = Timeout.startNew(.seconds(1))
                do { try sleep(for: .seconds(5)) } catch { box.note("\(Self.passes(error))") }
                let other = spawn { box.note("\(Self.passes(timeout))") }
                try other.join()
                box.note("\(Self.passes(timeout))")
            }
            try living.join()
            #expect(box.entries == ["true", "false", "true"])
        }
    }

    @Test("A Timeout from a call's own limit is ordinary; one from outside is not")
    func limitsOfCalls() throws {
        try withHub { _ in
            let sleeper = spawn { try sleep(for: .seconds(100)) }
            let stubborn = spawn {
                while true { do { try sleep(for: .seconds(10)) } catch  where sleeper.isActive {} }
            }
            let result = AsyncResult<Int>()
            try sleep()
            #expect(!Self.passes(Self.expiry { try sleeper.get(timeout: .seconds(1)) }))
            #expect(!Self.passes(Self.expiry { try sleeper.get(blocking: false) }))
            #expect(!Self.passes(Self.expiry { _ = try result.get(timeout: .seconds(1)) }))
            #expect(!Self.passes(Self.expiry { try killAll([stubborn], timeout: .seconds(1)) }))
            #expect(!Self.passes(Self.expiry { try sleeper.get(timeout: Timeout(.seconds(1))) }))
            try withTimeout(.seconds(1)) { _ in
                #expect(Self.passes(Self.expiry { try sleeper.get(timeout: .seconds(5)) }))
            }
            try sleeper.kill()
            try stubborn.kill()
        }
    }

    @Test("A scope whose body failed with its own finished timeout throws the earlier failure of a member")
    func finishedTimeoutOfAGroupsBody() throws {
        let log = try logged { log, _ in
            log.outcome("group") {
                try withGroup { group in
                    let finished = Self.expiry { try withTimeout(.seconds(1)) { _ in try sleep(for: .seconds(5)) } }
                    group.spawn { throw Boom() }
                    do { try sleep(for: .seconds(5)) } catch { throw finished }
                }
            }
        }
        #expect(log == ["reported 1 second of <MainGreenlet>", "group: threw Boom"])
    }

    @Test("Many timeouts may be raised in one greenlet, and each is forgotten when it is cancelled")
    func many() throws {
        try withHub { hub in
            for _ in 0..<100 {
                let timeout = Timeout.startNew(.milliseconds(1))
                _ = Self.expiry { try sleep(for: .seconds(1)) }
                #expect(Self.passes(timeout))
                timeout.cancel()
                #expect(!Self.passes(timeout))
            }
            #expect(hub.statistics.pendingTimers == 0)
        }
    }

    @Test("A timeout of a destroyed hub, or of another thread, is ordinary; cancelling it there is harmless")
    func elsewhere() throws {
        try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            let timeout = Timeout.startNew(.seconds(1))
            _ = Self.expiry { try sleep(for: .seconds(5)) }
            #expect(Self.passes(timeout))
            try onFreshThread {
                #expect(!Self.passes(timeout))
                timeout.cancel()
                try sleep()
                #expect(!Self.passes(timeout))
            }
            #expect(Self.passes(timeout))
            hub.destroy()
            #expect(!Self.passes(timeout))
            timeout.cancel()
            try sleep()
            #expect(!Self.passes(timeout))
        }
    }

    @Test("At the top level, where Swift prints an error for debugging, the text says that it timed out")
    func debugText() {
        #expect(String(reflecting: Timeout(.milliseconds(10))) == "timed out after 0.01 seconds")
        #expect(String(reflecting: Timeout(.seconds(1), message: "no answer")) == "timed out after 1 second: no answer")
        #expect(String(reflecting: Timeout(nil)) == "timed out")
        #expect("\(Timeout(.milliseconds(10)))" == "0.01 seconds")
    }
}
