// What the library promises, written a second time and as differently as possible: no stacks and no threads. A greenlet
// is a pile of blocks with a place in each; time, the ready queue and the timers are a number and two lists. It follows
// the documented rules only:
//
// - the ready queue is first in, first out; starts, callbacks and woken greenlets stand in the same one;
// - an iteration of the hub fires due timers by deadline and then order of start, and goes through the ready queue, as
//   many entries as were queued or 4,096, whichever is more; with nothing ready, time jumps to the next deadline;
// - a wait that was ended is ended: what is thrown into a greenlet between its wake-up and its running is raised when
//   it parks next; two exits thrown before the victim sees the first are one;
// - a failure is reported as its greenlet ends; then its links take their places in the ready queue, all at once and in
//   the order of registration: waiters are resumed, closures get a greenlet or a callback of their own;
// - a sticky error is raised wherever its victim would park, and nothing that comes after it ever is;
// - whoever waits for an object stands in a line; what is handed over was received, whatever happens before the
//   receiver
//   runs; a free permit may be taken by whoever runs first, and who was passed over is handed the next;
// - with nothing ready and nothing pending, main is told that it would block forever.

/// Runs a program on the model.
struct ReferenceModel {
    static func log(of program: RandomProgram, defect: PlantedDefect? = nil) -> [Entry] {
        let model = ModelScheduler(program, defect)
        model.run()
        return model.entries
    }
}

/// Mistakes that the model can be told to make, to see that a difference is noticed.
enum PlantedDefect: CaseIterable, Sendable {
    /// The last to become ready runs first.
    case lastInFirstOut
    /// Greenlets whose delay is over wait behind those that yielded until the next iteration.
    case timersInOrderOfStart
    /// Whom a timer wakes waits behind all that is ready.
    case timersQueueUp
    /// An ending greenlet forgets its last link.
    case losesLink
    /// A kill between wake-up and running is lost.
    case losesDeferredKill
    /// A kill between wake-up and running takes the place of what the greenlet was woken for.
    case raisesDeferredKillAtOnce
    /// A second exit is thrown besides the first.
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
    /// joinAll returns the list as it was given.
    case joinAllInGivenOrder
    /// A step of the ready queue has no bound.
    case unboundedStep
    /// A failure is not reported.
    case losesReport
    /// A sticky error is raised once.
    case raisesStickyOnce
    /// What is thrown into a greenlet after a sticky error takes its place.
    case stickyGivesWay
    /// Who finds an event set overtakes those who were woken by it and have not run.
    case overtakesWoken
    /// Who was passed over for a permit goes to the back of the line.
    case losesPlaceInLine
    /// A permit that is released while somebody waits is theirs at once.
    case handsPermitOver
    /// Who waits for room is not told when an element is taken.
    case losesRoom
    /// Who waits for a queue is woken by the end of it as if served.
    case servesRefused
    /// Of those who were passed over, the last comes first.
    case overtakesPassedOver
    /// Who only waits for a queue takes its element.
    case watchersTake
    /// Who was chosen by one thing stays in the lines of the others.
    case staysInOtherLines
}

/// An error on its way. `origin` is the timeout it comes from, which may take it back.
struct ModelError {
    let fault: Fault
    var origin: Int?
    var isSticky = false

    /// A second one says nothing new.
    var isKill: Bool { isExit && origin == nil }

    var isExit: Bool {
        if case .exit = fault { return true }
        return false
    }
}

/// How a block was left.
enum ModelFlow {
    case on
    case threw(ModelError)
    case returned(Int)
}

/// A block that is being run.
struct ModelFrame {
    enum Kind {
        case body
        /// Under the timeout of that number.
        case scope(timeout: Int, isSilent: Bool)
        case catching
        /// Runs these when it is left.
        case guarded(cleanup: [Step])
        /// Runs on its way out of a block that was left like this.
        case cleanup(ModelFlow)
        /// Main after its body: joins the hub and kills what is left.
        case epilogue
    }

    let kind: Kind
    let step: Int
    let steps: [Step]
    var next = 0
}

