// What the steps about shared objects mean: events, semaphores, queues.

extension ModelScheduler {
    func object(_ step: Step, _ greenlet: ModelGreenlet) -> Progress {
        switch step.action {
        case .setEvent(let number):
            set(events[number])
            return done(greenlet, step.id, .done)
        case .clearEvent(let number):
            events[number].isSet = false
            return done(greenlet, step.id, .done)
        case .waitForEvent(let number, let timeout): return wait(for: events[number], timeout, greenlet, step.id)
        case .acquire(let number, let timeout): return acquire(semaphores[number], timeout, greenlet, step.id)
        case .release(let number): return done(greenlet, step.id, .value(release(semaphores[number])))
        case .waitForPermit(let number, let timeout): return look(at: semaphores[number], timeout, greenlet, step.id)
        case .put(let number, let timeout): return put(into: queues[number], timeout, greenlet, step.id)
        case .take(let number, let timeout, let isPeek):
            return take(from: queues[number], timeout, isPeek: isPeek, greenlet, step.id)
        case .shutDown(let number, let isImmediate):
            shutDown(queues[number], isImmediate: isImmediate)
            return done(greenlet, step.id, .done)
        case .waitForAny(let things, let timeout, let count):
            return wait(for: things, timeout, count, greenlet, step.id)
        case .takeAny(let things, let timeout): return take(from: things, timeout, greenlet, step.id)
        default: preconditionFailure("not about an object: \(step.action)")
        }
    }

    /// The wait is over.
    func done(with wait: ModelWait, _ verdict: ModelVerdict, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        let isWoken = verdict == .woken
        let isRefused = greenlet.isRefused
        greenlet.isRefused = false
        if isRefused, defect != .servesRefused { return fail(greenlet, step, ModelError(fault: .queueShutDown)) }
        switch wait {
        case .event: return done(greenlet, step, .came(isWoken))
        case .courtesy(let outcome): return done(greenlet, step, outcome)
        case .courtesyForPermits(let semaphore), .anyPermit(let semaphore):
            return done(greenlet, step, .value(semaphore.permits))
        case .permit(let semaphore, let deadline):
            return isWoken
                ? takeFreePermit(semaphore, deadline, greenlet, step) : done(greenlet, step, .came(false))
        case .several(let many) where many.takes:
            return isWoken ? taken(many, greenlet, step) : done(greenlet, step, .came(false))
        case .several(let many): return done(greenlet, step, .list(Array(many.chosen.prefix(many.wanted))))
        case .nextPermit: return done(greenlet, step, .came(isWoken))
        case .put: return isWoken ? done(greenlet, step, .done) : fail(greenlet, step, ModelError(fault: .queueFull))
        case .take:
            if !isWoken { return fail(greenlet, step, ModelError(fault: .queueEmpty)) }
            return done(greenlet, step, .value(greenlet.handed ?? 0))
        default: preconditionFailure("not a wait for an object")
        }
    }

    /// Whether it would come before somebody who was woken earlier and has not run. Nobody waits on the hub, or with
    /// something to raise, only to be polite.
    private func overtakes(_ wakeMark: Int, _ timeout: Int?, _ greenlet: ModelGreenlet) -> Bool {
        if defect == .overtakesWoken || timeout.map({ $0 <= 0 }) == true { return false }
        return takenCount < wakeMark && !greenlet.isHub && greenlet.pending.isEmpty
    }

    // MARK: Events

    private func set(_ event: ModelEvent) {
        if !event.isSet { event.readyNumber = nextEndNumber() }
        event.isSet = true
        if event.line.isEmpty { return }
        while !event.line.isEmpty {
            let first = event.line.removeFirst()
            if let (many, place) = first.several { choose(many, place) } else { end(first.greenlet, .woken) }
        }
        event.wakeMark = pushedCount
    }

