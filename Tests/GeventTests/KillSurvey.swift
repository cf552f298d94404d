import CGevent
import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A way to interrupt a greenlet.
enum Interruption: CaseIterable, CustomTestStringConvertible {
    /// By an exit.
    case kill
    /// By an error that is no exit.
    case failure
    /// By an exit that is raised wherever it waits from then on.
    case stickyKill
    /// By a Timeout of its own, which comes as soon as it waits.
    case timeout

    /// Those that anybody can cause at any time.
    static let kills: [Interruption] = [.kill, .failure, .stickyKill]

    /// Interrupts `victim`, which a timeout takes to be the current greenlet.
    func strike(_ victim: AnyGreenlet) throws {
        switch self {
        case .kill: try Gevent.kill(victim)
        case .failure: try Gevent.kill(victim, throwing: Struck())
        case .stickyKill: try Gevent.kill(victim, sticky: true)
        case .timeout:
            #expect(AnyGreenlet.current === victim)
            Timeout(.zero).start()
        }
    }

    /// The same in `victim` itself, so that it happens once that has parked, or, if it does not park, when it does
    /// next.
    func strikeOnceParked(_ victim: AnyGreenlet, on hub: Hub) throws {
        // Callbacks and timers take their turn after the victim has left the CPU.
        if self == .timeout { try strike(victim) } else { hub.runCallback { try strike(victim) } }
    }

    /// Whether it is this that came of it.
    func isCause(of error: (any Error)?) -> Bool {
        switch self {
        case .kill, .stickyKill: error is any GreenletExitError
        case .failure: error is Struck
        case .timeout: (error as? Timeout)?.duration == .zero
        }
    }

    var testDescription: String {
        switch self {
        case .kill: "kill"
        case .failure: "failure"
        case .stickyKill: "sticky kill"
        case .timeout: "timeout"
        }
    }
}

/// What nobody catches.
struct Struck: Error {}

/// What somebody means to interrupt.
protocol KillableProgram: AnyObject {
    /// It has come to its end.
    var finished: Bool { get }
    /// What has been entered and not left.
    var open: Int { get }
    /// Called before each wait.
    var beforeWait: () -> Void { get set }
    func run() throws
}

/// How a program went whose main greenlet somebody meant to interrupt.
struct KilledRun {
    /// It came to its end all the same.
    let isFinished: Bool
    /// What it ended by otherwise.
    private let error: (any Error)?
    /// What was thrown in it and gave way to another error.
    private let reported: [any Error]

    init(_ victim: Greenlet<Void>, finished: Bool, reported: [any Error] = []) {
        isFinished = finished
        error = victim.exit ?? victim.error
        self.reported = reported
    }

    func isEnded(by interruption: Interruption) -> Bool {
        (!isFinished && interruption.isCause(of: error)) || reported.contains { interruption.isCause(of: $0) }
    }

    var description: String { isFinished ? "finished" : "ended by \(error.map { "\($0)" } ?? "nothing")" }
}

/// Every greenlet that is started, and whatever else is named, as long as it lives. Confined to the thread of one hub.
final class LivingObjects {
    private struct Place { weak var object: AnyObject? }
    private var places: [Place] = []
    private var registration: SpawnCallback?

    init() {
        registration = AnyGreenlet.addSpawnCallback { [unowned self] in watch($0) }
    }

    func watch(_ object: AnyObject) { places.append(Place(object: object)) }

    /// What is left of them. No more greenlets are added.
    func remaining() -> [String] {
        registration.map(AnyGreenlet.removeSpawnCallback)
        return places.compactMap(\.object).map { "\($0)" }
    }
}

/// Requires that nothing of a program is left in its hub: no stack, timer, wait, interest, hold or service.
func expectNothingLeft(in hub: Hub, sourceLocation: SourceLocation = #_sourceLocation) {
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
    // What is ended is ended at once: the longest sleeps of all programs, of a second and more, are never slept out. On
    // a real clock that says nothing.
    if hub.loop is VirtualLoop { #expect(hub.now.nanoseconds < 900_000_000, sourceLocation: sourceLocation) }
}

/// More descriptors than a test ever has.
private let openDescriptorLimit = 1024

private func isWatched(_ fileDescriptor: CInt, by hub: Hub) -> Bool {
    guard let entry = hub.descriptors.existing(fileDescriptor)?.pointee else { return false }
    return entry.reader != nil || entry.writer != nil || entry.watch != nil || entry.armed != 0 || entry.woken != 0
}

/// Runs a program whose main greenlet is interrupted as `arrange` says until its hub has nothing to do any more, and
/// requires that nothing of it is left there.
func runToTheEnd<Program: KillableProgram>(
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

/// Requires that the interruption at each of the `count` moments that an undisturbed run has ends the program. `run`
/// interrupts it at the given one. At the last `tooLate` of them the last wait may be over, and nothing is left that
/// could raise it.
func requireTheEnd(
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

/// Runs a new program, arranged as it is told.
typealias ProgramRun =
    (_ arrange: @escaping @Sendable (Hub, any KillableProgram, Greenlet<Void>) -> Void) throws -> KilledRun

/// How many waits an undisturbed run has.
func waitCount(sourceLocation: SourceLocation = #_sourceLocation, of run: ProgramRun) throws -> Int {
    let waits = Counter()
    let undisturbed = try run { _, program, _ in program.beforeWait = { waits.add() } }
    try #require(undisturbed.isFinished, sourceLocation: sourceLocation)
    return waits.count
}

/// The same at each wait: once the victim, or whoever waits there, has parked, or just before.
func requireTheEndAtEveryWait(
    by interruption: Interruption, justBefore: Bool = false, sourceLocation: SourceLocation = #_sourceLocation,
    _ run: ProgramRun
) throws {
    let count = try waitCount(sourceLocation: sourceLocation, of: run)
    try requireTheEnd(by: interruption, atEvery: "wait", of: count, sourceLocation: sourceLocation) { target in
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

/// The same after each round of the hub that an undisturbed run has.
func requireTheEndAfterEveryRound(
    by interruption: Interruption, sourceLocation: SourceLocation = #_sourceLocation, _ run: ProgramRun
) throws {
    let rounds = Counter()
    let undisturbed = try run { hub, program, _ in
        RoundCounter.start(on: hub, until: { program.finished }) { _ in rounds.add() > 0 }
    }
    try #require(undisturbed.isFinished, sourceLocation: sourceLocation)
    // In the last round the victim has been woken already, and comes to its end.
    try requireTheEnd(
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

/// Counts the rounds of a hub in which anything happened: one callback each time the ready queue is gone through.
final class RoundCounter {
    private(set) var count = 0
    private let hub: Hub
    private let isOver: () -> Bool
    private let atRound: (Int) throws -> Bool
    private var lastSwitchCount: UInt64 = 0

    /// Calls `atRound` in each round until it returns false or `isOver`. An interruption meets every order of events
    /// then.
    @discardableResult
    static func start(on hub: Hub, until isOver: @escaping () -> Bool, _ atRound: @escaping (Int) throws -> Bool)
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

    /// Since the last callback others have run, or are about to.
    private var somethingHappened: Bool {
        let statistics = hub.statistics
        // The callback itself counts as one.
        defer { lastSwitchCount = statistics.switchCount }
        return statistics.switchCount > lastSwitchCount + 1 || statistics.readyCount > 0
    }
}