/// What a parked greenlet waits for, and what it does when it goes on.
enum ModelWait {
    case sleep
    /// So many yields are still to come.
    case yields(Int)
    case join(ModelGreenlet)
    case get(ModelGreenlet, limit: Int?, own: Int?)
    case kill(ModelGreenlet)
    case joinAll([ModelGreenlet], isThrowing: Bool, wanted: Int)
    case killAll([ModelGreenlet], limit: Int?)
    case hub
    case event
    /// Only lets those go first who were woken before.
    case courtesy(Outcome)
    case courtesyForPermits(ModelSemaphore)
    case permit(ModelSemaphore, deadline: Int64?)
    /// Was passed over, and is handed the next one.
    case nextPermit
    case anyPermit(ModelSemaphore)
    case several(ModelMany)
    case put
    case take
}

enum ModelVerdict {
    case woken, expired, failed
}

/// Who is to be told of an end.
enum ModelTellee {
    case waiter(ModelGreenlet)
    case member(ModelGreenlet, ModelCount)
    case several(ModelMany, Int)
    case closure(ModelLink)
}

/// How many of the members of a joinAll or killAll have been told as ended.
final class ModelCount {
    var isSatisfied = false
    let add: (ModelGreenlet) -> Bool
    init(_ add: @escaping (ModelGreenlet) -> Bool) { self.add = add }
}

/// One who waits for several things, and takes nothing or takes from one of them.
final class ModelMany {
    let greenlet: ModelGreenlet
    let wanted: Int
    let takes: Bool
    /// The places of those that have become ready.
    var chosen: [Int] = []
    /// What it was handed, if that was an element.
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
        /// Releases a closure that is not to be called.
        case forget
    }

    let work: Work
    var isPending = true
    init(_ work: Work) { self.work = work }
}

/// A flow of control: main, a greenlet, a link's, or a callback's.
final class ModelGreenlet {
    enum Phase {
        case made, queued, delayed, running, over
    }

    let who: Int
    let isRaw: Bool
    /// Its errors are reported as those of this.
    let reportedAs: Int
    let steps: [Step]
    var phase = Phase.made
    var wasStarted = false
    var frames: [ModelFrame] = []
    /// What it waits for, from parking until it goes on.
    var wait: (ModelWait, step: Int)?
    /// How its wait ended; nil while it is parked.
    var verdict: ModelVerdict?
    var pending: [ModelError] = []
    /// What it was handed while it was parked.
    var handed: Int?
    /// The queue it waits for was shut down.
    var isRefused = false
    var tellees: [ModelTellee] = []
    var result: ModelFlow?
    var endNumber = 0
    /// What a link's greenlet was made for.
    var link: (ModelLink, source: ModelGreenlet)?

    init(who: Int, isRaw: Bool, reportedAs: Int, steps: [Step]) {
        self.who = who
        self.isRaw = isRaw
        self.reportedAs = reportedAs
        self.steps = steps
    }

    /// A callback, raw link or job.
    var isHub: Bool { reportedAs == Who.nobody || reportedAs == Who.job }
    var isParked: Bool { wait != nil && verdict == nil }
    var isOver: Bool { phase == .over }

    /// The error it failed with, if it is over and that is no exit.
    var failure: Fault? {
        if case .threw(let error) = result, !error.isExit { return error.fault }
        return nil
    }
}

final class ModelEvent {
    var isSet = false
    /// When it was set, among all that became ready.
    var readyNumber = 0
    var line: [(greenlet: ModelGreenlet, several: (many: ModelMany, place: Int)?)] = []
    /// How many entries there had been in the ready queue when somebody was woken last.
    var wakeMark = 0
}

final class ModelSemaphore {
    enum Wish {
        case permit
        /// With the place in which it was chosen before.
        case passedOver(Int)
        case look
        case several(ModelMany, Int)
    }

    var permits: Int
    var readyNumber = 0
    var line: [(greenlet: ModelGreenlet, wish: Wish)] = []
    /// The places of those who were woken for a free permit and have not run.
    var chosen: [ObjectIdentifier: Int] = [:]
    var lastPlace = 0
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
