import Gevent
import GeventTesting
import Testing

@Suite("withTimeout and withSilentTimeout")
struct WithTimeoutTests {
    @Test("withTimeout throws its own Timeout on expiry, or the given error", arguments: bothLoops)
    func throwsItsOwn(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            var own: Timeout?
            do {
                try withTimeout(.milliseconds(2)) { timeout in
                    own = timeout
                    try sleep(for: .seconds(1000))
                }
            } catch let timeout as Timeout where timeout === own {
                log.note("own")
            }
            log.outcome("error") {
                try withTimeout(.milliseconds(2), throwing: Boom()) { _ in try sleep(for: .seconds(1000)) }
            }
            #expect(hub.statistics.pendingTimers == 0)
        }
        #expect(log == ["own", "error: threw Boom"])
    }

    @Test("Each form accepts a closure with or without the timeout")
    func sameClosures() throws {
        let log = try logged { log, hub in
            let long = Duration.seconds(1000)
            var own: [Timeout] = []
            log.outcome("plain") { try withTimeout(.milliseconds(2)) { try sleep(for: long) } }
            log.outcome("value") {
                try withTimeout(.milliseconds(2), timeoutValue: 7) { timeout in
                    own.append(timeout)
                    try sleep(for: long)
                    return 0
                }
            }
            log.outcome("silent") {
                let outcome: Void? = try withSilentTimeout(.milliseconds(2)) { timeout in
                    own.append(timeout)
                    try sleep(for: long)
                }
                return outcome == nil
            }
            #expect(own.map(\.duration) == [.milliseconds(2), .milliseconds(2)] && !own.contains(where: \.isPending))
        }
        #expect(log == ["plain: threw 0.002 seconds", "value: 7", "silent: true"])
    }

    @Test("The timeout is cancelled on every exit from the scope")
    func cancelledOnEveryWayOut() throws {
        let log = try logged { log, hub in
            log.outcome("value") { try withTimeout(.seconds(1)) { _ in 1 } }
            log.outcome("error") { try withTimeout(.seconds(1)) { _ in throw Boom() } }
            log.outcome("silent value") { try withSilentTimeout(.seconds(1)) { 2 } ?? 0 }
            log.outcome("silent error") { try withSilentTimeout(.seconds(1)) { throw Boom() } }
            log.outcome("value form") { try withTimeout(.seconds(1), timeoutValue: 0) { 3 } }
            log.outcome("value form error") { try withTimeout(.seconds(1), timeoutValue: 0) { throw Boom() } }
            let killed = spawn { try withTimeout(.seconds(1)) { _ in try sleep(for: .seconds(5)) } }
            try sleep()
            try killed.kill()
            #expect(hub.statistics.pendingTimers == 0)
            try sleep(for: .seconds(10))
        }
        #expect(
            log == [
                "value: 1", "error: threw Boom", "silent value: 2", "silent error: threw Boom", "value form: 3",
                "value form error: threw Boom",
            ])
    }

    @Test(
        "Nested: if the inner fires first, it is thrown in the inner scope and the outer stays pending",
        arguments: bothLoops)
    func innerFirst(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            try withTimeout(.seconds(1000)) { outer in
                do {
                    try withTimeout(.milliseconds(1)) { inner in
                        do { try sleep(for: .seconds(1000)) } catch let caught as Timeout {
                            log.note("inner \(caught === inner), outer pending \(outer.isPending)")
                            throw caught
                        }
                    }
                } catch let caught as Timeout {
                    log.note("between: \(caught), outer pending \(outer.isPending)")
                }
            }
            #expect(hub.statistics.pendingTimers == 0)
        }
        #expect(log == ["inner true, outer pending true", "between: 0.001 seconds, outer pending true"])
    }

    @Test("Nested: if the outer fires first, the inner is cancelled while unwinding", arguments: bothLoops)
    func outerFirst(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            var inner: Timeout?
            var outer: Timeout?
            do {
                try withTimeout(.milliseconds(1)) { timeout in
                    outer = timeout
                    try withTimeout(.seconds(1000)) { timeout in
                        inner = timeout
                        try sleep(for: .seconds(1000))
                    }
                }
            } catch let caught as Timeout {
                log.note("outer \(caught === outer), inner pending \(inner?.isPending ?? true)")
            }
            #expect(hub.statistics.pendingTimers == 0)
        }
        #expect(log == ["outer true, inner pending false"])
    }

    @Test("Nested with equal deadlines: they fire in the order started, the outer first", arguments: bothLoops)
    func equalDeadlines(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            let before = hub.now
            // On a real clock the outer's deadline is a little earlier: it was started before.
            let result: Void? = try withSilentTimeout(.milliseconds(2)) {
                try withSilentTimeout(.milliseconds(2)) { try sleep(for: .seconds(1000)) }
                log.note("not reached")
            }
            log.note("\(result == nil), not early \(before.duration(to: hub.now) >= .milliseconds(2))")
            try sleep(for: .milliseconds(5))
        }
        #expect(log == ["true, not early true"])
    }

    @Test("withSilentTimeout turns only its own expiry into nil; another Timeout propagates", arguments: bothLoops)
    func silentOnlyForItsOwn(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            log.note("\(try withSilentTimeout(.milliseconds(2)) { try sleep(for: .seconds(1000)) } == nil)")
            let foreign = Timeout.startNew(.milliseconds(2))
            let caught = #expect(throws: Timeout.self) {
                try withSilentTimeout(.seconds(1000)) { try sleep(for: .seconds(1000)) }
            }
            log.note("\(caught === foreign)")
            // A Timeout thrown by hand is foreign too.
            let thrown = Timeout(.seconds(7))
            let other = #expect(throws: Timeout.self) { try withSilentTimeout(.seconds(1)) { throw thrown } }
            log.note("\(other === thrown)")
        }
        #expect(log == ["true", "true", "true"])
    }

    @Test("Of two silent scopes the inner lets the outer's expiry propagate, and the outer turns it into nil")
    func silentInSilent() throws {
        let log = try logged { log, hub in
            let outcome = try withSilentTimeout(.seconds(1)) { () throws -> String in
                let inner: Void? = try withSilentTimeout(.seconds(5)) { try sleep(for: .seconds(100)) }
                return "inner \(inner == nil)"
            }
            log.note("\(outcome ?? "nil") at \(hub.now.nanoseconds / 1_000_000_000)")
        }
        #expect(log == ["nil at 1"])
    }

    @Test("withTimeout(timeoutValue:) returns the value on its own expiry, nil included", arguments: bothLoops)
    func timeoutValue(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, _ in
            log.outcome("value") {
                try withTimeout(.milliseconds(1), timeoutValue: "late") {
                    try sleep(for: .seconds(1000))
                    return "in time"
                }
            }
            log.outcome("in time") { try withTimeout(.seconds(1000), timeoutValue: "late") { "in time" } }
            let nothing: Int? = try withTimeout(.milliseconds(1), timeoutValue: nil) {
                try sleep(for: .seconds(1000))
                return 1
            }
            log.note("\(nothing == nil)")
            log.outcome("throwing value") {
                try withTimeout(.milliseconds(1), timeoutValue: try { throw Boom() }()) {
                    try sleep(for: .seconds(1000))
                }
            }
        }
        #expect(log == ["value: late", "in time: in time", "true", "throwing value: threw Boom"])
    }

    @Test("withTimeout(timeoutValue:): a foreign Timeout propagates", arguments: bothLoops)
    func timeoutValueForeign(loop: TestLoop) throws {
        try withHub(on: loop) { _ in
            let foreign = Timeout.startNew(.milliseconds(1))
            let caught = #expect(throws: Timeout.self) {
                try withTimeout(.seconds(1000), timeoutValue: 0) {
                    try sleep(for: .seconds(1000))
                    return 1
                }
            }
            #expect(caught === foreign)
        }
    }

    @Test("A body that ends although the timeout has fired keeps its value, and nothing is thrown later")
    func expiredButDone() throws {
        let log = try logged { log, _ in
            let value = try withTimeout(.seconds(1)) { _ in
                try? sleep(for: .seconds(5))
                return "done"
            }
            log.note(value)
            try sleep(for: .seconds(5))
        }
        #expect(log == ["done"])
    }

    @Test("Each greenlet has its own timeouts, however many run at once")
    func many() throws {
        let results = try withHub { _ in
            let greenlets = (0..<200).map { number in
                spawn {
                    try withSilentTimeout(.milliseconds(100 + number)) { try sleep(for: .milliseconds(200)) } == nil
                }
            }
            return try greenlets.map { try $0.get() }
        }
        // Equal deadlines fire in the order started, and the timeout is started first.
        #expect(results == (0..<200).map { $0 <= 100 })
    }

    @Test("A hub callback or raw link has no greenlet to throw into: blockedInHub, and the body does not run")
    func inHubCallback() throws {
        let log = try logged { log, hub in
            let never = Greenlet { 1 }
            let result = AsyncResult<Int>()
            let calls: [(String, () throws -> Void)] = [
                ("withTimeout", { try withTimeout(.seconds(1)) { _ in log.note("body") } }),
                ("without a limit", { try withTimeout(nil) { _ in log.note("body") } }),
                ("timeoutValue", { try withTimeout(.seconds(1), timeoutValue: ()) { log.note("body") } }),
                ("silent", { try withSilentTimeout(.seconds(1)) { log.note("body") } }),
                ("get", { _ = try never.get(timeout: Timeout(.seconds(1))) }),
                ("get of a result", { _ = try result.get(timeout: Timeout(.seconds(1))) }),
            ]
            for (name, call) in calls {
                hub.runCallback { log.note("\(name): \(hubErrorCode(call)?.rawValue ?? "none")") }
            }
            try sleep()
            let ended = spawn {}
            ended.rawLink { _ in try withTimeout(.seconds(1)) { _ in log.note("body") } }
            try hub.join()
            #expect(hub.statistics.pendingTimers == 0)
        }
        #expect(log.count == 7)
        #expect(log.dropLast().allSatisfy { $0.hasSuffix(": blockedInHub") })
        #expect(log.last?.hasPrefix("reported blockedInHub") == true)
    }

    @Test("The timeout counts across many parks, not per park")
    func acrossManyParks() throws {
        let count = try withHub { _ in
            var count = 0
            _ = try withSilentTimeout(.milliseconds(10)) {
                while true {
                    try sleep(for: .milliseconds(3))
                    count += 1
                }
            }
            return count
        }
        #expect(count == 3)
    }
}
