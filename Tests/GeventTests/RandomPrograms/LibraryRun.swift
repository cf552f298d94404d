import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// The failure that a step throws.
private struct StepFailure: Error { let step: Int }

/// The exit that a step throws.
private struct StepExit: GreenletExitError { let step: Int }

/// Runs a program on the library, on virtual time, as the main greenlet of its own hub.
final class LibraryRun {
    private let program: RandomProgram
    private let hub: Hub
    private let loop: VirtualLoop
    private(set) var entries: [Entry] = []
    private var greenlets: [AnyGreenlet?]
    private var links: [Int: Registration] = [:]
    private var callbacks: [Int: Registration] = [:]
    private var timeouts: [Int: Timeout] = [:]
    private var timeoutNames: [ObjectIdentifier: Int] = [:]
    private var events = (0..<RandomProgram.eventCount).map { _ in Event() }
    private var semaphores = RandomProgram.permits.map { Semaphore($0) }
    private var queues = RandomProgram.queueSizes.map { Queue<Int>(maxSize: $0) }
    /// The greenlets of links that have started.
    private var linkGreenlets: [AnyGreenlet] = []
    /// Captured by every closure that is passed to the library.
    private var witnesses = 0

    private init(_ program: RandomProgram, _ hub: Hub) throws {
        self.program = program
        self.hub = hub
        loop = try #require(hub.loop as? VirtualLoop)
        greenlets = Array(repeating: nil, count: program.greenlets.count)
    }

    /// The log of the program. An entry at the end reports leftovers.
    static func log(of program: RandomProgram) throws -> [Entry] {
        do {
            return try withHub { hub in
                let run = try LibraryRun(program, hub)
                try run.runAll()
                return run.entries
            }
        } catch let leftovers as HubLeftovers {
            return [Entry(time: 0, participant: Participant.main, step: 0, outcome: .threw(.other("\(leftovers)")))]
        }
    }

    private func runAll() throws {
        hub.errorHandler = { [unowned self] error, greenlet in
            note(Participant.hub, 0, .reported(fault(error), of: reporter(greenlet)))
        }
        do {
            let value = try run(program.main, as: Participant.main)
            note(Participant.main, 0, value.map { .value($0) } ?? .done)
        } catch {
            note(Participant.main, 0, .threw(fault(error)))
        }
        try finish()
        for number in greenlets.indices { note(Participant.main, 0, .state(state(of: greenlets[number]))) }
        let waiterCount =
            (events + semaphores).map(\.linkCount).reduce(0, +)
            + queues.flatMap { [$0.getters.count, $0.putters.count] }.reduce(0, +)
        if waiterCount > 0 { note(Participant.main, 0, .threw(.other("\(waiterCount) waiters are still registered"))) }
        for semaphore in semaphores { note(Participant.main, 0, .value(semaphore.counter)) }
        for queue in queues { note(Participant.main, 0, .value(queue.count)) }

        // Every greenlet has ended or was never started, so all must be released.
        struct WeakGreenlet { weak var greenlet: AnyGreenlet? }
        let remains = greenlets.map { WeakGreenlet(greenlet: $0) }
        greenlets = []
        linkGreenlets = []
        links = [:]
        callbacks = [:]
        hub.errorHandler = nil
        let alive = remains.count { $0.greenlet != nil }
        if alive > 0 { note(Participant.main, 0, .threw(.other("\(alive) greenlets are kept alive"))) }
        if witnesses > 0 { note(Participant.main, 0, .threw(.other("\(witnesses) closures are kept alive"))) }
        timeouts = [:]
    }

    /// Lets all greenlets end, and kills the rest until none is active.
    private func finish() throws {
        while true {
            do {
                _ = try hub.join()
                note(Participant.main, 0, .done)
            } catch {
                note(Participant.main, 0, .threw(fault(error)))
                continue
            }
            let active = (greenlets.compactMap { $0 } + linkGreenlets).filter(\.isActive)
            if active.isEmpty { return }
            for greenlet in active { try Gevent.kill(greenlet, throwing: StepExit(step: 0)) }
        }
    }

