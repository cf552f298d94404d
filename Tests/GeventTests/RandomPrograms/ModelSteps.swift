// The semantics of the steps of a program.

extension ModelScheduler {
    /// The result of a step: it completed, it opened a block (whose first step comes next), or the flow parked.
    enum Progress {
        case flow(ModelFlow)
        case opened
        case parked
    }

    /// Runs a flow until it parks or ends.
    func advance(_ greenlet: ModelGreenlet) {
        var flow = ModelFlow.normal
        if greenlet.wait != nil {
            switch resume(greenlet) {
            case .flow(let resumed): flow = resumed
            case .opened: break
            case .parked: return
            }
        }
        while let frame = greenlet.frames.last {
            if case .normal = flow, frame.next < frame.steps.count {
                greenlet.frames[greenlet.frames.count - 1].next += 1
                switch perform(frame.steps[frame.next], greenlet) {
                case .flow(let next): flow = next
                case .opened: flow = .normal
                case .parked: return
                }
            } else if case .epilogue = frame.kind {
                if !proceedWithEpilogue(greenlet) { return }
                flow = .normal
            } else {
                greenlet.frames.removeLast()
                flow = leave(frame, flow, greenlet)
            }
        }
    }

    // MARK: Blocks

    /// Leaves a block. Returns how the surrounding block continues.
    private func leave(_ frame: ModelFrame, _ flow: ModelFlow, _ greenlet: ModelGreenlet) -> ModelFlow {
        switch frame.kind {
        case .body:
            leaveBody(flow, greenlet)
            return .normal
        case .catching:
            guard case .threw(let error) = flow else { return flow }
            note(greenlet.participant, frame.step, .caught(error.fault))
            return .normal
        case .scope(let timeout, let isSilent): return leaveScope(frame.step, timeout, isSilent, flow, greenlet)
        case .guarded(let cleanup):
            greenlet.frames.append(ModelFrame(kind: .cleanup(flow), step: frame.step, steps: cleanup))
            return .normal
        case .cleanup(let before):
            if case .threw(let error) = flow {
                note(greenlet.participant, frame.step, .caught(error.fault))
            } else {
                note(greenlet.participant, frame.step, .done)
            }
            return before
        case .epilogue: preconditionFailure("main is left by the end of the program only")
        }
    }

    private func leaveBody(_ flow: ModelFlow, _ greenlet: ModelGreenlet) {
        switch flow {
        case .threw(let error): note(greenlet.participant, 0, .threw(error.fault))
        case .returned(let value) where greenlet.participant < 1000: note(greenlet.participant, 0, .value(value))
        case .returned: note(greenlet.participant, 0, .done)
        case .normal:
            note(greenlet.participant, 0, greenlet.participant >= 0 && greenlet.participant < 1000 ? .value(0) : .done)
        }
        if greenlet === main {
            main.frames = [ModelFrame(kind: .epilogue, step: 0, steps: [])]
        } else {
            finish(greenlet, flow)
        }
    }

    private func leaveScope(
        _ step: Int, _ timeout: Int, _ isSilent: Bool, _ flow: ModelFlow, _ greenlet: ModelGreenlet
    ) -> ModelFlow {
        if defect != .forgetsToCancel { cancelTimeout(timeout, in: greenlet) }
        guard case .threw(let error) = flow else {
            note(greenlet.participant, step, .done)
            return flow
        }
        let isOwn = error.origin == timeout || (defect == .swallowsForeignTimeout && error.origin != nil)
        if isSilent && isOwn {
            note(greenlet.participant, step, .expired)
            return .normal
        }
        note(greenlet.participant, step, .threw(error.fault))
        return flow
    }

    /// Joins the hub, kills the remaining greenlets, and repeats. Returns false when main parks or the program has
    /// ended.
    private func proceedWithEpilogue(_ main: ModelGreenlet) -> Bool {
        if let error = checkPending(main) {
            note(main.participant, 0, .threw(error.fault))
            return true
        }
        park(main, .hub, step: 0)
        return false
    }

    private func hubJoined() -> Progress {
        note(main.participant, 0, .done)
        let active = (greenlets.compactMap { $0 } + linkFlows).filter { $0.wasStarted && !$0.hasEnded }
        for greenlet in active { deliver(ModelError(fault: .exit(0)), to: greenlet) }
        if active.isEmpty {
            for greenlet in greenlets { note(main.participant, 0, .state(state(of: greenlet))) }
            for semaphore in semaphores { note(main.participant, 0, .value(semaphore.permits)) }
            for queue in queues { note(main.participant, 0, .value(queue.elements.count)) }
            isFinished = true
            main.frames = []
            return .parked
        }
        return .flow(.normal)
    }

    // MARK: Waits

