// The semantics of steps on shared objects: events, semaphores, queues.

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

    /// Completes a wait for an object.
    func done(with wait: ModelWait, _ verdict: ModelVerdict, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        let isWoken = verdict == .woken
        let isRefused = greenlet.isRefused
        greenlet.isRefused = false
        if isRefused, defect != .servesRefused { return fail(greenlet, step, ModelError(fault: .queueShutDown)) }
        switch wait {
        case .event: return done(greenlet, step, .satisfied(isWoken))
        case .courtesy(let outcome): return done(greenlet, step, outcome)
        case .courtesyForPermits(let semaphore), .anyPermit(let semaphore):
            return done(greenlet, step, .value(semaphore.permits))
        case .permit(let semaphore, let deadline):
            return isWoken
                ? takeFreePermit(semaphore, deadline, greenlet, step) : done(greenlet, step, .satisfied(false))
        case .several(let many) where many.takes:
            return isWoken ? taken(many, greenlet, step) : done(greenlet, step, .satisfied(false))
        case .several(let many): return done(greenlet, step, .list(Array(many.chosen.prefix(many.wanted))))
        case .nextPermit: return done(greenlet, step, .satisfied(isWoken))
        case .put: return isWoken ? done(greenlet, step, .done) : fail(greenlet, step, ModelError(fault: .queueFull))
        case .take:
            if !isWoken { return fail(greenlet, step, ModelError(fault: .queueEmpty)) }
            return done(greenlet, step, .value(greenlet.handed ?? 0))
        default: preconditionFailure("not a wait for an object")
        }
    }

    /// Whether the greenlet would overtake another that was woken earlier and has not run. Such a yield needs no park
    /// on the hub or with an error pending.
    private func overtakes(_ wakeMark: Int, _ timeout: Int?, _ greenlet: ModelGreenlet) -> Bool {
        if defect == .overtakesWoken || timeout.map({ $0 <= 0 }) == true { return false }
        return takenCount < wakeMark && !greenlet.isHub && greenlet.pending.isEmpty
    }

    // MARK: Events

    private func set(_ event: ModelEvent) {
        if !event.isSet { event.readyNumber = nextEndNumber() }
        event.isSet = true
        if event.waiters.isEmpty { return }
        while !event.waiters.isEmpty {
            let first = event.waiters.removeFirst()
            if let (many, position) = first.several { choose(many, position) } else { end(first.greenlet, .woken) }
        }
        event.wakeMark = pushedCount
    }

    private func wait(for event: ModelEvent, _ timeout: Int?, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        if event.isSet {
            if !overtakes(event.wakeMark, timeout, greenlet) { return done(greenlet, step, .satisfied(true)) }
            park(greenlet, .courtesy(.satisfied(true)), step: step)
            return .parked
        }
        if let timeout, timeout <= 0 { return done(greenlet, step, .satisfied(false)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        event.waiters.append((greenlet, nil))
        park(greenlet, .event, step: step, limit: timeout)
        return .parked
    }

    // MARK: Semaphores

    private func acquire(
        _ semaphore: ModelSemaphore, _ timeout: Int?, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        if semaphore.permits > 0 {
            semaphore.permits -= 1
            return done(greenlet, step, .satisfied(true))
        }
        if let timeout, timeout <= 0 { return done(greenlet, step, .satisfied(false)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        semaphore.waiters.append((greenlet, .permit))
        let deadline = timeout.map { now + Int64($0) }
        park(greenlet, .permit(semaphore, deadline: deadline), step: step, limit: timeout)
        return .parked
    }

    /// Resumes after a wake for a free permit, which another greenlet may have taken.
    private func takeFreePermit(
        _ semaphore: ModelSemaphore, _ deadline: Int64?, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        let position = semaphore.chosen.removeValue(forKey: ObjectIdentifier(greenlet))!
        if defect == .handsPermitOver { return done(greenlet, step, .satisfied(true)) }
        if semaphore.permits > 0 {
            semaphore.permits -= 1
            return done(greenlet, step, .satisfied(true))
        }
        if let deadline, deadline <= now { return done(greenlet, step, .satisfied(false)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        // Ahead of all waiters not chosen yet, and behind those chosen earlier.
        var index =
            semaphore.waiters.firstIndex {
                if case .passedOver(let other) = $0.request { other > position } else { true }
            } ?? semaphore.waiters.count
        if defect == .overtakesPassedOver { index = 0 }
        semaphore.waiters.insert(
            (greenlet, .passedOver(position)), at: defect == .losesPosition ? semaphore.waiters.count : index)
        park(greenlet, .nextPermit, step: step, limit: deadline.map { Int($0 - now) })
        return .parked
    }

    /// Returns the number of free permits afterwards.
    private func release(_ semaphore: ModelSemaphore) -> Int {
        if semaphore.waiters.isEmpty {
            semaphore.permits += 1
            if semaphore.permits == 1 { semaphore.readyNumber = nextEndNumber() }
            return semaphore.permits
        }
        if case .passedOver = semaphore.waiters[0].request {
            end(semaphore.waiters[0].greenlet, .woken)
            return semaphore.permits
        }
        let isHandedOver = defect == .handsPermitOver
        semaphore.permits += 1
        if semaphore.permits == 1 { semaphore.readyNumber = nextEndNumber() }
        while semaphore.permits > (isHandedOver ? 0 : semaphore.chosen.count),
            let (first, request) = semaphore.waiters.first
        {
            if case .several(let many, let position) = request {
                semaphore.waiters.removeFirst()
                // Transferred directly.
                if many.takes { semaphore.permits -= 1 }
                choose(many, position)
                continue
            }
            if case .permit = request {
                semaphore.lastPosition += 1
                semaphore.chosen[ObjectIdentifier(first)] = semaphore.lastPosition
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
        semaphore.waiters.append((greenlet, .look))
        park(greenlet, .anyPermit(semaphore), step: step, limit: timeout)
        return .parked
    }

    // MARK: Queues

    /// A hub callback may not wait for a queue: it behaves as if its timeout were 0.
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

    /// Throws into all waiters, getters first.
    private func shutDown(_ queue: ModelQueue, isImmediate: Bool) {
        queue.isShutDown = true
        while let (greenlet, purpose) = queue.takers.first {
            queue.takers.removeFirst()
            if case .several(let many, let position) = purpose {
                if many.takes { greenlet.isRefused = true }
                choose(many, position)
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

    /// Serves putters and getters alternately, each in the order in which they began to wait.
    private func serve(_ queue: ModelQueue) {
        while !queue.isShutDown {
            var hasServed = false
            if queue.elements.count < queue.limit, let (greenlet, element) = queue.putters.first {
                queue.elements.append(element)
                end(greenlet, .woken)
                hasServed = true
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
                case .several(let many, let position):
                    if many.takes || defect == .watchersTake {
                        many.handed = next
                        queue.elements.removeFirst()
                    }
                    choose(many, position)
                }
                hasServed = true
            }
            if !hasServed { return }
        }
    }

    // MARK: Several objects

    /// Records that an object is ready for a waiter on several objects. The object has removed the waiter.
    func choose(_ many: ModelMany, _ position: Int) {
        many.chosen.append(position)
        if many.chosen.count >= many.wanted || many.greenlet.isRefused { end(many.greenlet, .woken) }
    }

    /// The sequence number at which an object became ready; nil if it is not ready. Queues record none.
    private func readyNumber(_ thing: Thing) -> Int? {
        switch thing {
        case .event(let number): events[number].isSet ? events[number].readyNumber : nil
        case .semaphore(let number): semaphores[number].permits > 0 ? semaphores[number].readyNumber : nil
        case .queue(let number): queues[number].elements.isEmpty && !queues[number].isShutDown ? nil : .max
        case .greenlet(let number): joinable(number).hasEnded ? joinable(number).endNumber : nil
        }
    }

    private func enlist(_ many: ModelMany, _ thing: Thing, _ position: Int) {
        switch thing {
        case .event(let number): events[number].waiters.append((many.greenlet, (many, position)))
        case .semaphore(let number): semaphores[number].waiters.append((many.greenlet, .several(many, position)))
        case .queue(let number): queues[number].takers.append((many.greenlet, .several(many, position)))
        case .greenlet(let number): joinable(number).observers.append(.several(many, position))
        }
    }

    private func wait(
        for things: [Thing], _ timeout: Int?, _ count: Int?, _ greenlet: ModelGreenlet, _ step: Int
    ) -> Progress {
        // Evaluating the numbers makes the greenlets that were not mentioned before.
        let numbers = things.map(readyNumber)
        let many = ModelMany(greenlet, wanted: min(things.count, max(count ?? things.count, 0)), takes: false)
        many.chosen = things.indices.filter { numbers[$0] != nil }.sorted { (numbers[$0]!, $0) < (numbers[$1]!, $1) }
        if many.chosen.count >= many.wanted || timeout.map({ $0 <= 0 }) == true {
            return done(greenlet, step, .list(Array(many.chosen.prefix(many.wanted))))
        }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        for (position, thing) in things.enumerated() where numbers[position] == nil { enlist(many, thing, position) }
        park(greenlet, .several(many), step: step, limit: timeout)
        return .parked
    }

    private func take(from things: [Thing], _ timeout: Int?, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        let many = ModelMany(greenlet, wanted: 1, takes: true)
        for (position, thing) in things.enumerated() where readyNumber(thing) != nil {
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
            many.chosen = [position]
            return taken(many, greenlet, step)
        }
        if let timeout, timeout <= 0 { return done(greenlet, step, .satisfied(false)) }
        if let error = checkPending(greenlet) { return fail(greenlet, step, error) }
        for (position, thing) in things.enumerated() { enlist(many, thing, position) }
        park(greenlet, .several(many), step: step, limit: timeout)
        return .parked
    }

    private func taken(_ many: ModelMany, _ greenlet: ModelGreenlet, _ step: Int) -> Progress {
        done(greenlet, step, .list([many.chosen[0]] + (many.handed.map { [$0] } ?? [])))
    }
}