    // MARK: Logging

    private func note(_ participant: Int, _ step: Int, _ outcome: Outcome) {
        entries.append(Entry(time: hub.now.nanoseconds, participant: participant, step: step, outcome: outcome))
    }

    /// Logs the outcome of a step, and rethrows its error.
    private func noting(_ step: Step, _ participant: Int, _ body: () throws -> Outcome) throws {
        do {
            let outcome = try body()
            note(participant, step.id, outcome)
        } catch {
            note(participant, step.id, .threw(fault(error)))
            throw error
        }
    }

    private func reporter(_ greenlet: AnyGreenlet?) -> Int {
        guard let greenlet else { return Participant.none }
        return greenlets.firstIndex { $0 === greenlet } ?? Participant.someLink
    }

    private func fault(_ error: any Error) -> Fault {
        switch error {
        case let error as StepFailure: return .failure(error.step)
        case let error as StepExit: return .exit(error.step)
        case let timeout as Timeout:
            if let name = timeoutNames[ObjectIdentifier(timeout)] { return .timeout(name) }
            let duration = timeout.duration.map { Int($0 / .nanoseconds(1)) }
            return timeout.description.hasSuffix("(silent)") ? .silentTimeout(duration) : .limit(duration)
        case let error as HubError where error.code == .wouldBlockForever: return .wouldBlockForever
        case let error as HubError where error.code == .blockedInHub: return .blockedInHub
        case QueueError.full: return .queueFull
        case QueueError.empty: return .queueEmpty
        case QueueError.shutDown: return .queueShutDown
        default: return .other("\(error)")
        }
    }

    private func error(_ kind: ThrownKind, _ step: Step) -> any Error {
        kind == .exit ? StepExit(step: step.id) : StepFailure(step: step.id)
    }

    private func name(_ timeout: Timeout, _ step: Step) {
        timeouts[step.id] = timeout
        timeoutNames[ObjectIdentifier(timeout)] = step.id
    }

    // MARK: Greenlets

    private func watched<Input, Output>(_ body: @escaping (Input) throws -> Output) -> (Input) throws -> Output {
        witnesses += 1
        let witness = Witness { self.witnesses -= 1 }
        return { input in try withExtendedLifetime(witness) { try body(input) } }
    }

    private func body(_ number: Int) -> () throws -> Int {
        let body = watched { (_: Void) -> Int in
            self.note(number, 0, .began)
            do {
                let value = try self.run(self.program.greenlets[number].steps, as: number) ?? 0
                self.note(number, 0, .value(value))
                return value
            } catch {
                self.note(number, 0, .threw(self.fault(error)))
                throw error
            }
        }
        return { try body(()) }
    }

    /// The greenlet, made at its first mention.
    private func joinable(_ number: Int) -> Greenlet<Int> {
        if let greenlet = greenlets[number] { return unsafeDowncast(greenlet, to: Greenlet<Int>.self) }
        let greenlet = Greenlet(body(number))
        greenlets[number] = greenlet
        return greenlet
    }

    /// The same, but a raw greenlet exists only from its start.
    private func anyGreenlet(_ number: Int) -> AnyGreenlet? {
        if number == Participant.main { return mainGreenlet }
        return program.greenlets[number].isRaw ? greenlets[number] : joinable(number)
    }

    private lazy var mainGreenlet = AnyGreenlet.current

    private func start(_ number: Int) {
        if program.greenlets[number].isRaw {
            if greenlets[number] != nil { return }
            let body = body(number)
            greenlets[number] = spawnRaw { _ = try body() }
        } else if greenlets[number] == nil {
            greenlets[number] = spawn(body(number))
        } else {
            joinable(number).start()
        }
    }

