import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Links")
struct LinkTests {
    @Test("Links run in the order in which they were made, even a thousand of them")
    func order() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { try sleep() }
            for number in 0..<1000 {
                greenlet.rawLink { _ in log.note("\(number)") }
            }
            _ = try hub.join()
        }
        #expect(log == (0..<1000).map(String.init))
    }

    @Test("Links that run in their own greenlets start in the order in which they were made")
    func orderOfGreenlets() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { try sleep() }
            for number in 0..<1000 {
                if number.isMultiple(of: 2) {
                    greenlet.link { _ in log.note("\(number)") }
                } else {
                    greenlet.linkValue { _ in log.note("\(number)") }
                }
            }
            _ = try hub.join()
        }
        #expect(log == (0..<1000).map(String.init))
    }

    @Test("Links of all kinds start in the order in which they were made", arguments: ["ends", "is killed", "is over"])
    func orderOfKinds(_ when: String) throws {
        let log = try logged { log, hub in
            let result = AsyncResult<Int>()
            let greenlet = Greenlet { 7 }
            func linkAll() throws {
                greenlet.link { _ in log.note("link \(result.isReady)") }
                greenlet.rawLink { _ in log.note("raw") }
                greenlet.linkError { _ in log.note("never") }
                greenlet.linkValue { _ in log.note("value") }
                greenlet.rawLink { log.note("waitable") }
                greenlet.link { _ in log.note("link \(result.isReady)") }
                greenlet.link(to: result)
                greenlet.link { _ in log.note("link \(result.isReady)") }
                greenlet.rawLink { _ in log.note("last") }
            }
            if when != "is over" { try linkAll() }
            if when == "is killed" { try greenlet.kill() } else { greenlet.start() }
            try greenlet.join()
            if when == "is over" { try linkAll() }
            try hub.join()
        }
        #expect(log == ["link false", "raw", "value", "waitable", "link false", "link true", "last"])
    }

    @Test("A link of any kind on an ended greenlet runs as soon as the caller yields")
    func afterDeathAtOnce() throws {
        let log = try logged { log, _ in
            let greenlet = spawn { 1 }
            try greenlet.join()
            for (name, link) in [
                ("link", { greenlet.link { _ in log.note("link") } }),
                ("value", { greenlet.linkValue { _ in log.note("value") } }),
                ("raw", { greenlet.rawLink { _ in log.note("raw") } }),
            ] as [(String, () -> Registration)] {
                let token = link()
                log.note("made")
                try sleep()
                log.note("after \(name)")
                token.cancel()
            }
        }
        #expect(
            log == ["made", "link", "after link", "made", "value", "after value", "made", "raw", "after raw"])
    }

    @Test(
        "A link's greenlet is the hub's child, whichever greenlet runs at the notification, and inherits nothing from it"
    )
    func spawnerOfLinks() throws {
        let log = try logged { log, hub in
            let local = GreenletLocal(inheriting: true) { "default" }
            func watch(_ greenlet: Greenlet<Void>) {
                greenlet.link { _ in
                    log.note("\(AnyGreenlet.current.spawningGreenlet?.description ?? "no greenlet") \(local.value)")
                }
            }
            try spawn {
                local.value = "the killer's"
                let unstarted = Greenlet {}
                watch(unstarted)
                try unstarted.kill()
                let ended = spawn { local.value = "its own" }
                watch(ended)
                try ended.join()
                watch(ended)
            }.join()
            try hub.join()
        }
        #expect(log == Array(repeating: "<HubGreenlet> default", count: 3))
    }

    @Test("Links notified before the hub is destroyed are still called")
    func destroyedMeanwhile() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            let greenlet = Greenlet {}
            greenlet.link { _ in log.note("link") }
            greenlet.rawLink { _ in log.note("raw") }
            greenlet.linkValue { _ in
                defer { log.note("unwound") }
                try sleep(for: .seconds(1))
            }
            spawn { log.note("never") }
            try greenlet.kill()
            hub.destroy()
            return log.entries
        }
        #expect(log == ["link", "raw", "unwound"])
    }

    @Test("A link receives the greenlet, whose outcome is already recorded")
    func argument() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { 42 }
            greenlet.link { ended in
                log.note("link \(ended === greenlet) \(ended.value ?? 0)")
            }
            greenlet.rawLink { ended in
                log.note("raw \(ended === greenlet) \(ended.isReady) \(ended.value ?? 0)")
            }
            _ = try hub.join()
        }
        #expect(log == ["link true 42", "raw true true 42"])
    }

    @Test("Links made after the end run asynchronously, never inside link")
    func afterDeath() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { 1 }
            try greenlet.join()
            greenlet.link { _ in log.note("link") }
            greenlet.rawLink { _ in log.note("raw") }
            greenlet.linkValue { _ in log.note("value") }
            log.note("made")
            _ = try hub.join()
            greenlet.link { _ in log.note("later") }
            log.note("made")
            _ = try hub.join()
        }
        #expect(log == ["made", "link", "raw", "value", "made", "later"])
    }

    @Test("A link that throws is reported, and the remaining links still run")
    func throwingLink() throws {
        let log = try logged { log, hub in
            let greenlet = spawn {}
            greenlet.rawLink { _ in throw Boom("raw") }
            greenlet.rawLink { _ in log.note("second raw") }
            greenlet.link { _ in
                AnyGreenlet.current.name = "link"
                throw Boom("link")
            }
            greenlet.link { _ in log.note("second link") }
            _ = try hub.join()
        }
        #expect(
            log == [
                "reported raw of no greenlet", "second raw", "reported link of <RawGreenlet \"link\">", "second link",
            ])
    }

    @Test("A link callback may park without delaying later links")
    func parkingLink() throws {
        let log = try logged { log, hub in
            let greenlet = spawn {}
            greenlet.link { _ in
                try sleep(for: .seconds(1))
                log.note("slow")
            }
            greenlet.link { _ in log.note("quick") }
            _ = try hub.join()
        }
        #expect(log == ["quick", "slow"])
    }

    @Test("A raw link that parks is reported as blockedInHub and does not hurt the hub")
    func parkingRawLink() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { error, _ in log.note((error as? HubError)?.code.rawValue ?? "\(error)") }
            let greenlet = spawn {}
            greenlet.rawLink { _ in try sleep() }
            greenlet.rawLink { _ in try sleep(for: .seconds(1)) }
            greenlet.rawLink { _ in log.note("after") }
            _ = try hub.join()
            try sleep(for: .seconds(1))
            log.note("\(try spawn { 1 }.get())")
        }
        #expect(log == ["blockedInHub", "blockedInHub", "after", "1"])
    }

    @Test("linkValue is called on success and on an exit, linkError on failure, link on both")
    func conditions() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { _, _ in }
            func watch(_ name: String, _ greenlet: Greenlet<Void>) {
                greenlet.link { _ in log.note("\(name): link") }
                greenlet.linkValue { _ in log.note("\(name): value") }
                greenlet.linkError { _ in log.note("\(name): error") }
            }
            watch("success", spawn {})
            _ = try hub.join()
            watch("failure", spawn { throw Boom() })
            _ = try hub.join()
            watch("exit", spawn { throw GreenletExit() })
            _ = try hub.join()
            let killed = spawn { try sleep(for: .seconds(1)) }
            watch("kill", killed)
            try sleep()
            try killed.kill()
            _ = try hub.join()
            let unstarted = Greenlet {}
            watch("unstarted", unstarted)
            try unstarted.kill()
            _ = try hub.join()
            let failed = spawn { try sleep(for: .seconds(1)) }
            watch("killed with an error", failed)
            try failed.kill(throwing: Boom())
            _ = try hub.join()
        }
        #expect(
            log == [
                "success: link", "success: value", "failure: link", "failure: error", "exit: link", "exit: value",
                "kill: link", "kill: value", "unstarted: link", "unstarted: value", "killed with an error: link",
                "killed with an error: error",
            ])
    }

    @Test("A closure linked twice is called twice, each registration with its own token")
    func twice() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { try sleep() }
            let callback = { (_: Greenlet<Void>) in log.note("called") }
            let first = greenlet.link(callback)
            let second = greenlet.link(callback)
            #expect(first !== second)
            let third = greenlet.link(callback)
            third.cancel()
            _ = try hub.join()
        }
        #expect(log == ["called", "called"])
    }

    @Test("Cancelling a link that is no longer registered does nothing")
    func unlink() throws {
        let log = try logged { log, hub in
            let greenlet = spawn { try sleep() }
            let kept = greenlet.link { _ in log.note("kept") }
            let removed = greenlet.link { _ in log.note("removed") }
            let raw = greenlet.rawLink { _ in log.note("raw removed") }
            removed.cancel()
            removed.cancel()
            raw.cancel()
            #expect(kept.isActive && !removed.isActive && !raw.isActive)
            _ = try hub.join()
            #expect(!kept.isActive)
            kept.cancel()
            removed.cancel()
        }
        #expect(log == ["kept"])
    }

    @Test("During notification a link removed by an earlier link is not called, and an added link is")
    func changesDuringNotification() throws {
        let log = try logged { log, hub in
            let greenlet = spawn {}
            var doomed: [Registration] = []
            greenlet.rawLink { ended in
                log.note("first")
                for link in doomed { link.cancel() }
                ended.rawLink { _ in log.note("added raw") }
                ended.link { _ in log.note("added link") }
            }
            doomed.append(greenlet.rawLink { _ in log.note("doomed raw") })
            doomed.append(greenlet.link { _ in log.note("doomed link") })
            greenlet.rawLink { _ in log.note("last") }
            _ = try hub.join()
        }
        #expect(log == ["first", "last", "added raw", "added link"])
    }

    @Test("A link in its own greenlet can still remove a later link, and add one")
    func changesFromLinkGreenlets() throws {
        let log = try logged { log, hub in
            let greenlet = spawn {}
            var doomed: Registration?
            greenlet.link { ended in
                log.note("first")
                doomed?.cancel()
                ended.link { _ in log.note("added") }
            }
            doomed = greenlet.link { _ in log.note("doomed") }
            _ = try hub.join()
        }
        #expect(log == ["first", "added"])
    }

    @Test("Captures of a link are released once it has run, was removed, or was skipped")
    func capturesAreReleased() throws {
        let log = try logged { log, hub in
            func callback(_ name: String) -> (Greenlet<Void>) -> Void {
                let witness = Witness { log.note("\(name) released") }
                return { _ in withExtendedLifetime(witness) {} }
            }
            let greenlet = spawn { try sleep() }
            // The tokens outlive the greenlet.
            let ran = greenlet.link(callback("ran"))
            let raw = greenlet.rawLink(callback("raw"))
            let removed = greenlet.link(callback("removed"))
            let unmet = greenlet.linkError(callback("unmet"))
            removed.cancel()
            _ = try hub.join()
            log.note("end")
            withExtendedLifetime([ran, raw, removed, unmet]) {}
        }
        #expect(log == ["removed released", "ran released", "raw released", "unmet released", "end"])
    }

    @Test(
        "Captures of a skipped link are released on the hub, where they can link but not park, however the greenlet ended"
    )
    func unmetLinkIsReleasedOnTheHub() throws {
        let log = try logged { log, hub in
            let greenlet = Greenlet {}
            func link() {
                let witness = Witness {
                    log.note("released: \(hubErrorCode { try sleep(for: .seconds(1)) }?.rawValue ?? "parked")")
                    greenlet.link { _ in log.note("linked last") }
                }
                greenlet.linkError { _ in withExtendedLifetime(witness) {} }
            }
            greenlet.link { _ in log.note("first") }
            link()
            greenlet.linkValue { _ in log.note("second") }
            try spawn { try greenlet.kill() }.join()
            log.note("\(greenlet.isDead)")
            try hub.join()
            log.note("\(hub.now.nanoseconds)")
        }
        #expect(log == ["first", "released: blockedInHub", "second", "true", "linked last", "0"])
    }

    @Test("Links of a greenlet that is never started are released with it")
    func linksOfTheUnstarted() throws {
        let log = try logged { log, hub in
            do {
                let witness = Witness { log.note("released") }
                let greenlet = Greenlet {}
                greenlet.link { _ in withExtendedLifetime(witness) {} }
                greenlet.rawLink { _ in withExtendedLifetime(witness) {} }
            }
            log.note("end")
        }
        #expect(log == ["released", "end"])
    }

    @Test("Links of a greenlet that outlives its hub unstarted are released with it")
    func linksThatOutliveTheHub() throws {
        let log = try onFreshThread {
            let log = Log()
            do {
                let hub = try Hub.start(on: VirtualLoop())
                let witness = Witness { log.note("released") }
                let greenlet = Greenlet {}
                greenlet.link { _ in withExtendedLifetime(witness) {} }
                hub.destroy()
                log.note("destroyed")
                withExtendedLifetime(greenlet) {}
            }
            log.note("end")
            return log.entries
        }
        #expect(log == ["destroyed", "released", "end"])
    }

    @Test("A link and a joiner on one greenlet are both notified")
    func linkAndJoin() throws {
        let log = try logged { log, hub in
            let greenlet = spawn {
                try sleep()
                return 5
            }
            let early = spawn { log.note("early \(try greenlet.get())") }
            try sleep()
            greenlet.rawLink { _ in log.note("raw") }
            let late = spawn { log.note("late \(try greenlet.get())") }
            try joinAll([early, late])
            _ = try hub.join()
        }
        #expect(log.sorted() == ["early 5", "late 5", "raw"])
    }
}
