/// The model's hub: time, ready queue, timers, ends and links. ModelSteps.swift has the semantics of the steps.
final class ModelScheduler {
    private enum Ready {
        case resume(ModelGreenlet)
        case start(ModelGreenlet)
        case call(ModelCallback)
    }

    let program: RandomProgram
    let defect: PlantedDefect?
    private(set) var entries: [Entry] = []
    private(set) var now: Int64 = 0
    /// The time of the hub's last poll: it decides which timers are due.
    private var polled: Int64 = 0
    private var hasPolled = false
    private var ready: [Ready] = []
    /// Greenlets that timers woke while others were ready, which run first, and the time of the first until all have
    /// run.
    private var front: [Ready] = []
    private var frontStart: Int64?
    /// Until then timers wait if any greenlet is ready.
    private var timersWaitUntil: Int64 = 0
    private var (readyPace, jobPace) = (ModelPace(), ModelPace())
    /// The index of the first entry of `ready` not taken yet.
    private var readyStart = 0
    /// The number of entries ever queued, and of those taken.
    private(set) var (pushedCount, takenCount) = (0, 0)
    private var timers: [ModelTimer] = []
    /// Jobs posted since the hub last checked.
    var jobs: [(steps: [Step], id: Int)] = []
    private var timerCount = 0
    /// The number of greenlets that have ended and objects that have become ready.
    private var endCount = 0
    private var pollCount = 0

    let main: ModelGreenlet
    var greenlets: [ModelGreenlet?]
    /// The greenlets of links that have started.
    private(set) var linkFlows: [ModelGreenlet] = []
    var links: [Int: (source: ModelGreenlet, link: ModelLink)] = [:]
    var callbacks: [Int: ModelCallback] = [:]
    /// The error of each started timeout, by the step that made it.
    var timeouts: [Int: (duration: Int?, fault: Fault)] = [:]
    let events = (0..<RandomProgram.eventCount).map { _ in ModelEvent() }
    let semaphores = RandomProgram.permits.map { ModelSemaphore($0) }
    let queues = RandomProgram.queueSizes.map { ModelQueue($0) }
    var isFinished = false

    init(_ program: RandomProgram, _ defect: PlantedDefect?) {
        self.program = program
        self.defect = defect
        greenlets = Array(repeating: nil, count: program.greenlets.count)
        main = ModelGreenlet(
            participant: Participant.main, isRaw: false, reportedAs: Participant.main, steps: program.main)
        main.phase = .running
        main.frames = [ModelFrame(kind: .body, step: 0, steps: program.main)]
    }

    func note(_ participant: Int, _ step: Int, _ outcome: Outcome) {
        entries.append(Entry(time: now, participant: participant, step: step, outcome: outcome))
    }

    // MARK: Iterations

    func run() {
        advance(main)
        while !isFinished {
            runJobs()
            fireDueTimers()
            runReady()
            if isFinished { return }
            if readyCount == 0 && timers.isEmpty && jobs.isEmpty { runOutOfWork() }
            passTime()
        }
    }

    private var readyCount: Int { front.count + ready.count - readyStart }

    private static let switchInterval: Int64 = 5_000_000

    /// Jobs posted by these run in the next iteration, and so do those for which no time is left.
    private func runJobs() {
        if jobs.isEmpty { return }
        var posted = jobs[...]
        jobs = []
        jobPace.begin()
        let end = polled + ModelScheduler.switchInterval
        var last = polled
        while true {
            let count = min(jobPace.count, posted.count)
            for (steps, id) in posted.prefix(count) {
                runInHub(steps, as: Participant.link(id), reportingAs: Participant.job)
            }
            posted = posted.dropFirst(count)
            if posted.isEmpty { break }
            jobPace.clockChecked(runCount: count, elapsed: now - last)
            last = now
            if now >= end { break }
        }
        jobPace.end()
        jobs = posted + jobs
        polled = now
    }

    private func fireDueTimers() {
        let hasOthers = readyCount > 0
        if hasOthers && (frontStart != nil || polled < timersWaitUntil) { return }
        let position = ready.count
        while fireFirstDueTimer() {}
        if hasOthers && ready.count > position && hasPolled && defect != .timersQueueUp {
            front = Array(ready[position...])
            ready.removeSubrange(position...)
            pushedCount -= front.count
            frontStart = now
        }
    }

