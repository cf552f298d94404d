import Gevent
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("withGreenlet")
struct WithGreenletTests {
    @Test("withGreenlet joins at the end and does not throw the greenlet's failure")
    func withGreenletJoins() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { error, _ in log.note("reported \(error)") }
            let value = try withGreenlet(
                spawn {
                    try sleep(for: .seconds(1))
                    log.note("greenlet ends")
                }
            ) { greenlet in
                log.note("body \(greenlet.isActive)")
                return 5
            }
            log.note("\(value)")
            let failing = spawn { () throws -> Int in throw Boom() }
            log.outcome("failing") { try withGreenlet(failing) { _ in } }
            log.outcome("get") { try failing.get() }
        }
        #expect(
            log == ["body true", "greenlet ends", "5", "reported Boom", "failing: returned", "get: threw Boom"])
    }

    @Test("withGreenlet kills the greenlet with its body's error, or with an error from its wait, and rethrows that")
    func withGreenletKills() throws {
        let log = try logged { log, hub in
            func watched() -> Greenlet<Void> {
                spawn {
                    do { try sleep(for: .seconds(9)) } catch {
                        log.note("greenlet: \(error)")
                        try sleep(for: .seconds(1))
                        throw error
                    }
                }
            }
            log.outcome("body throws") {
                try withGreenlet(watched()) { _ in
                    try sleep()
                    throw OwnExit()
                }
            }
            let greenlet = watched()
            let caller = spawn { log.outcome("killed") { try withGreenlet(greenlet) { _ in } } }
            try sleep()
            try caller.kill()
            log.note("\(greenlet.isDead)")
        }
        #expect(
            log == [
                "greenlet: OwnExit", "body throws: threw OwnExit", "greenlet: GreenletExit",
                "killed: threw GreenletExit",
                "true",
            ])
    }
}
