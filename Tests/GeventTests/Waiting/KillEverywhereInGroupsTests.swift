import Gevent
import GeventTesting
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A program made of nested scopes, which counts the scopes that are open.
private final class ScopedProgram: KillableProgram {
    /// The number of scopes entered and not yet left.
    var open = 0
    /// Called before each wait of any greenlet.
    var beforeWait: () -> Void = {}
    var finished = false
    /// Greenlets that outlive a scope.
    var outlived = 0

    private func wait(_ body: () throws -> Void) throws {
        open += 1
        defer { open -= 1 }
        beforeWait()
        try body()
    }

    private func scope(_ body: (GreenletGroup) throws -> Void) throws {
        var group: GreenletGroup?
        defer { outlived += group?.count ?? 0 }
        try wait {
            try withGroup { given in
                group = given
                try body(given)
            }
        }
    }

    func run() throws {
        try scope { group in
            for number in 0..<3 {
                group.spawn { try self.wait { try sleep(for: .milliseconds(number)) } }
            }
            group.spawn(after: .milliseconds(1)) { try self.wait { try sleep() } }
            try self.wait { try sleep(for: .milliseconds(1)) }
            // Cleans up for some time, and spawns a sibling at the very end.
            group.spawn {
                defer { group.spawn { try self.wait { try sleep() } } }
                do {
                    try self.wait { try sleep(for: .milliseconds(3)) }
                } catch {
                    try self.wait { try sleep(for: .milliseconds(1)) }
                    throw error
                }
            }
            try self.scope { inner in
                let child = inner.spawn { try self.wait { try sleep(for: .milliseconds(1)) } }
                try self.wait { try child.get() }
                inner.spawn { try self.scope { group in group.spawn { try self.wait { try sleep() } } } }
            }
        }
        do {
            try scope { group in
                group.spawn {
                    try self.wait { try sleep(for: .milliseconds(1)) }
                    throw Boom("expected")
                }
                group.spawn { try self.wait { try sleep(for: .seconds(1)) } }
                try self.wait { try sleep(for: .seconds(1)) }
            }
        } catch is Boom {}
        _ = try withTimeout(.milliseconds(1), timeoutValue: ()) {
            try scope { group in group.spawn { try self.wait { try sleep(for: .seconds(1)) } } }
        }
        try wait {
            try withGreenlet(spawn { try self.wait { try sleep(for: .milliseconds(1)) } }) { _ in
                try self.wait { try sleep() }
            }
        }
        finished = true
    }
}

@Suite("Scopes killed at every possible point")
struct KillEverywhereInGroupsTests {
    /// Runs the program, kills it as `arrange` specifies, and returns its outcome.
    private static func run(
        on loop: TestLoop = .virtual, _ arrange: @escaping @Sendable (Hub, ScopedProgram, Greenlet<Void>) -> Void
    ) throws -> KilledRun {
        try withHub(on: loop) { hub in
            var errors: [any Error] = []
            hub.errorHandler = { error, _ in errors.append(error) }
            let program = ScopedProgram()
            let victim = Greenlet { try program.run() }
            arrange(hub, program, victim)
            victim.start()
            try victim.join()
            #expect(program.outlived == 0)
            // withGreenlet's second interruption may leave its greenlet, already killed, to end on its own.
            _ = try hub.join()
            #expect(program.open == 0)
            expectNothingLeft(in: hub)
            // Every greenlet ended from outside ends with an exit, except for the arranged failures.
            #expect(errors.allSatisfy { $0 is Boom || $0 is Struck }, "\(errors)")
            program.beforeWait = {}
            // If a member failed first, the scope throws that failure.
            return KilledRun(victim, finished: program.finished, reported: errors)
        }
    }

    @Test("Interrupted while it or a member is parked at the n-th wait, for every n", arguments: Interruption.kills)
    func atEveryWait(interruption: Interruption) throws {
        try checkEveryWait(by: interruption) { try Self.run($0) }
    }

    @Test("Interrupted just before the n-th wait, for every n", arguments: bothLoops, Interruption.kills)
    func beforeEveryWait(loop: TestLoop, interruption: Interruption) throws {
        try checkEveryWait(by: interruption, justBefore: true) { try Self.run(on: loop, $0) }
    }

    @Test("Killed again at the m-th wait after the n-th, for every n and many m")
    func twice() throws {
        let count = try waitCount { try Self.run($0) }
        for distance in 1..<6 {
            try requireEnd(by: .kill, atEvery: "wait", of: count) { target in
                try Self.run { hub, program, victim in
                    var waits = 0
                    program.beforeWait = {
                        if waits == target || waits == target + distance {
                            hub.runCallback { try kill(victim, throwing: waits == target ? GreenletExit() : OwnExit()) }
                        }
                        waits += 1
                    }
                }
            }
        }
    }

    @Test("Interrupted after the n-th round of the hub, for every n", arguments: Interruption.kills)
    func afterEveryRound(interruption: Interruption) throws {
        try requireEndAfterEveryRound(by: interruption) { try Self.run($0) }
    }

    @Test("Interrupted by a foreign Timeout after every fraction of its time")
    func timeoutAtEveryMoment() throws {
        for microseconds in stride(from: 0, through: 12_000, by: 125) {
            _ = try Self.run { hub, program, victim in
                var isFirst = true
                program.beforeWait = {
                    if isFirst { Timeout(.microseconds(microseconds), throwing: Boom()).start() }
                    isFirst = false
                }
            }
        }
    }

    @Test("A member that fails at the n-th wait, for every n, ends only greenlets linked to it by scopes")
    func failureAtEveryWait() throws {
        for target in 0..<(try waitCount { try Self.run($0) }) {
            let reached = try withHub { hub in
                hub.errorHandler = { _, _ in }
                let program = ScopedProgram()
                var waits = 0
                program.beforeWait = {
                    if waits == target {
                        let current = AnyGreenlet.current
                        hub.runCallback { try kill(current, throwing: Boom("at the wait")) }
                    }
                    waits += 1
                }
                let victim = spawn { try program.run() }
                let bystander = spawn { try sleep(for: .seconds(2)) }
                try victim.join()
                #expect(program.outlived == 0)
                _ = try hub.join()
                #expect(program.open == 0 && bystander.isSuccessful)
                program.beforeWait = {}
                return waits > target
            }
            #expect(reached, "wait \(target)")
        }
    }

    @Test("A hub destroyed during the program leaves nothing behind")
    func destroyedInTheMiddle() throws {
        for round in 0..<40 {
            let left = try onFreshThread {
                let hub = try Hub.start(on: VirtualLoop())
                hub.errorHandler = { _, _ in }
                let program = ScopedProgram()
                let victim = spawn { try program.run() }
                if round > 0 { try sleep(for: .microseconds(round * 250)) }
                hub.destroy()
                #expect(victim.isDead)
                return [program.open, program.outlived]
            }
            #expect(left == [0, 0])
        }
    }
}
