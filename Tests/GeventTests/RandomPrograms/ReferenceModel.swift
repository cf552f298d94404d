// A second implementation of what the library promises, as different as possible: no stacks and no threads. A greenlet
// is a stack of blocks with a position in each; time is a number, the ready queue and the timers are two lists. The
// model follows only the documented rules:
//
// - The ready queue is first in, first out, and shared by starts, callbacks and woken greenlets.
// - An iteration of the hub fires due timers by deadline and then order of start. It then runs as many entries of the
//   ready queue as were queued, or 4,096 if that is more. With nothing ready, time jumps to the next deadline.
// - A wait ends once. An error delivered to a greenlet between its wake-up and its running is raised at its next park.
//   Two exits delivered before the victim sees the first count as one.
// - A failure is reported as its greenlet ends. Then its links enter the ready queue, all at once and in order of
//   registration: waiters are resumed, closures get their own greenlet or callback.
// - A sticky error is raised at every park of its victim, and no later error ever is.
// - An object serves its waiters in order. A value that was handed over was received, whatever happens before the
//   receiver runs. A free permit may be taken by the greenlet that runs first; a waiter that was passed over is handed
//   the next permit.
// - With nothing ready and nothing pending, main throws wouldBlockForever.

/// Runs a program on the model.
struct ReferenceModel {
    static func log(of program: RandomProgram, defect: PlantedDefect? = nil) -> [Entry] {
        let model = ModelScheduler(program, defect)
        model.run()
        return model.entries
    }
}

/// Defects that the model can have on purpose, to check that a difference is noticed.
enum PlantedDefect: CaseIterable, Sendable {
    /// The last to become ready runs first.
    case lastInFirstOut
    /// Greenlets whose delay has expired wait behind those that yielded until the next iteration.
    case timersInOrderOfStart
    /// Greenlets woken by a timer are queued behind all that are ready.
    case timersQueueUp
    /// An ending greenlet forgets its last link.
    case losesLink
    /// A kill between wake-up and running is lost.
    case losesDeferredKill
    /// A kill between wake-up and running replaces the result of the wait.
    case raisesDeferredKillAtOnce
    /// A second exit is thrown in addition to the first.
    case killsTwice
    /// An unlinked closure is called.
    case callsUnlinked
    /// A scope leaves its timeout running.
    case forgetsToCancel
    /// A silent scope swallows the timeouts of others.
    case swallowsForeignTimeout
    /// A blocking kill does not wait.
    case killDoesNotWait
    /// A greenlet that was killed unstarted still runs.
    case runsKilled
    /// joinAll returns the list in its original order.
    case joinAllInGivenOrder
    /// A step of the ready queue has no bound.
    case unboundedStep
    /// A failure is not reported.
    case losesReport
    /// A sticky error is raised once.
    case raisesStickyOnce
    /// An error delivered after a sticky error replaces it.
    case stickyIsReplaced
    /// A greenlet that finds an event set overtakes woken waiters that have not run.
    case overtakesWoken
    /// A waiter passed over for a permit is requeued at the back.
    case losesPosition
    /// A permit released while a greenlet waits is transferred to it at once.
    case handsPermitOver
    /// A putter that waits for room is not notified when an element is taken.
    case losesRoom
    /// A waiter of a queue is woken by its shutdown as if served.
    case servesRefused
    /// Of several waiters passed over, the last is served first.
    case overtakesPassedOver
    /// A waiter that only waits for a queue takes its element.
    case watchersTake
    /// A waiter chosen by one object stays registered with the others.
    case staysRegistered
}

/// A delivered error. `origin` is the timeout that threw it and may withdraw it.
struct ModelError {
    let fault: Fault
    var origin: Int?
    var isSticky = false

    /// A second kill is ignored.
    var isKill: Bool { isExit && origin == nil }

    var isExit: Bool {
        if case .exit = fault { return true }
        return false
    }
}

/// How a block ended.
enum ModelFlow {
    case normal
    case threw(ModelError)
    case returned(Int)
}

/// An open block.
struct ModelFrame {
    enum Kind {
        case body
        /// Inside the timeout with that ID.
        case scope(timeout: Int, isSilent: Bool)
        case catching
        /// Runs these steps when it ends.
        case guarded(cleanup: [Step])
        /// The cleanup of a block that ended like this.
        case cleanup(ModelFlow)
        /// Main after its body: joins the hub and kills the remaining greenlets.
        case epilogue
    }

    let kind: Kind
    let step: Int
    let steps: [Step]
    var next = 0
}

/// The wait of a parked greenlet, and what it does when it resumes.
enum ModelWait {
    case sleep
    /// The number of remaining yields.
    case yields(Int)
    case join(ModelGreenlet)
    case get(ModelGreenlet, limit: Int?, own: Int?)
    case kill(ModelGreenlet)
    case joinAll([ModelGreenlet], isThrowing: Bool, wanted: Int)
    case killAll([ModelGreenlet], limit: Int?)
    case hub
    case event
    /// Only lets greenlets woken earlier run first.
    case courtesy(Outcome)
    case courtesyForPermits(ModelSemaphore)
    case permit(ModelSemaphore, deadline: Int64?)
    /// Was passed over, and is handed the next permit.
    case nextPermit
    case anyPermit(ModelSemaphore)
    case several(ModelMany)
    case put
    case take
}