    private func fireFirstDueTimer() -> Bool {
        let due = timers.filter { $0.deadline <= polled }
        let next =
            defect == .timersInOrderOfStart
            ? due.min { $0.number < $1.number }
            : due.min { ($0.deadline, $0.number) < ($1.deadline, $1.number) }
        guard let next else { return false }
        timers.removeAll { $0.number == next.number }
        switch next.work {
        case .end(let greenlet, let verdict): end(greenlet, verdict)
        case .raise(let timeout, let greenlet, let fault):
            deliver(ModelError(fault: fault, origin: timeout), to: greenlet)
        case .start(let greenlet):
            greenlet.phase = .queued
            push(.start(greenlet))
        }
        return true
    }

    private func runReady() {
        let isUnbounded = defect == .unboundedStep
        let most = isUnbounded ? .max : max(readyCount, 4096)
        let end = polled + ModelScheduler.switchInterval
        var last = polled
        var taken = 0
        readyPace.begin()
        while taken < most {
            var count = min(readyPace.count, most - taken)
            if frontStart != nil { count = min(count, max(1, front.count)) }
            for _ in 0..<count where readyCount > 0 {
                runNext()
                if isFinished { return }
            }
            taken += count
            if readyCount == 0 {
                frontStart = nil
                break
            }
            readyPace.clockChecked(runCount: count, elapsed: now - last)
            last = now
            if let began = frontStart, front.isEmpty {
                frontStart = nil
                timersWaitUntil = now + (now - began)
            }
            if now >= end && !isUnbounded { break }
        }
        readyPace.end()
    }

    private func runNext() {
        if defect == .lastInFirstOut, readyStart < ready.count { ready.swapAt(readyStart, ready.count - 1) }
        let entry: Ready
        if front.isEmpty {
            entry = ready[readyStart]
            readyStart += 1
            takenCount += 1
            if readyStart == ready.count {
                ready = []
                readyStart = 0
            }
        } else {
            entry = front.removeFirst()
        }
        switch entry {
        case .resume(let greenlet): advance(greenlet)
        case .start(let greenlet): begin(greenlet)
        case .call(let callback): call(callback)
        }
    }

    private func runOutOfWork() {
        if case .hub? = main.wait?.0 {
            end(main, .woken)
        } else {
            deliver(ModelError(fault: .wouldBlockForever), to: main)
        }
    }

    /// Like `VirtualLoop`: a poll with a deadline jumps to it; after a hundred polls without one, time advances slowly.
    private func passTime() {
        let deadline = readyCount > 0 || !jobs.isEmpty ? nil : timers.map(\.deadline).min()
        if let deadline, deadline > now {
            pollCount = 0
            now = deadline
        } else {
            pollCount += 1
            if pollCount > 100 { now += 100_000 }
        }
        polled = now
        hasPolled = true
    }

    func compute(_ duration: Int) { now += Int64(duration) }

    func nextEndNumber() -> Int {
        endCount += 1
        return endCount
    }

    // MARK: The ready queue

    private func push(_ entry: Ready) {
        ready.append(entry)
        pushedCount += 1
    }

    func queue(_ callback: ModelCallback) { push(.call(callback)) }

    func start(_ greenlet: ModelGreenlet) {
        guard greenlet.phase == .made else { return }
        greenlet.wasStarted = true
        greenlet.phase = .queued
        push(.start(greenlet))
    }

    func start(_ greenlet: ModelGreenlet, after delay: Int) {
        guard greenlet.phase == .made else { return }
        greenlet.wasStarted = true
        greenlet.phase = .delayed
        addTimer(delay, .start(greenlet))
    }

    private func begin(_ greenlet: ModelGreenlet) {
        if greenlet.hasEnded, defect != .runsKilled { return }
        greenlet.phase = .running
        greenlet.frames = [ModelFrame(kind: .body, step: 0, steps: greenlet.steps)]
        if let (link, source) = greenlet.link {
            // An earlier link may have removed this one.
            if link.isCancelled, defect != .callsUnlinked {
                greenlet.frames = []
                greenlet.phase = .ended
                return
            }
            link.isCancelled = true
            linkFlows.append(greenlet)
            note(greenlet.participant, 0, .state(state(of: source)))
        }
        note(greenlet.participant, 0, .began)
        advance(greenlet)
    }

    private func call(_ callback: ModelCallback) {
        guard callback.isPending else { return }
        callback.isPending = false
        switch callback.work {
        case .forget: break
        case .rawLink(let link, let source):
            // An earlier link may have removed this one.
            if link.isCancelled, defect != .callsUnlinked { return }
            link.isCancelled = true
            runInHub(link.steps, as: Participant.link(link.step), seeing: state(of: source))
        case .steps(let steps, let id): runInHub(steps, as: Participant.link(id))
        }
    }