    private func wait(for event: ModelEvent, _ timeout: Int?, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        if event.isSet {
            if !overtakes(event.wakeMark, timeout, greenlet) { return done(greenlet, step, .came(true)) }
            park(greenlet, .courtesy(.came(true)), step: step)
            return .parked
        }
        if let timeout, timeout <= 0 { return done(greenlet, step, .came(false)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        event.line.append((greenlet, nil))
        park(greenlet, .event, step: step, limit: timeout)
        return .parked
    }

    // MARK: Semaphores

    private func acquire(
        _ semaphore: ModelSemaphore, _ timeout: Int?, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        if semaphore.permits > 0 {
            semaphore.permits -= 1
            return done(greenlet, step, .came(true))
        }
        if let timeout, timeout <= 0 { return done(greenlet, step, .came(false)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        semaphore.line.append((greenlet, .permit))
        let deadline = timeout.map { now + Int64($0) }
        park(greenlet, .permit(semaphore, deadline: deadline), step: step, limit: timeout)
        return .parked
    }

    /// It was woken for a free permit, which somebody else may have taken.
    private func takeFreePermit(
        _ semaphore: ModelSemaphore, _ deadline: Int64?, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        let place = semaphore.chosen.removeValue(forKey: ObjectIdentifier(greenlet))!
        if defect == .handsPermitOver { return done(greenlet, step, .came(true)) }
        if semaphore.permits > 0 {
            semaphore.permits -= 1
            return done(greenlet, step, .came(true))
        }
        if let deadline, deadline <= now { return done(greenlet, step, .came(false)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        // Before everybody who was not chosen yet, and behind those who were chosen before it.
        var index =
            semaphore.line.firstIndex {
                if case .passedOver(let other) = $0.wish { other > place } else { true }
            } ?? semaphore.line.count
        if defect == .overtakesPassedOver { index = 0 }
        semaphore.line.insert(
            (greenlet, .passedOver(place)), at: defect == .losesPlaceInLine ? semaphore.line.count : index)
        park(greenlet, .nextPermit, step: step, limit: deadline.map { Int($0 - now) })
        return .parked
    }

    /// Returns how many permits are free then.
    private func release(_ semaphore: ModelSemaphore) -> Int {
        if semaphore.line.isEmpty {
            semaphore.permits += 1
            if semaphore.permits == 1 { semaphore.readyNumber = nextEndNumber() }
            return semaphore.permits
        }
        if case .passedOver = semaphore.line[0].wish {
            end(semaphore.line[0].greenlet, .woken)
            return semaphore.permits
        }
        let isHandedOver = defect == .handsPermitOver
        semaphore.permits += 1
        if semaphore.permits == 1 { semaphore.readyNumber = nextEndNumber() }
        while semaphore.permits > (isHandedOver ? 0 : semaphore.chosen.count), let (first, wish) = semaphore.line.first
        {
            if case .several(let many, let place) = wish {
                semaphore.line.removeFirst()
                // Handed over as such.
                if many.takes { semaphore.permits -= 1 }
                choose(many, place)
                continue
            }
            if case .permit = wish {
                semaphore.lastPlace += 1
                semaphore.chosen[ObjectIdentifier(first)] = semaphore.lastPlace
                if isHandedOver { semaphore.permits -= 1 }
            }
            end(first, .woken)
        }
        semaphore.wakeMark = pushedCount
        return semaphore.permits
    }

    private func look(
        at semaphore: ModelSemaphore, _ timeout: Int?, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        if semaphore.permits > 0 {
            if !overtakes(semaphore.wakeMark, timeout, greenlet) {
                return done(greenlet, step, .value(semaphore.permits))
            }
            park(greenlet, .courtesyForPermits(semaphore), step: step)
            return .parked
        }
        if let timeout, timeout <= 0 { return done(greenlet, step, .value(0)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        semaphore.line.append((greenlet, .look))
        park(greenlet, .anyPermit(semaphore), step: step, limit: timeout)
        return .parked
    }

    // MARK: Queues

    /// A hub callback may not wait for a queue: there it is as if no time were left.
    private func mayWait(_ timeout: Int?, _ greenlet: ModelGreenlet) -> Bool {
        !greenlet.isHub && timeout.map { $0 > 0 } ?? true
    }

    private func put(into queue: ModelQueue, _ timeout: Int?, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        if queue.isShutDown { return fail(greenlet, step, ModelError(fault: .queueShutDown)) }
        if queue.elements.count < queue.limit {
            queue.elements.append(step)
            serve(queue)
            return done(greenlet, step, .done)
        }
        guard mayWait(timeout, greenlet) else { return fail(greenlet, step, ModelError(fault: .queueFull)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        queue.putters.append((greenlet, step))
        park(greenlet, .put, step: step, limit: timeout)
        return .parked
    }

    private func take(
        from queue: ModelQueue, _ timeout: Int?, isPeek: Bool, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        if let next = queue.elements.first {
            if !isPeek {
                queue.elements.removeFirst()
                if defect != .losesRoom { serve(queue) }
            }
            return done(greenlet, step, .value(next))
        }
        if queue.isShutDown { return fail(greenlet, step, ModelError(fault: .queueShutDown)) }
        guard mayWait(timeout, greenlet) else { return fail(greenlet, step, ModelError(fault: .queueEmpty)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        queue.takers.append((greenlet, isPeek ? .peek : .get))
        park(greenlet, .take, step: step, limit: timeout)
        return .parked
    }

    /// Everybody who waits is refused, those who want an element first.
    private func shutDown(_ queue: ModelQueue, isImmediate: Bool) {
        queue.isShutDown = true
        while let (greenlet, purpose) = queue.takers.first {
            queue.takers.removeFirst()
            if case .several(let many, let place) = purpose {
                if many.takes { greenlet.isRefused = true }
                choose(many, place)
            } else {
                greenlet.isRefused = true
                end(greenlet, .woken)
            }
        }
        for greenlet in queue.putters.map(\.greenlet) {
            greenlet.isRefused = true
            end(greenlet, .woken)
        }
        if isImmediate { queue.elements = [] }
    }

    /// Who waits for room puts, who waits for an element gets one, in turn and each in the order in which they came.
    private func serve(_ queue: ModelQueue) {
        while !queue.isShutDown {
            var goesOn = false
            if queue.elements.count < queue.limit, let (greenlet, element) = queue.putters.first {
                queue.elements.append(element)
                end(greenlet, .woken)
                goesOn = true
            }
            if let next = queue.elements.first, let (greenlet, purpose) = queue.takers.first {
                queue.takers.removeFirst()
                switch purpose {
                case .get:
                    greenlet.handed = next
                    queue.elements.removeFirst()
                    end(greenlet, .woken)
                case .peek:
                    greenlet.handed = next
                    end(greenlet, .woken)
                case .several(let many, let place):
                    if many.takes || defect == .watchersTake {
                        many.handed = next
                        queue.elements.removeFirst()
                    }
                    choose(many, place)
                }
                goesOn = true
            }
            if !goesOn { return }
        }
    }

    // MARK: Several things

    /// A thing has become ready for one who waits for several, and has left its line.
    func choose(_ many: ModelMany, _ place: Int) {
        many.chosen.append(place)
        if many.chosen.count >= many.wanted || many.greenlet.isRefused { end(many.greenlet, .woken) }
    }

    /// When it became ready; nil if it is not. Nobody knows of queues.
    private func readyNumber(_ thing: Thing) -> Int? {
        switch thing {
        case .event(let number): events[number].isSet ? events[number].readyNumber : nil
        case .semaphore(let number): semaphores[number].permits > 0 ? semaphores[number].readyNumber : nil
        case .queue(let number): queues[number].elements.isEmpty && !queues[number].isShutDown ? nil : .max
        case .greenlet(let number): joinable(number).isOver ? joinable(number).endNumber : nil
        }
    }

    private func enlist(_ many: ModelMany, _ thing: Thing, _ place: Int) {
        switch thing {
        case .event(let number): events[number].line.append((many.greenlet, (many, place)))
        case .semaphore(let number): semaphores[number].line.append((many.greenlet, .several(many, place)))
        case .queue(let number): queues[number].takers.append((many.greenlet, .several(many, place)))
        case .greenlet(let number): joinable(number).tellees.append(.several(many, place))
        }
    }

    private func wait(
        for things: [Thing], _ timeout: Int?, _ count: Int?, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        // Greenlets are made when they are mentioned.
        let numbers = things.map(readyNumber)
        let many = ModelMany(greenlet, wanted: min(things.count, max(count ?? things.count, 0)), takes: false)
        many.chosen = things.indices.filter { numbers[$0] != nil }.sorted { (numbers[$0]!, $0) < (numbers[$1]!, $1) }
        if many.chosen.count >= many.wanted || timeout.map({ $0 <= 0 }) == true {
            return done(greenlet, step, .list(Array(many.chosen.prefix(many.wanted))))
        }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        for (place, thing) in things.enumerated() where numbers[place] == nil { enlist(many, thing, place) }
        park(greenlet, .several(many), step: step, limit: timeout)
        return .parked
    }

    private func take(from things: [Thing], _ timeout: Int?, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        let many = ModelMany(greenlet, wanted: 1, takes: true)
        for (place, thing) in things.enumerated() where readyNumber(thing) != nil {
            switch thing {
            case .semaphore(let number): semaphores[number].permits -= 1
            case .queue(let number):
                if queues[number].elements.isEmpty {
                    return fail(greenlet, step, ModelError(fault: .queueShutDown))
                }
                many.handed = queues[number].elements.removeFirst()
                serve(queues[number])
            default: break
            }
            many.chosen = [place]
            return taken(many, greenlet, step)
        }
        if let timeout, timeout <= 0 { return done(greenlet, step, .came(false)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        for (place, thing) in things.enumerated() { enlist(many, thing, place) }
        park(greenlet, .several(many), step: step, limit: timeout)
        return .parked
    }

    private func taken(_ many: ModelMany, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        done(greenlet, step, .list([many.chosen[0]] + (many.handed.map { [$0] } ?? [])))
    }
}
