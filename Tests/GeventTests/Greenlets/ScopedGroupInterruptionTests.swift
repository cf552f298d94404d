import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Scoped groups whose caller is interrupted")
struct ScopedGroupInterruptionTests {
    @Test("A kill of the caller ends the greenlets, both in the body and in the final wait")
    func callerIsKilled() throws {
        let log = try logged { log, hub in
            for place in ["body", "final wait"] {
                let caller = spawn {
                    log.outcome(place) {
                        try withGroup { group in
                            group.spawn { log.outcome("child") { try sleep(for: .seconds(9)) } }
                            if place == "body" { try sleep(for: .seconds(9)) }
                        }
                    }
                }
                try sleep(for: .seconds(1))
                try caller.kill(throwing: OwnExit())
            }
        }
        #expect(
            log == [
                "child: threw GreenletExit", "body: threw OwnExit", "child: threw GreenletExit",
                "final wait: threw OwnExit",
            ])
    }

    @Test(
        "A kill and a failure at the same time: the scope throws the kill and reports the failure",
        arguments: [true, false])
    func killAndFailure(killComesFirst: Bool) throws {
        let log = try logged { log, hub in
            var caller: Greenlet<Void>?
            caller = spawn {
                log.outcome("scope") {
                    try withGroup { group in
                        let child = group.spawn { try sleep(for: .seconds(9)) }
                        child.name = "child"
                        try sleep()
                        hub.runCallback {
                            if killComesFirst { try kill(caller!) }
                            try kill(child, throwing: Boom())
                            if !killComesFirst { try kill(caller!) }
                        }
                        try sleep(for: .seconds(9))
                    }
                }
                log.outcome("afterwards") { try sleep() }
            }
            try caller!.join()
            caller = nil
            _ = try hub.join()
        }
        #expect(
            log.sorted() == [
                "afterwards: returned", "reported Boom of <Greenlet<()> \"child\">", "scope: threw GreenletExit",
            ])
    }

    @Test("A second kill does not end the wait for ending greenlets: it interrupts them again and is raised afterwards")
    func secondKill() throws {
        let log = try logged { log, hub in
            let start = hub.now
            let caller = spawn {
                log.outcome("scope") {
                    try withGroup { group in
                        group.spawn {
                            log.outcome("child") { try sleep(for: .seconds(9)) }
                            log.outcome("cleanup") { try sleep(for: .seconds(99)) }
                            log.outcome("more cleanup") { try sleep(for: .seconds(1)) }
                        }
                        try sleep(for: .seconds(9))
                    }
                }
                log.outcome("afterwards") { try sleep() }
                log.outcome("then") { try sleep() }
            }
            try sleep()
            try sleep()
            try kill(caller, throwing: OwnExit())
            try sleep(for: .seconds(1))
            try kill(caller)
            try sleep()
            try caller.join()
            log.note("\(start.duration(to: hub.now) == .seconds(2))")
        }
        #expect(
            log == [
                "child: threw GreenletExit", "cleanup: threw GreenletExit", "more cleanup: returned",
                "scope: threw OwnExit", "afterwards: threw GreenletExit", "then: returned", "true",
            ])
    }

    @Test("A third kill interrupts them once more, and the caller gets one of the two kills it has not seen")
    func thirdKill() throws {
        let log = try logged { log, hub in
            let start = hub.now
            let caller = spawn {
                log.outcome("scope") {
                    try withGroup { group in
                        group.spawn { for number in 0..<4 { log.outcome("\(number)") { try sleep(for: .seconds(9)) } } }
                        try sleep(for: .seconds(9))
                    }
                }
                log.outcome("afterwards") { try sleep() }
                log.outcome("then") { try sleep() }
            }
            try sleep()
            try sleep()
            for _ in 0..<4 {
                try kill(caller)
                try sleep()
                try sleep()
                try sleep()
            }
            try caller.join()
            log.note("\(start.duration(to: hub.now) == .zero)")
        }
        #expect(
            log == (0..<4).map { "\($0): threw GreenletExit" } + [
                "scope: threw GreenletExit", "afterwards: threw GreenletExit", "then: returned", "true",
            ])
    }

    @Test("A sticky kill of the caller is sticky for its greenlets")
    func stickyKill() throws {
        let log = try logged { log, hub in
            for moment in ["in the body", "while they end"] {
                let caller = spawn {
                    log.outcome(moment) {
                        try withGroup { group in
                            group.spawn {
                                for number in 0..<3 { log.outcome("\(number)") { try sleep(for: .seconds(9)) } }
                            }
                            try sleep(for: .seconds(9))
                        }
                    }
                    log.outcome("afterwards") { try sleep() }
                }
                try sleep()
                try sleep()
                if moment == "while they end" {
                    try kill(caller)
                    try sleep()
                    try sleep()
                }
                try caller.kill(sticky: true)
            }
        }
        let children = (0..<3).map { "\($0): threw GreenletExit" }
        #expect(
            log == children + ["in the body: threw GreenletExit", "afterwards: threw GreenletExit"]
                + children + ["while they end: threw GreenletExit", "afterwards: threw GreenletExit"])
    }

    @Test(
        "A timeout around the scope ends it and propagates",
        arguments: bothLoops)
    func timeouts(loop: TestLoop) throws {
        let log = try logged(on: loop) { log, hub in
            log.outcome("value") {
                try withTimeout(.milliseconds(5), timeoutValue: "too late") {
                    try withGroup { group in
                        group.spawn { log.outcome("child") { try sleep(for: .seconds(9)) } }
                    }
                    return "in time"
                }
            }
            log.outcome("afterwards") { try sleep(for: .milliseconds(1)) }
        }
        #expect(
            log == [
                "child: threw GreenletExit", "value: too late", "afterwards: returned",
            ])
    }

    @Test("A second timeout does not end the wait for ending greenlets; its scope withdraws it unseen")
    func secondTimeout() throws {
        let log = try logged { log, hub in
            log.outcome("nested") {
                try withTimeout(.milliseconds(20), timeoutValue: "outer") {
                    try withTimeout(.milliseconds(5), timeoutValue: "inner") {
                        try withGroup { group in
                            group.spawn {
                                log.outcome("child") { try sleep(for: .seconds(9)) }
                                log.outcome("cleanup") { try sleep(for: .seconds(9)) }
                            }
                            try sleep(for: .seconds(9))
                        }
                        return "in time"
                    }
                }
            }
            log.outcome("afterwards") { try sleep(for: .milliseconds(1)) }
        }
        #expect(
            log == [
                "child: threw GreenletExit", "cleanup: threw GreenletExit", "nested: inner", "afterwards: returned",
            ])
    }
}