    /// Runs a callback or raw link at once, since it cannot park.
    private func runInHub(
        _ steps: [Step], as participant: Int, seeing snapshot: StateSnapshot? = nil,
        reportingAs reported: Int = Participant.none
    ) {
        let flow = ModelGreenlet(participant: participant, isRaw: true, reportedAs: reported, steps: steps)
        flow.phase = .running
        flow.frames = [ModelFrame(kind: .body, step: 0, steps: steps)]
        if let snapshot { note(participant, 0, .state(snapshot)) }
        note(participant, 0, .began)
        advance(flow)
    }

    private func report(_ fault: Fault, of participant: Int) {
        note(Participant.hub, 0, .reported(fault, of: participant))
    }

    // MARK: Timers

    func addTimer(_ duration: Int, _ work: ModelTimer.Work) {
        timerCount += 1
        timers.append(ModelTimer(deadline: now + Int64(duration), number: timerCount, work: work))
    }

    private func removeTimers(where shouldRemove: (ModelTimer.Work) -> Bool) {
        timers.removeAll { shouldRemove($0.work) }
    }

    func isPending(_ timeout: Int) -> Bool {
        timers.contains {
            if case .raise(timeout, _, _) = $0.work { true } else { false }
        }
    }

    func startTimeout(_ id: Int, _ duration: Int?, _ fault: Fault, in greenlet: ModelGreenlet) {
        timeouts[id] = (duration, fault)
        if let duration { addTimer(duration, .raise(timeout: id, in: greenlet, fault)) }
    }

    /// Also withdraws an error that has fired and was not raised yet.
    func cancelTimeout(_ id: Int, in greenlet: ModelGreenlet) {
        removeTimers {
            if case .raise(id, _, _) = $0 { true } else { false }
        }
        greenlet.pending.removeAll { $0.origin == id }
    }

    // MARK: Waiting

    /// Returns the error that a flow gets instead of parking.
    func checkPending(_ greenlet: ModelGreenlet) -> ModelError? {
        if greenlet.isHub { return ModelError(fault: .blockedInHub) }
        return greenlet.pending.isEmpty ? nil : raise(in: greenlet)
    }

    /// The earliest pending error. A sticky one stays pending.
    func raise(in greenlet: ModelGreenlet) -> ModelError {
        if greenlet.pending[0].isSticky, defect != .raisesStickyOnce { return greenlet.pending[0] }
        return greenlet.pending.removeFirst()
    }

    func park(_ greenlet: ModelGreenlet, _ wait: ModelWait, step: Int, limit: Int? = nil) {
        greenlet.wait = (wait, step)
        greenlet.verdict = nil
        switch wait {
        case .yields, .courtesy, .courtesyForPermits:
            greenlet.verdict = .woken
            push(.resume(greenlet))
        case .sleep: addTimer(limit!, .end(greenlet, .woken))
        default: if let limit { addTimer(limit, .end(greenlet, .expired)) }
        }
    }

    /// Ends a wait in progress.
    func end(_ greenlet: ModelGreenlet, _ verdict: ModelVerdict) {
        guard greenlet.isParked else { return }
        greenlet.verdict = verdict
        removeTimers {
            if case .end(let other, _) = $0 { other === greenlet } else { false }
        }
        for other in greenlets {
            other?.observers.removeAll {
                switch $0 {
                case .waiter(let waiter), .member(let waiter, _): waiter === greenlet
                case .several(let many, _): many.greenlet === greenlet
                case .closure: false
                }
            }
        }
        if defect == .staysRegistered, case .several? = greenlet.wait?.0, verdict == .woken {
            // Keep its stale registrations.
        } else {
            unregister(greenlet)
        }
        push(.resume(greenlet))
    }

    private func unregister(_ greenlet: ModelGreenlet) {
        for event in events { event.waiters.removeAll { $0.greenlet === greenlet } }
        for semaphore in semaphores { semaphore.waiters.removeAll { $0.greenlet === greenlet } }
        for queue in queues {
            queue.takers.removeAll { $0.greenlet === greenlet }
            queue.putters.removeAll { $0.greenlet === greenlet }
        }
    }

    // MARK: Throwing into greenlets

