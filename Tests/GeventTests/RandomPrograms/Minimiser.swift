// Makes a program smaller for as long as it stays interesting: leaves out steps, and puts what is inside a block in the
// block's place.

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
                    for candidate in [smallest.leavingOut(place..<place + size), smallest.unwrapping(place)] {
                        guard candidate.stepCount < smallest.stepCount, try isInteresting(candidate) else { continue }
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

    private func leavingOut(_ places: Range<Int>) -> RandomProgram {
        rewritten { place, step in places.contains(place) ? [] : [step] }
    }

    private func unwrapping(_ chosen: Int) -> RandomProgram {
        rewritten { place, step in
            guard place == chosen, step.action.runsInline else { return [step] }
            return step.action.blocks.flatMap { $0 }
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