enum ModelVerdict {
    case woken, expired, failed
}

/// An observer of a greenlet's end.
enum ModelObserver {
    case waiter(ModelGreenlet)
    case member(ModelGreenlet, ModelCount)
    case several(ModelMany, Int)
    case closure(ModelLink)
}

/// Counts the notified members of a joinAll or killAll.
final class ModelCount {
    var isSatisfied = false
    let add: (ModelGreenlet) -> Bool
    init(_ add: @escaping (ModelGreenlet) -> Bool) { self.add = add }
}

/// A waiter for several objects, which takes from one of them or from none.
final class ModelMany {
    let greenlet: ModelGreenlet
    let wanted: Int
    let takes: Bool
    /// The indices of the objects that have become ready.
    var chosen: [Int] = []
    /// The element it was handed, if any.
    var handed: Int?

    init(_ greenlet: ModelGreenlet, wanted: Int, takes: Bool) {
        self.greenlet = greenlet
        self.wanted = wanted
        self.takes = takes
    }
}

final class ModelLink {
    let step: Int
    let kind: LinkKind
    let steps: [Step]
    var isCancelled = false

    init(step: Int, kind: LinkKind, steps: [Step]) {
        self.step = step
        self.kind = kind
        self.steps = steps
    }
}

final class ModelCallback {
    enum Work {
        case steps([Step], Int)
        case rawLink(ModelLink, of: ModelGreenlet)
        /// Releases a closure that will not be called.
        case forget
    }

    let work: Work
    var isPending = true
    init(_ work: Work) { self.work = work }
}

/// A flow of control: main, a greenlet, a link's greenlet, or a callback.
final class ModelGreenlet {
    enum Phase {
        case made, queued, delayed, running, ended
    }

    let participant: Int
    let isRaw: Bool
    /// The participant named in reports of its errors.
    let reportedAs: Int
    let steps: [Step]
    var phase = Phase.made
    var wasStarted = false
    var frames: [ModelFrame] = []
    /// Its wait, from parking until it resumes.
    var wait: (ModelWait, step: Int)?
    /// How its wait ended; nil while it is parked.
    var verdict: ModelVerdict?
    var pending: [ModelError] = []
    /// The element it was handed while parked.
    var handed: Int?
    /// Whether the queue it waits for was shut down.
    var isRefused = false
    var observers: [ModelObserver] = []
    var result: ModelFlow?
    var endNumber = 0
    /// The link that a link's greenlet was made for.
    var link: (ModelLink, source: ModelGreenlet)?

    init(participant: Int, isRaw: Bool, reportedAs: Int, steps: [Step]) {
        self.participant = participant
        self.isRaw = isRaw
        self.reportedAs = reportedAs
        self.steps = steps
    }

    /// Whether it is a callback, raw link or job.
    var isHub: Bool { reportedAs == Participant.none || reportedAs == Participant.job }
    var isParked: Bool { wait != nil && verdict == nil }
    var hasEnded: Bool { phase == .ended }

    /// The error it failed with, if it has ended and the error is not an exit.
    var failure: Fault? {
        if case .threw(let error) = result, !error.isExit { return error.fault }
        return nil
    }
}

final class ModelEvent {
    var isSet = false
    /// Its sequence number among all objects that became ready.
    var readyNumber = 0
    var waiters: [(greenlet: ModelGreenlet, several: (many: ModelMany, position: Int)?)] = []
    /// The number of entries ever queued, as of the last wake.
    var wakeMark = 0
}

final class ModelSemaphore {
    enum Request {
        case permit
        /// With the position in which it was chosen before.
        case passedOver(Int)
        case look
        case several(ModelMany, Int)
    }

    var permits: Int
    var readyNumber = 0
    var waiters: [(greenlet: ModelGreenlet, request: Request)] = []
    /// The positions of the waiters woken for a free permit that have not run.
    var chosen: [ObjectIdentifier: Int] = [:]
    var lastPosition = 0
    var wakeMark = 0

    init(_ permits: Int) { self.permits = permits }
}

final class ModelQueue {
    let limit: Int
    var isShutDown = false
    var elements: [Int] = []
    enum Purpose {
        case get, peek
        case several(ModelMany, Int)
    }

    var takers: [(greenlet: ModelGreenlet, purpose: Purpose)] = []
    var putters: [(greenlet: ModelGreenlet, element: Int)] = []

    init(_ limit: Int?) { self.limit = limit ?? .max }
}

struct ModelTimer {
    enum Work {
        case end(ModelGreenlet, ModelVerdict)
        case raise(timeout: Int, in: ModelGreenlet, Fault)
        case start(ModelGreenlet)
    }

    let deadline: Int64
    let number: Int
    let work: Work
}
