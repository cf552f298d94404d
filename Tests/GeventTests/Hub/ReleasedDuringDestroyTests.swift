import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// Tests code that runs because of a release or a notification while a hub is destroyed. The hubs of these tests are
/// outside of `withHub`, which destroys its own.
@Suite("Released while the hub is destroyed")
struct ReleasedDuringDestroy {
    @Test("A deinit that parks while the queue is dropped gets an error, and nothing in the queue runs or is lost")
    func parksWhenDropped() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            // The ring has held greenlets. They must not be found in it again.
            for _ in 0..<7 {
                for _ in 0..<200 { spawn {} }
                try sleep()
                try sleep()
            }
            do {
                let witness = Witness {
                    log.outcome("sleep") { try sleep(for: .milliseconds(1)) }
                    log.outcome("yield") { try sleep() }
                    log.outcome("limited") { try withTimeout(.seconds(1)) { _ in try Event().wait() } }
                    log.outcome("group") { try withGroup { _ in } }
                }
                spawn { withExtendedLifetime(witness) { log.note("ran") } }
            }
            let others = (0..<8).map { _ in spawn { log.note("another ran") } }
            hub.destroy()
            let areExits = others.allSatisfy { $0.isDead && $0.exit != nil }
            log.note("all over: \(areExits)")
            log.note("a new hub: \(try spawn { 1 }.get())")
            Hub.current.destroy()
            return log.entries
        }
        let refused = "threw \(HubError.blockedInHub)"
        #expect(
            log == [
                "sleep: \(refused)", "yield: \(refused)", "limited: \(refused)", "group: \(refused)", "all over: true",
                "a new hub: 1",
            ])
    }

    @Test("A dropped callback that parks in a deinit gets an error too")
    func callbackParks() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            for _ in 0..<3 {
                let witness = Witness { log.outcome("sleep") { try sleep() } }
                hub.runCallback { withExtendedLifetime(witness) { log.note("called") } }
            }
            hub.destroy()
            return log.entries
        }
        #expect(log == Array(repeating: "sleep: threw \(HubError.blockedInHub)", count: 3))
    }

    @Test("Greenlets that unwind may park while the hub is destroyed, as always")
    func unwindingParks() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            spawn {
                defer { log.outcome("clean-up") { try sleep() } }
                try sleep(for: .seconds(9))
            }
            try sleep()
            hub.destroy()
            return log.entries
        }
        #expect(log == ["clean-up: returned"])
    }

    @Test("Main keeps its locals while it destroys the hub")
    func localsOfMain() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            let local = GreenletLocal("number") { 0 }
            local.value = 7
            do {
                let witness = Witness { log.note("\(local.value)") }
                spawn { withExtendedLifetime(witness) {} }
            }
            hub.destroy()
            return log.entries
        }
        #expect(log == ["7"])
    }

    @Test("A Timeout started and dropped during a destroy is released with the hub")
    func forgottenTimeout() throws {
        let (wasPending, isReleased) = try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            var found: Bool?
            weak var started: Timeout?
            let local = GreenletLocal<Witness?>("l") { nil }
            local.value = Witness {
                started = Timeout.startNew(.seconds(1))
                found = started?.isPending
            }
            hub.destroy()
            return (found, started == nil)
        }
        #expect(wasPending == true)
        #expect(isReleased)
    }

    @Test(
        "A signal registration made by a raw link at the end of a destroy is closed: the default action is restored")
    func lateService() async {
        await #expect(processExitsWith: .success) {
            try onFreshThread {
                let hub = try Hub.start(on: VirtualLoop())
                let local = GreenletLocal<Witness?>("l") { nil }
                local.value = Witness {
                    spawn {}.rawLink { (_: Greenlet<Void>) in
                        try onSignal(SIGUSR1) {}
                        require(handler(of: SIGUSR1) != 0, 1)
                    }
                }
                hub.destroy()
                require(handler(of: SIGUSR1) == 0, 2)
            }
            exit(0)
        }
    }

    @Test("Registrations made while services close are closed")
    func attachedWhileClosing() throws {
        final class Service: HubService {
            let log: Log
            let next: Service?
            init(_ log: Log, next: Service?) {
                self.log = log
                self.next = next
            }
            func hubWillClose() {
                log.note(next == nil ? "second" : "first")
                if let next { Hub.current.addService(next) }
            }
            func hubDidFork() {}
        }
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            hub.addService(Service(log, next: Service(log, next: nil)))
            hub.destroy()
            return log.entries
        }
        #expect(log == ["first", "second"])
    }

    @Test("A greenlet started by a raw link at the end of a destroy is ended, notified and released")
    func lateStarts() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            weak var late: Greenlet<Void>?
            weak var delayed: Greenlet<Void>?
            let local = GreenletLocal<Witness?>("l") { nil }
            local.value = Witness {
                let first = spawn {}
                let captured = Witness { log.note("captured released") }
                first.link { _ in withExtendedLifetime(captured) { log.note("notified in a greenlet") } }
                first.rawLink { (_: Greenlet<Void>) in
                    let second = spawn { log.note("late ran") }
                    second.rawLink { (ended: Greenlet<Void>) in
                        log.note("late: active \(ended.isActive), exit \(ended.exit != nil)")
                    }
                    late = second
                    let third = spawn(after: .seconds(1)) { log.note("delayed ran") }
                    third.rawLink { (ended: Greenlet<Void>) in log.note("delayed: active \(ended.isActive)") }
                    delayed = third
                }
            }
            hub.destroy()
            log.note("released: \(late == nil && delayed == nil)")
            return log.entries.sorted()
        }
        #expect(
            log == [
                "captured released", "delayed: active false", "late: active false, exit true", "released: true",
            ])
    }

    @Test(
        "A link that starts a new greenlet each time does not keep a destroy from ending",
        .disabled(if: isSanitized, "the last of them is lost, as there is no end to them"))
    func restarted() throws {
        let isOver = try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            func go() {
                spawn { try sleep(for: .seconds(1)) }.rawLink { (_: Greenlet<Void>) in go() }
            }
            go()
            try sleep()
            hub.destroy()
            return !Hub.exists
        }
        #expect(isOver)
    }

    @Test("A greenlet started by the release of a spawn callback never runs, and is ended")
    func releasedSpawnCallback() throws {
        let log = try onFreshThread {
            let log = Log()
            weak var late: Greenlet<Void>?
            do {
                let witness = Witness {
                    let greenlet = spawn { log.note("ran") }
                    greenlet.rawLink { (ended: Greenlet<Void>) in log.note("over: \(ended.isDead)") }
                    late = greenlet
                }
                AnyGreenlet.addSpawnCallback { _ in withExtendedLifetime(witness) {} }
            }
            let hub = Hub.current
            spawn {}
            try sleep()
            hub.destroy()
            log.note("released: \(late == nil), hub: \(Hub.exists)")
            return log.entries
        }
        #expect(log == ["over: true", "released: true, hub: false"])
    }

    @Test("A destroy within a destroy has no effect")
    func nested() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            let local = GreenletLocal<Witness?>("l") { nil }
            local.value = Witness { log.outcome("in a local") { hub.destroy() } }
            do {
                let witness = Witness { log.outcome("in a body") { hub.destroy() } }
                spawn { withExtendedLifetime(witness) {} }
            }
            hub.destroy()
            log.note("hub: \(Hub.exists)")
            return log.entries
        }
        #expect(log == ["in a body: returned", "in a local: returned", "hub: false"])
    }

    @Test("Handlers that capture their hub are released with it, and may read it in a deinit")
    func handlersAreReleased() throws {
        let (isReleased, looks) = try onFreshThread {
            weak var weakHub: Hub?
            var looks = 0
            // Separate functions, so that no temporary retains these objects at the time of the destroy.
            @inline(never)
            func capture(_ hub: Hub) {
                let first = Witness { [weak hub] in
                    looks += hub?.isDestroyed == false && hub?.errorHandler == nil ? 1 : 0
                }
                let second = Witness { [weak hub] in
                    looks += hub?.isDestroyed == false && hub?.errorOutput != nil ? 1 : 0
                }
                let third = Witness { [weak hub] in looks += hub?.spawnCallbacks.isEmpty == true ? 1 : 0 }
                hub.errorHandler = { _, _ in withExtendedLifetime((hub, first)) {} }
                hub.errorOutput = { _ in withExtendedLifetime((hub, second)) {} }
                AnyGreenlet.addSpawnCallback { _ in withExtendedLifetime((hub, third)) {} }
            }
            @inline(never)
            func makeAndDestroy() throws {
                let hub = try Hub.start(on: VirtualLoop())
                weakHub = hub
                capture(hub)
                hub.destroy()
            }
            try makeAndDestroy()
            return (weakHub == nil, looks)
        }
        #expect(isReleased)
        #expect(looks == 3)
    }

    @Test("Errors of raw links are reported until the end of a destroy")
    func lateErrors() throws {
        let log = try onFreshThread {
            let log = Log()
            let hub = try Hub.start(on: VirtualLoop())
            hub.errorHandler = { error, _ in log.note("reported \(error)") }
            let local = GreenletLocal<Witness?>("l") { nil }
            local.value = Witness { spawn {}.rawLink { (_: Greenlet<Void>) in throw Boom() } }
            hub.destroy()
            return log.entries
        }
        #expect(log == ["reported Boom"])
    }

    @Test(
        "A group outlives an owner that cannot be ended: members dropped after it notify nothing",
        .disabled(if: isSanitized, "what the owner's frames held is lost, as documented"))
    func abandonedOwner() throws {
        let members = try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            var members: [Greenlet<Void>] = []
            spawn {
                try withGroup { group in
                    while true {
                        do { try sleep() } catch {}
                        members = Array(members.suffix(2)) + [group.spawn { try sleep(for: .seconds(9)) }]
                    }
                }
            }
            try sleep()
            hub.destroy()
            return members.filter(\.isDead).count
        }
        #expect(members == 3)
    }
}

/// The address of the process's handler; 0 for the default action.
private func handler(of number: CInt) -> UInt {
    var action = sigaction()
    sigaction(number, nil, &action)
    // A C function pointer or null has the layout of an address.
    return unsafeBitCast(action.__sigaction_handler.sa_handler, to: UInt.self)
}
