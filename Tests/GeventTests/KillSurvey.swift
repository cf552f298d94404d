import Testing

@testable import Gevent

/// What somebody means to kill.
protocol KillableProgram: AnyObject {
    /// It has come to its end.
    var finished: Bool { get }
}

/// How a program went whose main greenlet somebody meant to kill.
struct KilledRun {
    /// It came to its end all the same.
    let isFinished: Bool
    /// The kill ended it.
    let isEndedByKill: Bool

    init(_ victim: Greenlet<Void>, finished: Bool) {
        isFinished = finished
        isEndedByKill = !finished && victim.exit != nil
    }
}

/// Requires that a kill at each of the `count` moments that an undisturbed run has ends the program. `run` kills it at the
/// given one. At the last `tooLate` of them the last wait may be over, and nothing is left that could raise the kill.
func requireTheKillAtEvery(
    _ moment: String, of count: Int, tooLate: Int = 0, sourceLocation: SourceLocation = #_sourceLocation,
    _ run: (Int) throws -> KilledRun
) throws {
    try #require(count > 20, sourceLocation: sourceLocation)
    for target in 0..<count {
        let outcome = try run(target)
        if target >= count - tooLate && outcome.isFinished { continue }
        #expect(
            outcome.isEndedByKill,
            "killed at \(moment) \(target) of \(count), it \(outcome.isFinished ? "finished" : "ended otherwise")",
            sourceLocation: sourceLocation)
    }
}

/// The same after each round of the hub that an undisturbed run has. `run` runs a new program, arranged as it is told.
func requireTheKillAfterEveryRound(
    sourceLocation: SourceLocation = #_sourceLocation,
    _ run: (_ arrange: @escaping @Sendable (Hub, any KillableProgram, Greenlet<Void>) -> Void) throws -> KilledRun
) throws {
    let rounds = Counter()
    let undisturbed = try run { hub, program, _ in
        RoundCounter.start(on: hub, until: { program.finished }) { _ in rounds.add() > 0 }
    }
    try #require(undisturbed.isFinished, sourceLocation: sourceLocation)
    // In the last round the victim has been woken already, and comes to its end.
    try requireTheKillAtEvery("round", of: rounds.count, tooLate: 1, sourceLocation: sourceLocation) { target in
        try run { hub, program, victim in
            RoundCounter.start(on: hub, until: { program.finished || victim.isDead }) { round in
                if round == target { try kill(victim) }
                return round < target
            }
        }
    }
}

/// Counts the rounds of a hub: one callback each time the ready queue is gone through.
final class RoundCounter {
    private(set) var count = 0
    private let hub: Hub
    private let isOver: () -> Bool
    private let atRound: (Int) throws -> Bool

    /// Calls `atRound` in each round until it returns false or `isOver`. The kill meets every order of events then.
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
            if try !self.atRound(self.count) { return }
            self.count += 1
            self.queueNext()
        }
    }
}