    /// Logs the outcome of a step.
    func done(_ greenlet: ModelGreenlet, _ step: Int, _ outcome: Outcome) -> Progress {
        note(greenlet.participant, step, outcome)
        return .flow(.normal)
    }

    func fail(_ greenlet: ModelGreenlet, _ step: Int, _ error: ModelError) -> Progress {
        note(greenlet.participant, step, .threw(error.fault))
        return .flow(.threw(error))
    }

    /// Completes a wait. Returns the step's progress.
    private func resume(_ greenlet: ModelGreenlet) -> Progress {
        guard let (wait, step) = greenlet.wait, let verdict = greenlet.verdict else {
            preconditionFailure("went on while it was parked")
        }
        greenlet.wait = nil
        greenlet.verdict = nil
        if case .get(_, _, let own?) = wait {
            // The caller's own timeout is cancelled with the wait, but an error it already threw is raised.
            let raised = verdict == .failed ? raise(in: greenlet) : nil
            cancelTimeout(own, in: greenlet)
            if let raised { return fail(greenlet, step, raised) }
        }
        if verdict == .failed {
            let error = raise(in: greenlet)
            if case .hub = wait {
                note(greenlet.participant, step, .threw(error.fault))
                return .flow(.normal)
            }
            return fail(greenlet, step, error)
        }
        switch wait {
        case .sleep, .join, .kill: return done(greenlet, step, .done)
        case .yields(let left): return left == 0 ? done(greenlet, step, .done) : yield(left, greenlet, step)
        case .get(let target, let limit, _):
            if verdict == .expired { return fail(greenlet, step, ModelError(fault: .limit(limit))) }
            return take(target, greenlet, step)
        case .joinAll(let members, let isThrowing, let wanted):
            return collect(members, isThrowing, wanted, greenlet, step)
        case .killAll(let members, let limit): return allKilled(members, limit, greenlet, step)
        case .hub: return hubJoined()
        case .event, .courtesy, .courtesyForPermits, .permit, .nextPermit, .anyPermit, .put, .take, .several:
            return done(with: wait, verdict, greenlet, step)
        }
    }

    private func yield(_ count: Int, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        park(greenlet, .yields(count - 1), step: step)
        return .parked
    }

    /// Returns the outcome of an ended greenlet.
    private func take(_ target: ModelGreenlet, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        switch target.result {
        // Thrown anew: if it came from a timeout, that timeout is foreign here.
        case .threw(let error): fail(greenlet, step, ModelError(fault: error.fault, origin: error.origin))
        case .returned(let value): done(greenlet, step, .value(value))
        case .normal, nil: done(greenlet, step, .value(0))
        }
    }

    /// Parks until `target` ends.
    private func waitFor(
        _ target: ModelGreenlet, _ wait: ModelWait, _ greenlet: ModelGreenlet, _ step: Int, limit: Int?
    ) -> Progress {
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        if target === greenlet { return fail(greenlet, step, ModelError(fault: .wouldBlockForever)) }
        target.observers.append(.waiter(greenlet))
        park(greenlet, wait, step: step, limit: limit)
        return .parked
    }