    private func state(of greenlet: AnyGreenlet?) -> StateSnapshot {
        guard let greenlet else { return StateSnapshot() }
        var snapshot = StateSnapshot(
            isStarted: greenlet.isStarted, isActive: greenlet.isActive, isDead: greenlet.isDead)
        if let greenlet = greenlet as? Greenlet<Int> {
            snapshot.isReady = greenlet.isReady
            snapshot.isSuccessful = greenlet.isSuccessful
            snapshot.value = greenlet.value
            snapshot.error = greenlet.error.map(fault)
            snapshot.exit = greenlet.exit.map(fault)
        }
        return snapshot
    }

    private func numbers(_ greenlets: [Greenlet<Int>]) -> [Int] {
        greenlets.map { greenlet in self.greenlets.firstIndex { $0 === greenlet }! }
    }

    // MARK: Steps

    /// Returns the value of a `return` among the steps.
    private func run(_ steps: [Step], as participant: Int) throws -> Int? {
        if participant == Participant.main { _ = mainGreenlet }
        for step in steps {
            if let value = try perform(step, participant) { return value }
        }
        return nil
    }

    /// Runs a block and logs how it ended. The outer nil is the value of an expired scope.
    private func scope(_ step: Step, _ participant: Int, _ body: () throws -> Int??) throws -> Int? {
        do {
            guard let value = try body() else {
                note(participant, step.id, .expired)
                return nil
            }
            note(participant, step.id, .done)
            return value
        } catch {
            note(participant, step.id, .threw(fault(error)))
            throw error
        }
    }

    private func perform(_ step: Step, _ participant: Int) throws -> Int? {
        switch step.action {
        case .start(let number):
            start(number)
            note(participant, step.id, .done)
        case .startAfter(let number, let delay):
            joinable(number).start(after: .nanoseconds(delay))
            note(participant, step.id, .done)
        case .sleep(let duration):
            try noting(step, participant) {
                try sleep(for: .nanoseconds(duration))
                return .done
            }
        case .spin(let count):
            try noting(step, participant) {
                for _ in 0..<count { try sleep() }
                return .done
            }
        case .compute(let duration):
            loop.advance(by: .nanoseconds(duration))
            note(participant, step.id, .done)
        case .post(let steps):
            let body = watched { (_: Void) in try self.runApart(steps, as: Participant.link(step.id)) }
            // The job runs on this very thread.
            let job = Smuggled { do { try body(()) } catch {} }
            note(participant, step.id, .done)
            #expect(hub.handle.post { job.value() })
        case .kill(let number, let kind, let mode, let isSticky):
            try noting(step, participant) { try kill(number, error(kind, step), mode, isSticky) }
        case .killAll(let numbers, let kind, let isBlocking, let timeout, let isSticky):
            try noting(step, participant) {
                try killAll(
                    numbers.compactMap { anyGreenlet($0) }, throwing: error(kind, step), blocking: isBlocking,
                    timeout: timeout.map { .nanoseconds($0) }, sticky: isSticky)
                return .done
            }
        case .join(let number, let timeout):
            try noting(step, participant) {
                try joinable(number).join(timeout: timeout.map { .nanoseconds($0) })
                return .done
            }
        case .get(let number, let mode):
            try noting(step, participant) { .value(try get(number, mode, step)) }
        case .joinAll(let numbers, let timeout, let isThrowing, let count):
            try noting(step, participant) {
                let ended = try joinAll(
                    numbers.map { joinable($0) }, timeout: timeout.map { .nanoseconds($0) },
                    throwingErrors: isThrowing, count: count)
                return .list(self.numbers(ended))
            }
        case .link(let number, let kind, let steps):
            link(number, kind, steps, step)
            note(participant, step.id, .done)
        case .unlink(let id):
            links[id]?.cancel()
            note(participant, step.id, links[id] == nil ? .absent : .done)
        case .callback(let steps):
            let body = watched { (_: Void) in try self.runApart(steps, as: Participant.link(step.id)) }
            callbacks[step.id] = hub.runCallback { try body(()) }
            note(participant, step.id, .done)
        case .stopCallback(let id):
            note(participant, step.id, callbacks[id].map { .wasPending($0.isActive) } ?? .absent)
            callbacks[id]?.cancel()
        case .state(let number):
            note(participant, step.id, .state(state(of: anyGreenlet(number))))
        case .fail(let kind):
            try noting(step, participant) { throw error(kind, step) }
        case .returning:
            note(participant, step.id, .done)
            return step.id
        case .startTimeout, .startTimeoutAgain, .cancelTimeout:
            note(participant, step.id, timeout(step))
        case .withTimeout, .withSilentTimeout, .withTimeoutValue, .catching, .cleaningUp:
            return try block(step, participant)
        case .setEvent, .clearEvent, .waitForEvent, .acquire, .release, .waitForPermit, .put, .take, .shutDown,
            .waitForAny, .takeAny:
            try noting(step, participant) { try object(step) }
        }
        return nil
    }

