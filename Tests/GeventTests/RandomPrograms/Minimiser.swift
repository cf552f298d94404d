// Makes a program smaller for as long as it stays interesting: leaves out steps, puts what is inside a block in the
// block's place, and makes steps plainer.

extension RandomProgram {
    /// The smallest program found for which `isInteresting` holds. It holds for this one.
    func minimised(_ isInteresting: (RandomProgram) throws -> Bool) rethrows -> RandomProgram {
        var smallest = self
        var isSmaller = true
        while isSmaller {
            isSmaller = false
            for size in [8, 4, 2, 1] {
                // From the end, so that what was left out does not move what comes next.
                var place = smallest.stepCount - size
                while place >= 0 {
                    for candidate in smallest.smaller(at: place, size) {
                        guard candidate.complexity < smallest.complexity, try isInteresting(candidate) else { continue }
                        smallest = candidate
                        isSmaller = true
                        break
                    }
                    place -= 1
                }
            }
        }
        return smallest
    }

    /// Those inside others included.
    var allSteps: [Step] { main.flatMap(\.withInside) + greenlets.flatMap { $0.steps.flatMap(\.withInside) } }

    var stepCount: Int { allSteps.count }

    /// One step less is better than any number of plainer ones.
    private var complexity: Int { allSteps.map { 1000 + $0.action.optionCount }.reduce(0, +) }

    private func smaller(at place: Int, _ size: Int) -> [RandomProgram] {
        let fewer = [leavingOut(place..<place + size)]
        if size > 1 { return fewer }
        return fewer + [unwrapping(place), unwrapping(place, reversed: true), makingPlainer(place)]
    }

    private func leavingOut(_ places: Range<Int>) -> RandomProgram {
        rewritten { place, step in places.contains(place) ? [] : [step] }
    }

    /// `reversed`: what runs in a `defer` comes behind what it stands around, as it does in time.
    private func unwrapping(_ chosen: Int, reversed: Bool = false) -> RandomProgram {
        rewritten { place, step in
            guard place == chosen, step.action.runsInline else { return [step] }
            let blocks = step.action.blocks
            return (reversed ? blocks.reversed() : blocks).flatMap { $0 }
        }
    }

    private func makingPlainer(_ chosen: Int) -> RandomProgram {
        rewritten { place, step in
            [place == chosen ? Step(id: step.id, action: step.action.plainer) : step]
        }
    }

    /// Puts what `change` returns in the place of each step; steps are counted from outside in, main first.
    private func rewritten(_ change: (Int, Step) -> [Step]) -> RandomProgram {
        var place = 0
        func rewrite(_ steps: [Step]) -> [Step] {
            steps.flatMap { step in
                let own = place
                place += 1
                var step = step
                step.action.blocks = step.action.blocks.map(rewrite)
                return change(own, step)
            }
        }
        var program = self
        program.main = rewrite(main)
        for number in greenlets.indices { program.greenlets[number].steps = rewrite(greenlets[number].steps) }
        return program
    }
}

extension Step {
    fileprivate var withInside: [Step] { [self] + action.blocks.flatMap { $0.flatMap(\.withInside) } }
}

extension Action {
    /// The same without what it can do without.
    fileprivate var plainer: Action {
        switch self {
        case .kill(let target, let kind, let mode, _): .kill(target, kind, mode.plainer, isSticky: false)
        case .killAll(let targets, let kind, let isBlocking, _, _):
            .killAll(targets, kind, isBlocking: isBlocking, timeout: nil, isSticky: false)
        case .join(let target, _): .join(target, timeout: nil)
        case .get(let target, _): .join(target, timeout: nil)
        case .joinAll(let targets, _, _, _): .joinAll(targets, timeout: nil, isThrowing: false, count: nil)
        case .waitForEvent(let event, _): .waitForEvent(event, timeout: nil)
        case .acquire(let semaphore, _): .acquire(semaphore, timeout: nil)
        case .waitForPermit(let semaphore, _): .waitForPermit(semaphore, timeout: nil)
        case .put(let queue, _): .put(queue, timeout: nil)
        case .take(let queue, _, let isPeek): .take(queue, timeout: nil, isPeek: isPeek)
        case .waitForAny(let things, _, _): .waitForAny(things, timeout: nil, count: nil)
        case .takeAny(let things, _): .takeAny(things, timeout: nil)
        default: self
        }
    }

    /// How far it is from plain.
    fileprivate var optionCount: Int {
        func count(_ options: Bool...) -> Int { options.count { $0 } }
        return switch self {
        case .kill(_, _, let mode, let isSticky): count(mode.plainer != mode, isSticky)
        case .killAll(_, _, _, let timeout, let isSticky): count(timeout != nil, isSticky)
        case .joinAll(_, let timeout, let isThrowing, let limit): count(timeout != nil, isThrowing, limit != nil)
        case .get: 2
        case .join(_, let timeout), .waitForEvent(_, let timeout), .acquire(_, let timeout),
            .waitForPermit(_, let timeout), .put(_, let timeout), .take(_, let timeout, _), .takeAny(_, let timeout):
            count(timeout != nil)
        case .waitForAny(_, let timeout, let limit): count(timeout != nil, limit != nil)
        default: 0
        }
    }
}

extension KillMode {
    fileprivate var plainer: KillMode {
        if case .blocking = self { .blocking(timeout: nil) } else { self }
    }
}
