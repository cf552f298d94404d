// Shrinks a program while it stays interesting: removes steps, replaces a block by its contents, and simplifies steps.

extension RandomProgram {
    /// Returns the smallest program found for which `isInteresting` holds. It must hold for this one.
    func minimised(_ isInteresting: (RandomProgram) throws -> Bool) rethrows -> RandomProgram {
        var smallest = self
        var isSmaller = true
        while isSmaller {
            isSmaller = false
            for size in [8, 4, 2, 1] {
                // Starts at the end, so that a removal does not shift the steps still to be tried.
                var index = smallest.stepCount - size
                while index >= 0 {
                    for candidate in smallest.smaller(at: index, size) {
                        guard candidate.complexity < smallest.complexity, try isInteresting(candidate) else { continue }
                        smallest = candidate
                        isSmaller = true
                        break
                    }
                    index -= 1
                }
            }
        }
        return smallest
    }

    /// All steps, including nested ones.
    var allSteps: [Step] { main.flatMap(\.flattened) + greenlets.flatMap { $0.steps.flatMap(\.flattened) } }

    var stepCount: Int { allSteps.count }

    /// One step fewer counts more than any number of simpler steps.
    private var complexity: Int { allSteps.map { 1000 + $0.action.optionCount }.reduce(0, +) }

    private func smaller(at index: Int, _ size: Int) -> [RandomProgram] {
        let fewer = [leavingOut(index..<index + size)]
        if size > 1 { return fewer }
        return fewer + [unwrapping(index), unwrapping(index, reversed: true), makingPlainer(index)]
    }

    private func leavingOut(_ indices: Range<Int>) -> RandomProgram {
        rewritten { index, step in indices.contains(index) ? [] : [step] }
    }

    /// With `reversed`, the steps of a `defer` follow the block they guard, as they do at run time.
    private func unwrapping(_ chosen: Int, reversed: Bool = false) -> RandomProgram {
        rewritten { index, step in
            guard index == chosen, step.action.runsInline else { return [step] }
            let blocks = step.action.blocks
            return (reversed ? blocks.reversed() : blocks).flatMap { $0 }
        }
    }

    private func makingPlainer(_ chosen: Int) -> RandomProgram {
        rewritten { index, step in
            [index == chosen ? Step(id: step.id, action: step.action.plainer) : step]
        }
    }

    /// Replaces each step by the result of `change`. Steps are numbered in pre-order, main first.
    private func rewritten(_ change: (Int, Step) -> [Step]) -> RandomProgram {
        var index = 0
        func rewrite(_ steps: [Step]) -> [Step] {
            steps.flatMap { step in
                let own = index
                index += 1
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
    fileprivate var flattened: [Step] { [self] + action.blocks.flatMap { $0.flatMap(\.flattened) } }
}

extension Action {
    /// The action without its options.
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

    /// The number of options in use.
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
