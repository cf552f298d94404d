internal import CGevent
package import GeventCore
internal import GeventOS
internal import GeventTesting
package import Testing

/// A way to interrupt a greenlet.
package enum Interruption: CaseIterable, CustomTestStringConvertible {
    /// Kills with an exit.
    case kill
    /// Kills with an error that is not an exit.
    case failure
    /// Kills with an exit that is raised at every later wait.
    case stickyKill
    /// Starts a Timeout in the victim, due at its next wait.
    case timeout

    /// The interruptions that any greenlet can cause at any time.
    package static let kills: [Interruption] = [.kill, .failure, .stickyKill]

    /// Interrupts `victim`. A timeout needs the victim to be the current greenlet.
    package func strike(_ victim: AnyGreenlet) throws {
        switch self {
        case .kill: try GeventCore.kill(victim)
        case .failure: try GeventCore.kill(victim, throwing: Struck())
        case .stickyKill: try GeventCore.kill(victim, sticky: true)
        case .timeout:
            #expect(AnyGreenlet.current === victim)
            Timeout(.zero).start()
        }
    }

    /// Arranges the interruption from the victim itself: it happens once the victim has parked or, if it does not park
    /// now, at its next park.
    package func strikeOnceParked(_ victim: AnyGreenlet, on hub: Hub) throws {
        // Callbacks and timers run after the victim has left the CPU.
        if self == .timeout { try strike(victim) } else { hub.runCallback { try strike(victim) } }
    }

    /// Whether the outcome is the one that this interruption causes.
    package func isCause(of error: (any Error)?) -> Bool {
        switch self {
        case .kill, .stickyKill: error is any GreenletExitError
        case .failure: error is Struck
        case .timeout: (error as? Timeout)?.duration == .zero
        }
    }

    package var testDescription: String {
        switch self {
        case .kill: "kill"
        case .failure: "failure"
        case .stickyKill: "sticky kill"
        case .timeout: "timeout"
        }
    }
}

/// An error that nothing catches.
package struct Struck: Error {}

/// A program to be interrupted.
package protocol KillableProgram: AnyObject {
    /// Whether the program has completed.
    var finished: Bool { get }
    /// The number of scopes entered and not yet left.
    var open: Int { get }
    /// Called before each wait.
    var beforeWait: () -> Void { get set }
    func run() throws
}

/// The outcome of a program whose main greenlet was to be interrupted.
package struct KilledRun {
    /// Whether it completed anyway.
    package let isFinished: Bool
    /// The error that ended it, if another one.
    private let error: (any Error)?
    /// An error thrown in it that another error replaced.
    private let reported: [any Error]

    package init(_ victim: Greenlet<Void>, finished: Bool, reported: [any Error] = []) {
        isFinished = finished
        error = victim.exit ?? victim.error
        self.reported = reported
    }

    package func isEnded(by interruption: Interruption) -> Bool {
        (!isFinished && interruption.isCause(of: error)) || reported.contains { interruption.isCause(of: $0) }
    }

    package var description: String { isFinished ? "finished" : "ended by \(error.map { "\($0)" } ?? "nothing")" }
}

/// Tracks every greenlet that is started, and other objects on request, while they are alive. Confined to one hub's
/// thread.
package final class LivingObjects {
    private struct Place { weak var object: AnyObject? }
    private var places: [Place] = []
    private var registration: Registration?

    package init() {
        registration = AnyGreenlet.addSpawnCallback { [unowned self] in watch($0) }
    }

    package func watch(_ object: AnyObject) { places.append(Place(object: object)) }

    /// Returns the objects still alive. Adds no more greenlets.
    package func remaining() -> [String] {
        registration?.cancel()
        return places.compactMap(\.object).map { "\($0)" }
    }
}

/// Requires that a program leaves nothing in its hub: no stack, timer, wait, interest, hold or service.
package func expectNothingLeft(in hub: Hub, sourceLocation: SourceLocation = #_sourceLocation) {
    let statistics = hub.statistics
    let counts = [
        "stacks": statistics.liveGreenlets, "timers": statistics.pendingTimers, "ready": statistics.readyCount,
        "parked": statistics.parkedGreenlets, "descriptor waiters": statistics.descriptorWaiters,
        "holds": hub.holdCount, "waits for SIGCHLD": hub.existingService(ChildService.self)?.signalUsers ?? 0,
        "services of signals": hub.existingService(SignalService.self) == nil ? 0 : 1,
        "services of files": hub.existingService(FileWatchService.self) == nil ? 0 : 1,
        "watched descriptors": (0..<CInt(openDescriptorLimit)).count { isWatched($0, by: hub) },
    ]
    #expect(counts.filter { $0.value != 0 } == [:], sourceLocation: sourceLocation)
    // Greenlets end immediately: the longest sleeps of all programs, a second and more, are never completed. A real
    // clock can't show that.
    if hub.loop is VirtualLoop { #expect(hub.now.nanoseconds < 900_000_000, sourceLocation: sourceLocation) }
}

/// More descriptors than any test opens.
private let openDescriptorLimit = 1024

private func isWatched(_ fileDescriptor: CInt, by hub: Hub) -> Bool {
    guard let entry = hub.descriptors.existing(fileDescriptor)?.pointee else { return false }
    return entry.reader != nil || entry.writer != nil || entry.watch != nil || entry.armed != 0 || entry.woken != 0
}

/// Runs a program until its hub has no work, with its main greenlet interrupted as `arrange` specifies, and requires
/// that it leaves nothing behind.
package func runToCompletion<Program: KillableProgram>(
    _ program: Program, on hub: Hub, _ living: LivingObjects, sourceLocation: SourceLocation = #_sourceLocation,
    _ arrange: (Hub, Program, Greenlet<Void>) -> Void
) throws -> KilledRun {
    living.watch(program)
    let victim = Greenlet { try program.run() }
    arrange(hub, program, victim)
    victim.start()
    try victim.join()
    _ = try hub.join()
    #expect(victim.isDead, sourceLocation: sourceLocation)
    #expect(program.open == 0, sourceLocation: sourceLocation)
    expectNothingLeft(in: hub, sourceLocation: sourceLocation)
    program.beforeWait = {}
    return KilledRun(victim, finished: program.finished)
}

/// Requires that an interruption at each of the `count` moments of an undisturbed run ends the program. `run`
/// interrupts it at the given moment. At the last `tooLate` moments the last wait may have ended, so that nothing
/// raises the error.
package func requireEnd(
    by interruption: Interruption, atEvery moment: String, of count: Int, tooLate: Int = 0,
    sourceLocation: SourceLocation = #_sourceLocation, _ run: (Int) throws -> KilledRun
) throws {
    try #require(count > 20, sourceLocation: sourceLocation)
    for target in 0..<count {
        let outcome = try run(target)
        if target >= count - tooLate && outcome.isFinished { continue }
        #expect(
            outcome.isEnded(by: interruption),
            "\(interruption) at \(moment) \(target) of \(count): it \(outcome.description)",
            sourceLocation: sourceLocation)
    }
}

