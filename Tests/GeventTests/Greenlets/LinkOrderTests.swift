import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// Effects of greenlets happen in the order of their causes, whatever else is linked to them.
@Suite("Order of links")
struct LinkOrderTests {
    @Test("Links made on an ended greenlet run when the caller yields once, whatever was linked before them")
    func oneYieldAfterTheEnd() throws {
        let log = try logged { log, _ in
            let greenlet = spawn { 1 }
            try greenlet.join()
            greenlet.linkError { _ in log.note("never") }
            greenlet.rawLink { _ in log.note("raw") }
            greenlet.link { _ in log.note("link") }
            greenlet.rawLink { log.note("waitable") }
            greenlet.linkValue { _ in log.note("value") }
            greenlet.rawLink { _ in log.note("last") }
            log.note("made")
            try sleep()
            log.note("yielded")
        }
        #expect(log == ["made", "raw", "link", "waitable", "value", "last", "yielded"])
    }

    @Test(
        "A skipped link, or one that runs on the hub, does not let links of a later end overtake those behind it",
        arguments: ["unmet", "raw", "waitable", "receiver"])
    func nothingOvertakes(_ before: String) throws {
        let log = try logged { log, hub in
            hub.quietErrors = [Boom.self, LinkedExited.self]
            let first = Greenlet { throw Boom() }
            let second = Greenlet {}
            let receiver = spawn { try sleep(for: .seconds(1)) }
            try sleep()
            switch before {
            case "unmet": first.linkValue { _ in log.note("never") }
            case "raw": first.rawLink { _ in }
            case "waitable": first.rawLink {}
            default: try first.link(to: receiver)
            }
            let joiner = spawn {
                try first.join()
                log.note("joined first")
            }
            try sleep()
            first.link { _ in log.note("link of first") }
            second.link { _ in log.note("link of second") }
            first.rawLink { _ in log.note("raw link of first") }
            second.rawLink { _ in log.note("raw link of second") }
            first.start()
            second.start()
            try hub.join()
            #expect(joiner.isDead && receiver.isDead)
        }
        #expect(
            log == ["joined first", "link of first", "raw link of first", "link of second", "raw link of second"])
    }

    @Test("A deinit run by the end of a group's member may link to the failure that ended it")
    func linksMadeWhileNotifying() throws {
        let log = try logged { log, hub in
            hub.quietErrors = [Boom.self]
            log.outcome("group") {
                try withGroup { group in
                    let failing = group.spawn { throw Boom() }
                    do {
                        let witness = Witness { failing.link { _ in log.note("linked last") } }
                        group.spawn(after: .seconds(1)) { withExtendedLifetime(witness) {} }
                    }
                    failing.link { _ in log.note("linked first") }
                    try sleep(for: .seconds(5))
                }
            }
            // Each greenlet has its own links.
            let others = ["a", "b", "c"].map { name in
                let greenlet = spawn { try sleep(for: .seconds(1)) }
                greenlet.link { _ in log.note(name) }
                return greenlet
            }
            try joinAll(others)
            try hub.join()
        }
        #expect(log == ["group: threw Boom", "linked first", "linked last", "a", "b", "c"])
    }

    @Test("A pending link of an ended greenlet can be removed, alone or with all others")
    func removedBeforeItRuns() throws {
        let log = try logged { log, hub in
            let greenlet = spawn {}
            try greenlet.join()
            func linkAll() -> [Registration] {
                [
                    greenlet.link { _ in log.note("link") }, greenlet.linkValue { _ in log.note("value") },
                    greenlet.rawLink { _ in log.note("raw") },
                ]
            }
            let tokens = linkAll()
            let waitable = greenlet.rawLink { log.note("waitable") }
            #expect(greenlet.hasLinks)
            for token in tokens { token.cancel() }
            waitable.cancel()
            #expect(!greenlet.hasLinks && !waitable.isActive)
            try hub.join()
            _ = linkAll()
            greenlet.rawLink { log.note("waitable") }
            greenlet.unlinkAll()
            #expect(!greenlet.hasLinks)
            try hub.join()
            _ = linkAll()
            try hub.join()
            #expect(!greenlet.hasLinks)
        }
        #expect(log == ["link", "value", "raw"])
    }
}