    /// Parks until notified of the end of `wanted` of `members`, or of a failed one if that matters. Returns nil if
    /// there is no reason to park.
    private func waitForAll(
        _ members: [ModelGreenlet], wanted: Int, isThrowing: Bool, limit: Int?, _ wait: ModelWait,
        _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress? {
        let finished = members.filter(\.hasEnded)
        if finished.count >= wanted || (isThrowing && finished.contains { $0.failure != nil }) { return nil }
        if let limit, limit <= 0 { return nil }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        var notifiedCount = finished.count
        let count = ModelCount { member in
            notifiedCount += 1
            return notifiedCount >= wanted || (isThrowing && member.failure != nil)
        }
        for member in members where !member.hasEnded { member.observers.append(.member(greenlet, count)) }
        park(greenlet, wait, step: step, limit: limit)
        return .parked
    }

    /// The ended members, in the order in which they ended.
    private func ended(_ members: [ModelGreenlet]) -> [ModelGreenlet] {
        members.filter(\.hasEnded).enumerated().sorted {
            ($0.element.endNumber, $0.offset) < ($1.element.endNumber, $1.offset)
        }.map(\.element)
    }

    private func collect(
        _ members: [ModelGreenlet], _ isThrowing: Bool, _ wanted: Int, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        let found = defect == .joinAllInGivenOrder ? members.filter(\.hasEnded) : ended(members)
        let finished = found.prefix(wanted)
        if isThrowing, let failed = finished.first(where: { $0.failure != nil }), case .threw(let error) = failed.result
        {
            return fail(greenlet, step, error)
        }
        return done(greenlet, step, .list(finished.map(\.participant)))
    }

    private func allKilled(
        _ members: [ModelGreenlet], _ limit: Int?, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        if members.allSatisfy(\.hasEnded) { return done(greenlet, step, .done) }
        return fail(greenlet, step, ModelError(fault: .limit(limit)))
    }

    // MARK: Targets

    /// The greenlet, made at its first mention.
    func joinable(_ number: Int) -> ModelGreenlet {
        if let greenlet = greenlets[number] { return greenlet }
        let body = program.greenlets[number]
        let greenlet = ModelGreenlet(participant: number, isRaw: body.isRaw, reportedAs: number, steps: body.steps)
        greenlets[number] = greenlet
        return greenlet
    }

    /// The same, but a raw greenlet exists only from its start.
    private func anyGreenlet(_ number: Int) -> ModelGreenlet? {
        if number == Participant.main { return main }
        return program.greenlets[number].isRaw ? greenlets[number] : joinable(number)
    }

    private func error(_ kind: ThrownKind, _ step: Step, isSticky: Bool = false) -> ModelError {
        ModelError(fault: kind == .exit ? .exit(step.id) : .failure(step.id), isSticky: isSticky)
    }

    // MARK: Steps

    private func perform(_ step: Step, _ greenlet: ModelGreenlet) -> Progress {
        switch step.action {
        case .start(let number):
            start(joinable(number))
            return done(greenlet, step.id, .done)
        case .startAfter(let number, let delay):
            start(joinable(number), after: delay)
            return done(greenlet, step.id, .done)
        case .sleep(let duration):
            if duration <= 0 { return yield(1, greenlet, step.id) }
            if let error = checkPending(greenlet) { return fail(greenlet, step.id, error) }
            park(greenlet, .sleep, step: step.id, limit: duration)
            return .parked
        case .spin(let count): return yield(count, greenlet, step.id)
        case .compute(let duration):
            compute(duration)
            return done(greenlet, step.id, .done)
        case .post(let steps):
            jobs.append((steps, step.id))
            return done(greenlet, step.id, .done)
        case .kill(let number, let kind, let mode, let isSticky):
            return kill(number, error(kind, step, isSticky: isSticky), mode, greenlet, step.id)
        case .killAll(let numbers, let kind, let isBlocking, let timeout, let isSticky):
            return killAll(
                numbers.compactMap { anyGreenlet($0) }, error(kind, step, isSticky: isSticky), isBlocking, timeout,
                greenlet, step.id)
        case .join(let number, let timeout):
            let target = joinable(number)
            if target.hasEnded || timeout.map({ $0 <= 0 }) == true { return done(greenlet, step.id, .done) }
            return waitFor(target, .join(target), greenlet, step.id, limit: timeout)
        case .get(let number, let mode): return get(joinable(number), mode, greenlet, step)
        case .joinAll(let numbers, let timeout, let isThrowing, let count):
            let members = numbers.map { joinable($0) }
            let wanted = min(count ?? members.count, members.count)
            return waitForAll(
                members, wanted: wanted, isThrowing: isThrowing, limit: timeout,
                .joinAll(members, isThrowing: isThrowing, wanted: wanted), greenlet, step.id)
                ?? collect(members, isThrowing, wanted, greenlet, step.id)
        case .fail(let kind): return fail(greenlet, step.id, error(kind, step))
        case .returning:
            note(greenlet.participant, step.id, .done)
            return .flow(.returned(step.id))
        case .state(let number): return done(greenlet, step.id, .state(state(of: anyGreenlet(number))))
        case .startTimeout, .startTimeoutAgain, .cancelTimeout:
            return done(greenlet, step.id, timeout(step, greenlet))
        case .link, .unlink, .callback, .stopCallback:
            return done(greenlet, step.id, registration(step))
        case .withTimeout, .withSilentTimeout, .withTimeoutValue, .catching, .cleaningUp:
            open(step, greenlet)
            return .opened
        case .setEvent, .clearEvent, .waitForEvent, .acquire, .release, .waitForPermit, .put, .take, .shutDown,
            .waitForAny, .takeAny:
            return object(step, greenlet)
        }
    }

    private func open(_ step: Step, _ greenlet: ModelGreenlet) {
        func push(_ kind: ModelFrame.Kind, _ steps: [Step]) {
            greenlet.frames.append(ModelFrame(kind: kind, step: step.id, steps: steps))
        }
        switch step.action {
        case .withTimeout(let duration, let kind, let steps):
            startTimeout(step.id, duration, kind.map { error($0, step).fault } ?? .timeout(step.id), in: greenlet)
            push(.scope(timeout: step.id, isSilent: false), steps)
        case .withSilentTimeout(let duration, let steps):
            startTimeout(step.id, duration, .silentTimeout(duration), in: greenlet)
            push(.scope(timeout: step.id, isSilent: true), steps)
        case .withTimeoutValue(let duration, let steps):
            startTimeout(step.id, duration, .limit(duration), in: greenlet)
            push(.scope(timeout: step.id, isSilent: true), steps)
        case .catching(let steps): push(.catching, steps)
        case .cleaningUp(let cleanup, let steps): push(.guarded(cleanup: cleanup), steps)
        default: preconditionFailure("not a block: \(step.action)")
        }
    }

    private func kill(
        _ number: Int, _ error: ModelError, _ mode: KillMode, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        guard let target = anyGreenlet(number) else { return done(greenlet, step, .absent) }
        if target.hasEnded { return done(greenlet, step, .done) }
        guard case .blocking(let timeout) = mode else {
            deliver(error, to: target)
            return done(greenlet, step, .done)
        }
        if target === greenlet {
            if error.isSticky { deliver(error, to: target) }
            return fail(greenlet, step, error)
        }
        deliver(error, to: target)
        if target.hasEnded || timeout.map({ $0 <= 0 }) == true || defect == .killDoesNotWait {
            return done(greenlet, step, .done)
        }
        return waitFor(target, .kill(target), greenlet, step, limit: timeout)
    }

    private func killAll(
        _ members: [ModelGreenlet], _ error: ModelError, _ isBlocking: Bool, _ timeout: Int?,
        _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        // First the members that have not run, then the others, each in order.
        for member in members where member.phase != .running { deliver(error, to: member) }
        for member in members where member.phase == .running { deliver(error, to: member) }
        if !isBlocking { return done(greenlet, step, .done) }
        if members.contains(where: { $0 === greenlet }), let error = checkPending(greenlet) {
            return fail(greenlet, step, error)
        }
        // Main never ends, so it is not waited for.
        let others = members.filter { $0 !== main }
        return waitForAll(
            others, wanted: others.count, isThrowing: false, limit: timeout, .killAll(others, limit: timeout),
            greenlet, step) ?? allKilled(others, timeout, greenlet, step)
    }

    private func get(_ target: ModelGreenlet, _ mode: GetMode, _ greenlet: ModelGreenlet, _ step: Step) -> Progress {
        if target.hasEnded { return take(target, greenlet, step.id) }
        switch mode {
        case .nonBlocking: return fail(greenlet, step.id, ModelError(fault: .limit(0)))
        case .blocking(let timeout):
            if let timeout, timeout <= 0 { return fail(greenlet, step.id, ModelError(fault: .limit(timeout))) }
            return waitFor(target, .get(target, limit: timeout, own: nil), greenlet, step.id, limit: timeout)
        case .under(let duration):
            startTimeout(step.id, duration, .timeout(step.id), in: greenlet)
            let progress = waitFor(
                target, .get(target, limit: nil, own: step.id), greenlet, step.id, limit: nil)
            if case .parked = progress { return progress }
            cancelTimeout(step.id, in: greenlet)
            return progress
        }
    }

    private func timeout(_ step: Step, _ greenlet: ModelGreenlet) -> Outcome {
        switch step.action {
        case .startTimeout(let duration, let kind):
            let fault = kind.map { error($0, step).fault } ?? .timeout(step.id)
            startTimeout(step.id, duration, fault, in: greenlet)
            return .wasPending(duration != nil)
        case .startTimeoutAgain(let id):
            guard let (duration, fault) = timeouts[id] else { return .absent }
            if isPending(id) { return .wasPending(true) }
            // Withdraws an error of its earlier start that was not raised.
            cancelTimeout(id, in: greenlet)
            startTimeout(id, duration, fault, in: greenlet)
            return .wasPending(false)
        case .cancelTimeout(let id):
            guard timeouts[id] != nil else { return .absent }
            let wasPending = isPending(id)
            cancelTimeout(id, in: greenlet)
            return .wasPending(wasPending)
        default: preconditionFailure("not about a timeout: \(step.action)")
        }
    }

    private func registration(_ step: Step) -> Outcome {
        switch step.action {
        case .link(let number, let kind, let steps):
            let source = joinable(number)
            let link = ModelLink(step: step.id, kind: kind, steps: steps)
            links[step.id] = (source, link)
            source.observers.append(.closure(link))
            if source.hasEnded { notify(source) }
        case .unlink(let id):
            guard let (source, link) = links[id] else { return .absent }
            link.isCancelled = true
            if defect == .callsUnlinked { break }
            source.observers.removeAll {
                if case .closure(let other) = $0 { other === link } else { false }
            }
        case .callback(let steps):
            let callback = ModelCallback(.steps(steps, step.id))
            callbacks[step.id] = callback
            queue(callback)
        case .stopCallback(let id):
            guard let callback = callbacks[id] else { return .absent }
            defer { callback.isPending = false }
            return .wasPending(callback.isPending)
        default: preconditionFailure("not a registration: \(step.action)")
        }
        return .done
    }
}