/// Runs a new program, prepared by the closure.
package typealias ProgramRun =
    (_ arrange: @escaping @Sendable (Hub, any KillableProgram, Greenlet<Void>) -> Void) throws -> KilledRun

/// The number of waits in an undisturbed run.
package func waitCount(sourceLocation: SourceLocation = #_sourceLocation, of run: ProgramRun) throws -> Int {
    let waits = Counter()
    let undisturbed = try run { _, program, _ in program.beforeWait = { waits.add() } }
    try #require(undisturbed.isFinished, sourceLocation: sourceLocation)
    return waits.count
}

/// Interrupts at each wait: once the victim, or whichever greenlet waits there, has parked, or just before.
package func checkEveryWait(
    by interruption: Interruption, justBefore: Bool = false, sourceLocation: SourceLocation = #_sourceLocation,
    _ run: ProgramRun
) throws {
    let count = try waitCount(sourceLocation: sourceLocation, of: run)
    try requireEnd(by: interruption, atEvery: "wait", of: count, sourceLocation: sourceLocation) { target in
        try run { hub, program, victim in
            func strike() throws {
                if justBefore { return try interruption.strike(victim) }
                try interruption.strikeOnceParked(victim, on: hub)
            }
            var waits = 0
            program.beforeWait = {
                if waits == target { try? strike() }
                waits += 1
            }
        }
    }
}

/// Interrupts after each round of the hub in an undisturbed run.
package func requireEndAfterEveryRound(
    by interruption: Interruption, sourceLocation: SourceLocation = #_sourceLocation, _ run: ProgramRun
) throws {
    let rounds = Counter()
    let undisturbed = try run { hub, program, _ in
        RoundCounter.start(on: hub, until: { program.finished }) { _ in rounds.add() > 0 }
    }
    try #require(undisturbed.isFinished, sourceLocation: sourceLocation)
    // In the last round the victim has been woken and will complete.
    try requireEnd(
        by: interruption, atEvery: "round", of: rounds.count, tooLate: 1, sourceLocation: sourceLocation
    ) { target in
        try run { hub, program, victim in
            RoundCounter.start(on: hub, until: { program.finished || victim.isDead }) { round in
                if round == target { try interruption.strike(victim) }
                return round < target
            }
        }
    }
}

/// Counts the rounds of a hub that had work: one callback for each pass through the ready queue.
package final class RoundCounter {
    package private(set) var count = 0
    private let hub: Hub
    private let isOver: () -> Bool
    private let atRound: (Int) throws -> Bool
    private var lastSwitchCount: UInt64 = 0

    /// Calls `atRound` in each round until it returns false or `isOver`, so an interruption meets every order of
    /// events.
    @discardableResult
    package static func start(
        on hub: Hub, until isOver: @escaping () -> Bool, _ atRound: @escaping (Int) throws -> Bool
    )
        -> RoundCounter
    {
        hub.switchInterval = .zero
        let counter = RoundCounter(hub, isOver, atRound)
        counter.queueNext()
        return counter
    }

    private init(_ hub: Hub, _ isOver: @escaping () -> Bool, _ atRound: @escaping (Int) throws -> Bool) {
        (self.hub, self.isOver, self.atRound) = (hub, isOver, atRound)
    }

    private func queueNext() {
        hub.runCallback {
            if self.isOver() { return }
            if self.somethingHappened {
                if try !self.atRound(self.count) { return }
                self.count += 1
            }
            self.queueNext()
        }
    }

    /// Whether other greenlets have run since the last callback, or are about to.
    private var somethingHappened: Bool {
        let statistics = hub.statistics
        // The callback itself counts as one.
        defer { lastSwitchCount = statistics.switchCount }
        return statistics.switchCount > lastSwitchCount + 1 || statistics.readyCount > 0
    }
}