    private func object(_ step: Step) throws -> Outcome {
        func limit(_ timeout: Int?) -> Duration? { timeout.map { .nanoseconds($0) } }
        switch step.action {
        case .setEvent(let number): events[number].set()
        case .clearEvent(let number): events[number].clear()
        case .waitForEvent(let number, let timeout): return .satisfied(try events[number].wait(timeout: limit(timeout)))
        case .acquire(let number, let timeout):
            return .satisfied(try semaphores[number].acquire(timeout: limit(timeout)))
        case .release(let number): return .value(semaphores[number].release())
        case .waitForPermit(let number, let timeout):
            return .value(try semaphores[number].wait(timeout: limit(timeout)))
        case .put(let number, let timeout): try queues[number].put(step.id, timeout: limit(timeout))
        case .shutDown(let number, let isImmediate): queues[number].shutdown(immediate: isImmediate)
        case .take(let number, let timeout, false): return .value(try queues[number].get(timeout: limit(timeout)))
        case .take(let number, let timeout, true): return .value(try queues[number].peek(timeout: limit(timeout)))
        case .waitForAny(let things, let timeout, let count):
            let objects = things.map(waitable)
            let ready = try Gevent.wait(objects, timeout: limit(timeout), count: count)
            // Duplicates keep their order.
            var places = ready.map { one in objects.indices.filter { objects[$0] === one } }
            for (index, found) in places.enumerated() {
                let before = ready[..<index].count { $0 === ready[index] }
                places[index] = [found[before]]
            }
            return .list(places.flatMap { $0 })
        case .takeAny(let things, let timeout):
            var handed: [Int] = []
            let cases = things.map { thing in
                switch thing {
                case .event(let number): TakeCase(events[number]) {}
                case .semaphore(let number): TakeCase(semaphores[number]) {}
                case .queue(let number): TakeCase(queues[number]) { handed = [$0] }
                case .greenlet(let number): TakeCase(joinable(number)) {}
                }
            }
            return try takeFirst(of: cases, timeout: limit(timeout)).map { .list([$0] + handed) } ?? .satisfied(false)
        default: preconditionFailure("not about an object: \(step.action)")
        }
        return .done
    }

    private func waitable(_ thing: Thing) -> any Waitable {
        switch thing {
        case .event(let number): events[number]
        case .semaphore(let number): semaphores[number]
        case .queue(let number): queues[number]
        case .greenlet(let number): joinable(number)
        }
    }

