import Gevent
import GeventTesting
import TestSupport
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Killed at every possible point")
struct KillEverywhereTests {
    /// Runs the program, interrupts it as `arrange` specifies, and returns its outcome. Leftovers are errors of
    /// `withHub`, or of the checks here.
    private static func run(
        on loop: TestLoop = .virtual, _ arrange: @escaping @Sendable (Hub, WaitingProgram, Greenlet<Void>) -> Void
    ) throws -> KilledRun {
        let before = openDescriptorCount()
        let outcome = try withHub(on: loop) { hub in
            hub.errorHandler = { _, _ in }
            let living = LivingObjects()
            let outcome = try runHere(hub, living, arrange)
            #expect(living.remaining() == [])
            return outcome
        }
        #expect(openDescriptorCount() == before)
        return outcome
    }

    private static func runHere(
        _ hub: Hub, _ living: LivingObjects, _ arrange: (Hub, WaitingProgram, Greenlet<Void>) -> Void
    ) throws -> KilledRun {
        let program = WaitingProgram(living)
        let outcome = try runToCompletion(program, on: hub, living, arrange)
        #expect(program.witnesses == 0)
        #expect(!program.somethingIsStillTaken)
        return outcome
    }

    /// The same, with child processes if requested. Not under a sanitizer: ThreadSanitizer defers signals, and the hub
    /// then waited forever for the SIGCHLD of a stopped child.
    private static func runWithProcesses(
        on loop: TestLoop = .virtual, _ arrange: @escaping @Sendable (Hub, WaitingProgram, Greenlet<Void>) -> Void
    ) throws -> KilledRun {
        try run(on: loop) { hub, program, victim in
            program.callsSystem = !isSanitized
            arrange(hub, program, victim)
        }
    }

    @Test(
        "Interrupted while parked at the n-th wait, for every n, it ends with that error and leaves nothing behind",
        arguments: Interruption.allCases)
    func atEveryWait(interruption: Interruption) throws {
        try checkEveryWait(by: interruption) { try Self.runWithProcesses($0) }
    }

    @Test("The same on a real clock, where all these waits take real time")
    func atEveryWaitInRealTime() throws {
        try checkEveryWait(by: .kill) { try Self.runWithProcesses(on: .configured, $0) }
    }

    @Test(
        "Interrupted just before the n-th wait, for every n, it ends with that error and leaves nothing behind",
        arguments: Interruption.kills)
    func beforeEveryWait(interruption: Interruption) throws {
        try checkEveryWait(by: interruption, justBefore: true) { try Self.runWithProcesses($0) }
    }

    @Test(
        "Interrupted after the n-th round of the hub, for every n, it ends with that error and leaves nothing behind",
        arguments: Interruption.kills)
    func afterEveryRound(interruption: Interruption) throws {
        try requireEndAfterEveryRound(by: interruption) { try Self.run($0) }
    }

    @Test("Interrupted by a foreign Timeout after every fraction of its time, it leaves nothing behind")
    func timeoutAtEveryMoment() throws {
        for microseconds in stride(from: 0, through: 60_000, by: 250) {
            _ = try Self.run { hub, program, victim in
                var isFirst = true
                program.beforeWait = {
                    if isFirst { Timeout(.microseconds(microseconds), throwing: Boom()).start() }
                    isFirst = false
                }
            }
        }
    }

    /// The waits that only main may make.
    private static let waitsOfMain: [@Sendable (Hub) throws -> Void] = [
        { _ = try $0.join() }, { _ = try $0.join(timeout: .seconds(1)) },
        { _ in _ = try Gevent.wait(timeout: .seconds(1)) }, { _ in try shutdown() },
    ]

    @Test(
        "Main, interrupted in each of its own waits, leaves nothing behind", arguments: bothLoops,
        // A sticky kill of main lasts as long as its hub.
        [Interruption.kill, .failure, .timeout])
    func waitsOfMain(loop: TestLoop, interruption: Interruption) throws {
        for wait in Self.waitsOfMain {
            try withHub(on: loop) { hub in
                let worker = spawn { try sleep(for: .milliseconds(50)) }
                try interruption.strikeOnceParked(AnyGreenlet.current, on: hub)
                #expect(interruption.isCause(of: thrownError { try wait(hub) }))
                #expect(worker.isActive && hub.statistics.pendingTimers == 1)
                _ = try hub.join()
                #expect(worker.isSuccessful)
                expectNothingLeft(in: hub)
            }
        }
    }

    @Test("A hub destroyed during the program leaves nothing behind")
    func destroyedInTheMiddle() throws {
        for round in 0..<60 {
            let before = openDescriptorCount()
            let left = try onFreshThread {
                let hub = try Hub.start(on: VirtualLoop())
                hub.errorHandler = { _, _ in }
                let program = WaitingProgram(LivingObjects())
                let victim = spawn { try program.run() }
                if round > 0 { try sleep(for: .microseconds(round * 250)) }
                hub.destroy()
                #expect(victim.isDead)
                return [program.open, program.witnesses]
            }
            #expect(left == [0, 0])
            #expect(openDescriptorCount() == before)
        }
    }
}
