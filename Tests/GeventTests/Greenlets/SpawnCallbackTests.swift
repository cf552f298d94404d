import Gevent
import GeventTesting
import TestSupport
import Testing

@Suite("Spawn callbacks")
struct SpawnCallbackTests {
    /// A subclass, which starts like any greenlet.
    final class Worker: Greenlet<Int> {
        override func run() throws -> Int { 7 }
    }

    @Test("They are called once per start, for spawn, spawn(after:) and start, and not for construction")
    func oncePerStart() throws {
        let log = try logged { log, _ in
            let callback = AnyGreenlet.addSpawnCallback { log.note("started \($0.name), active \($0.isActive)") }
            let made = Greenlet {}
            made.name = "made"
            log.note("made")
            made.start()
            made.start()
            let worker = Worker()
            worker.name = "worker"
            worker.start(after: .seconds(1))
            worker.start()
            let later = Greenlet {}
            later.name = "later"
            later.start(after: .zero)
            spawn { log.note("ran") }.name = "spawned"
            spawnRaw { log.note("raw") }
            try joinAll([made, later])
            try worker.join()
            callback.cancel()
        }
        #expect(
            log == [
                "made", "started made, active true", "started worker, active true", "started later, active true",
                "started Greenlet-0, active true", "ran", "raw",
            ])
    }

    @Test("Two registrations make two calls, and each is removed alone; removing twice is harmless")
    func registrations() throws {
        let log = try logged { log, _ in
            let closure: (JoinableGreenlet) -> Void = { _ in log.note("called") }
            let first = AnyGreenlet.addSpawnCallback(closure)
            let second = AnyGreenlet.addSpawnCallback(closure)
            spawn {}
            log.note("-")
            first.cancel()
            first.cancel()
            spawn {}
            log.note("-")
            second.cancel()
            second.cancel()
            spawn {}
        }
        #expect(log == ["called", "called", "-", "called", "-"])
    }

    @Test("A callback may remove itself and others; removed callbacks are no longer called")
    func removedWhileCalled() throws {
        let log = try logged { log, _ in
            var callbacks: [Registration] = []
            for name in ["first", "second"] {
                callbacks.append(
                    AnyGreenlet.addSpawnCallback { _ in
                        log.note(name)
                        for callback in callbacks { callback.cancel() }
                    })
            }
            spawn {}
            spawn {}
            callbacks = []
        }
        #expect(log.count == 1)
    }

    @Test("A greenlet ended by a callback before its first run never runs", arguments: [false, true])
    func endedByACallback(isDelayed: Bool) throws {
        let log = try logged { log, _ in
            let callback = AnyGreenlet.addSpawnCallback { greenlet in
                try? kill(greenlet)
                log.note("\(greenlet.isReady) \(greenlet.isSuccessful) \(greenlet.isActive)")
            }
            let greenlet = Greenlet { log.note("ran") }
            if isDelayed { greenlet.start(after: .seconds(1)) } else { greenlet.start() }
            try greenlet.join()
            try sleep(for: .seconds(2))
            log.note("\(String(describing: greenlet.exit))")
            callback.cancel()
        }
        #expect(log == ["true true false", "Optional(GreenletExit)"])
    }

    @Test("Greenlets started by a callback trigger callbacks too, and run before the greenlet of the outer call")
    func startsOthers() throws {
        let log = try logged { log, _ in
            var depth = 0
            let callback = AnyGreenlet.addSpawnCallback { _ in
                depth += 1
                if depth < 3 { spawn { log.note("inner") } }
            }
            try spawn { log.note("outer") }.join()
            log.note("\(depth)")
            callback.cancel()
        }
        #expect(log == ["inner", "inner", "outer", "3"])
    }

    @Test("Registrations belong to their thread, and are released with its hub")
    func perHub() throws {
        let log = try logged { log, hub in
            _ = hub
            let calls = Counter()
            let released = Counter()
            try onFreshThread {
                _ = try Hub.start(on: VirtualLoop())
                let witness = Witness { released.add() }
                AnyGreenlet.addSpawnCallback { _ in withExtendedLifetime(witness) { _ = calls.add() } }
                spawn {}
                Hub.current.destroy()
            }
            spawn {}
            log.note("\(calls.count) \(released.count)")
        }
        #expect(log == ["1 1"])
    }
}