    private func block(_ step: Step, _ participant: Int) throws -> Int? {
        switch step.action {
        case .withTimeout(let duration, let kind, let steps):
            return try scope(step, participant) {
                try withTimeout(duration.map { .nanoseconds($0) }, throwing: kind.map { error($0, step) }) { timeout in
                    name(timeout, step)
                    return try run(steps, as: participant)
                }
            }
        case .withSilentTimeout(let duration, let steps):
            return try scope(step, participant) {
                try withSilentTimeout(duration.map { .nanoseconds($0) }) { try run(steps, as: participant) }
            }
        case .withTimeoutValue(let duration, let steps):
            return try scope(step, participant) {
                try withTimeout(duration.map { .nanoseconds($0) }, timeoutValue: Int??.none) {
                    try run(steps, as: participant)
                }
            }
        case .catching(let steps):
            do {
                return try run(steps, as: participant)
            } catch {
                note(participant, step.id, .caught(fault(error)))
            }
        case .cleaningUp(let cleanup, let steps):
            defer {
                do {
                    _ = try run(cleanup, as: participant)
                    note(participant, step.id, .done)
                } catch {
                    note(participant, step.id, .caught(fault(error)))
                }
            }
            return try run(steps, as: participant)
        default: preconditionFailure("not a block: \(step.action)")
        }
        return nil
    }

    private func kill(
        _ number: Int, _ error: any Error, _ mode: KillMode, _ isSticky: Bool
    ) throws -> Outcome {
        guard let greenlet = anyGreenlet(number) else { return .absent }
        switch mode {
        case .function: try Gevent.kill(greenlet, throwing: error, sticky: isSticky)
        case .nonBlocking: try joinable(number).kill(throwing: error, blocking: false, sticky: isSticky)
        case .blocking(let timeout):
            try joinable(number).kill(
                throwing: error, timeout: timeout.map { .nanoseconds($0) }, sticky: isSticky)
        }
        return .done
    }

    private func get(_ number: Int, _ mode: GetMode, _ step: Step) throws -> Int {
        let greenlet = joinable(number)
        switch mode {
        case .nonBlocking: return try greenlet.get(blocking: false)
        case .blocking(let timeout): return try greenlet.get(timeout: timeout.map { .nanoseconds($0) })
        case .under(let duration):
            let timeout = Timeout(duration.map { .nanoseconds($0) })
            name(timeout, step)
            return try greenlet.get(timeout: timeout)
        }
    }

    private func link(_ number: Int, _ kind: LinkKind, _ steps: [Step], _ step: Step) {
        let greenlet = joinable(number)
        let body = watched { (greenlet: Greenlet<Int>) in
            self.note(Participant.link(step.id), 0, .state(self.state(of: greenlet)))
            if kind != .raw { self.linkGreenlets.append(AnyGreenlet.current) }
            try self.runApart(steps, as: Participant.link(step.id))
        }
        let link =
            switch kind {
            case .any: greenlet.link(body)
            case .value: greenlet.linkValue(body)
            case .error: greenlet.linkError(body)
            case .raw: greenlet.rawLink(body)
            }
        links[step.id] = link
    }

    private func runApart(_ steps: [Step], as participant: Int) throws {
        note(participant, 0, .began)
        do {
            _ = try run(steps, as: participant)
            note(participant, 0, .done)
        } catch {
            note(participant, 0, .threw(fault(error)))
            throw error
        }
    }

    private func timeout(_ step: Step) -> Outcome {
        switch step.action {
        case .startTimeout(let duration, let kind):
            let timeout = Timeout(duration.map { .nanoseconds($0) }, throwing: kind.map { error($0, step) })
            name(timeout, step)
            timeout.start()
            return .wasPending(timeout.isPending)
        case .startTimeoutAgain(let id):
            guard let timeout = timeouts[id] else { return .absent }
            if timeout.isPending { return .wasPending(true) }
            timeout.start()
            return .wasPending(false)
        case .cancelTimeout(let id):
            guard let timeout = timeouts[id] else { return .absent }
            defer { timeout.cancel() }
            return .wasPending(timeout.isPending)
        default: preconditionFailure("not about a timeout: \(step.action)")
        }
    }
}