    func deliver(_ error: ModelError, to greenlet: ModelGreenlet) {
        switch greenlet.phase {
        case .ended: return
        case .made, .queued, .delayed:
            removeTimers {
                if case .start(let other) = $0 { other === greenlet } else { false }
            }
            finish(greenlet, .threw(error))
        case .running:
            if greenlet.pending.last?.isSticky == true {
                if defect != .stickyIsReplaced { return }
                greenlet.pending.removeLast()
            }
            if error.isKill, defect != .killsTwice, let first = greenlet.pending.firstIndex(where: \.isKill) {
                if !error.isSticky { return }
                greenlet.pending.remove(at: first)
            }
            if error.origin == nil, !greenlet.isParked {
                if defect == .losesDeferredKill { return }
                if defect == .raisesDeferredKillAtOnce, greenlet.verdict == .woken { greenlet.verdict = .failed }
            }
            greenlet.pending.append(error)
            end(greenlet, .failed)
        }
    }

    // MARK: Ends and links

    /// Records the end of a greenlet whose body has ended or will never run.
    func finish(_ greenlet: ModelGreenlet, _ result: ModelFlow) {
        greenlet.phase = .ended
        greenlet.result = result
        greenlet.pending = []
        greenlet.wait = nil
        greenlet.endNumber = nextEndNumber()
        removeTimers {
            if case .raise(_, let other, _) = $0 { other === greenlet } else { false }
        }
        if greenlet.isHub {
            // An exit is never reported.
            if let fault = greenlet.failure, greenlet.reportedAs == Participant.none {
                report(fault, of: Participant.none)
            }
        } else if let fault = greenlet.failure, defect != .losesReport {
            report(fault, of: greenlet.reportedAs)
        }
        if defect == .losesLink, greenlet.observers.count > 1 { greenlet.observers.removeLast() }
        notify(greenlet)
    }

    /// Queues every link in the ready queue at once.
    func notify(_ greenlet: ModelGreenlet) {
        while !greenlet.observers.isEmpty {
            switch greenlet.observers.removeFirst() {
            case .waiter(let waiter): end(waiter, .woken)
            case .member(let waiter, let count):
                if !count.isSatisfied, count.add(greenlet) {
                    count.isSatisfied = true
                    end(waiter, .woken)
                }
            case .several(let many, let position): choose(many, position)
            case .closure(let link): notify(link, of: greenlet)
            }
        }
    }

    private func notify(_ link: ModelLink, of greenlet: ModelGreenlet) {
        switch link.kind {
        case .value where greenlet.failure != nil, .error where greenlet.failure == nil:
            link.isCancelled = true
            // Its captures are released on the hub.
            queue(ModelCallback(.forget))
        case .raw: queue(ModelCallback(.rawLink(link, of: greenlet)))
        default:
            let flow = ModelGreenlet(
                participant: Participant.link(link.step), isRaw: true, reportedAs: Participant.someLink,
                steps: link.steps)
            flow.link = (link, greenlet)
            start(flow)
        }
    }

    // MARK: State

    func state(of greenlet: ModelGreenlet?) -> StateSnapshot {
        guard let greenlet else { return StateSnapshot() }
        var snapshot = StateSnapshot(
            isStarted: greenlet.wasStarted && !greenlet.hasEnded, isActive: greenlet.wasStarted && !greenlet.hasEnded,
            isDead: greenlet.hasEnded)
        if greenlet.isRaw || !greenlet.hasEnded { return snapshot }
        snapshot.isReady = true
        switch greenlet.result {
        case .threw(let error) where error.isExit:
            snapshot.exit = error.fault
            snapshot.isSuccessful = true
        case .threw(let error): snapshot.error = error.fault
        case .returned(let value):
            snapshot.value = value
            snapshot.isSuccessful = true
        case .normal, nil:
            snapshot.value = 0
            snapshot.isSuccessful = true
        }
        return snapshot
    }
}

/// The number of entries run between two clock checks: 1, 2, 4, … up to 128 while each check finds less than a quarter
/// of the switch interval elapsed; otherwise the number that would have fitted into that quarter.
private struct ModelPace {
    private var limit = 128
    private var wasSlow = false
    private(set) var count = 1

    mutating func begin() { (count, wasSlow) = (1, false) }

    mutating func clockChecked(runCount: Int, elapsed: Int64) {
        let tolerance: Int64 = 1_250_000
        if elapsed > tolerance {
            wasSlow = true
            limit = max(1, Int(Int64(runCount) * tolerance / elapsed))
            count = limit
        } else {
            count = min(2 * count, limit)
        }
    }

    mutating func end() {
        if !wasSlow { limit = min(2 * limit, 128) }
    }
}
