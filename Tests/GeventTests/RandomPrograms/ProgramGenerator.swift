extension RandomProgram {
    init(seed: UInt64) {
        var generator = ProgramGenerator(seed: seed)
        self = generator.makeProgram()
    }
}

/// Generates a program from a seed.
private struct ProgramGenerator {
    /// The code that will contain a step; some steps are not allowed everywhere.
    private struct Context {
        /// The greenlet that runs the code, as in `Participant`. A link's body has `none`.
        var own: Int
        var isHub = false
        var depth = 0
        /// The timeouts started earlier in the same flow of control.
        var timeouts: [Int] = []
    }

    private var numbers: SeededNumbers
    private var lastID = 0
    private var raws: [Bool] = []
    private var linkIDs: [Int] = []
    private var callbackIDs: [Int] = []
    private var timeoutIDs: [Int] = []
    /// Durations are small multiples of this, so that many deadlines are equal.
    private var unit = 1
    /// Few programs spin, because spinning takes time.
    private var maySpin = false
    /// How many of 20 simple steps use shared objects, and the kinds of objects used.
    private var objectPart = 0
    private var objectKinds: [ObjectKind] = []
    /// The index of the one object of each kind that is used; nil for any.
    private var sharedIndex: Int?

    private enum ObjectKind { case event, semaphore, queue, several }

    init(seed: UInt64) { numbers = SeededNumbers(seed: seed) }

    mutating func makeProgram() -> RandomProgram {
        unit = [1, 1, 1000, 50_000, 20_000_000].randomElement(using: &numbers)!
        maySpin = chance(1, of: 30)
        objectPart = pick([0, 3, 3, 6, 14])
        // A long queue at one kind of object reveals more than short ones at all kinds.
        let all: [ObjectKind] = [.event, .semaphore, .queue]
        objectKinds = chance(1, of: 2) ? all : [pick(all + [.semaphore])]
        // Greenlets that wait for several objects meet those that wait for one.
        if chance(1, of: 3) { objectKinds = all + [.several, .several] }
        sharedIndex = chance(1, of: 2) ? nil : Int.random(in: 0..<6, using: &numbers)
        raws = (0..<Int.random(in: 1...6, using: &numbers)).map { _ in chance(1, of: 8) }
        // Ensures that most programs have a greenlet to wait for.
        raws[0] = false
        var main: [Step] = []
        // Main starts some of them unconditionally. Otherwise most programs would end before they do anything.
        for number in raws.indices where chance(3, of: 5) { main.append(step(.start(number))) }
        var context = Context(own: Participant.main)
        main += steps(atMost: 8, &context)
        let bodies = raws.indices.map { number in
            var context = Context(own: number)
            return RandomProgram.Body(isRaw: raws[number], steps: steps(atMost: 7, &context))
        }
        return RandomProgram(main: main, greenlets: bodies)
    }

    // MARK: Choices

    private mutating func chance(_ part: Int, of whole: Int) -> Bool {
        Int.random(in: 0..<whole, using: &numbers) < part
    }

    private mutating func pick<T>(_ values: [T]) -> T { values.randomElement(using: &numbers)! }

    private mutating func duration() -> Int { pick([-1, 0, 0, 1, 1, 2, 2, 3, 4, 6]) * unit }

    private mutating func someDuration() -> Int? { chance(1, of: 12) ? nil : duration() }

    private mutating func limit() -> Int? { chance(1, of: 2) ? nil : duration() }

    private mutating func kind() -> ThrownKind { chance(1, of: 3) ? .failure : .exit }

    private mutating func anyIndex() -> Int { Int.random(in: 0..<raws.count, using: &numbers) }

    private mutating func anyIndexOrMain() -> Int { chance(1, of: 15) ? Participant.main : anyIndex() }

    private mutating func joinable() -> Int { pick(raws.indices.filter { !raws[$0] }) }

    /// Rarely the greenlet itself.
    private mutating func joinable(for context: Context) -> Int {
        let target = joinable()
        return target == context.own && !chance(1, of: 6) ? joinable() : target
    }

    private mutating func some(_ choose: (inout Self) -> Int) -> [Int] {
        (0..<pick([0, 1, 2, 2, 3, 3, 4])).map { _ in choose(&self) }
    }

    private mutating func step(_ action: Action) -> Step {
        lastID += 1
        return Step(id: lastID, action: action)
    }

    // MARK: Steps

    private mutating func steps(atMost most: Int, _ context: inout Context) -> [Step] {
        var made: [Step] = []
        for _ in 0..<Int.random(in: 0...most, using: &numbers) {
            if objectKinds.contains(.semaphore), chance(objectPart, of: 60) {
                made += releaseAndReacquire()
                continue
            }
            // The ID is assigned first, so that later steps can refer to this timeout or link.
            lastID += 1
            let id = lastID
            made.append(Step(id: id, action: action(id, &context)))
        }
        return made
    }

    private mutating func inside(_ context: inout Context) -> [Step] {
        context.depth += 1
        defer { context.depth -= 1 }
        return steps(atMost: 4, &context)
    }

    private mutating func insideOf(_ own: Int, isHub: Bool, depth: Int) -> [Step] {
        var context = Context(own: own, isHub: isHub, depth: depth + 1)
        return steps(atMost: 3, &context)
    }

    private mutating func action(_ id: Int, _ context: inout Context) -> Action {
        if context.depth < 3, chance(context.depth == 0 ? 5 : 3, of: 10) { return compound(id, &context) }
        if maySpin, !context.isHub, chance(1, of: 5) { return .spin(Int.random(in: 500...3000, using: &numbers)) }
        if chance(objectPart, of: 20) { return object() }
        switch Int.random(in: 0..<100, using: &numbers) {
        case 0..<19: return .sleep(duration())
        case 19..<22: return .compute(max(0, duration()))
        case 22..<30: return .start(anyIndex())
        case 30..<36: return .startAfter(pick(raws.indices.filter { !raws[$0] }), duration())
        case 36..<48: return kill(context)
        case 48..<52:
            let isSticky = chance(1, of: 5)
            return .killAll(
                some { isSticky ? $0.anyIndex() : $0.anyIndexOrMain() }, kind(), isBlocking: chance(2, of: 3),
                timeout: limit(), isSticky: isSticky)
        case 52..<60: return .join(joinable(for: context), timeout: limit())
        case 60..<68:
            if chance(1, of: 5) { return .get(joinable(for: context), .nonBlocking) }
            if !context.isHub, chance(1, of: 4) { return .get(joinable(for: context), .under(someDuration())) }
            return .get(joinable(for: context), .blocking(timeout: limit()))
        case 68..<74:
            return .joinAll(
                some { $0.joinable() }, timeout: limit(), isThrowing: chance(1, of: 3),
                count: chance(1, of: 3) ? pick([0, 1, 1, 2]) : nil)
        case 74..<77: return linkIDs.isEmpty ? .state(anyIndex()) : .unlink(pick(linkIDs))
        case 77..<88: return timeout(id, &context)
        case 88..<91: return .fail(kind())
        case 91..<93: return .returning
        case 93..<95: return callbackIDs.isEmpty ? .state(anyIndex()) : .stopCallback(pick(callbackIDs))
        default: return .state(anyIndex())
        }
    }

    private mutating func kill(_ context: Context) -> Action {
        var target = anyIndex()
        if chance(1, of: 12) { target = Participant.main }
        if context.own >= 0, chance(1, of: 8) { target = context.own }
        // A sticky kill of main would outlast the program.
        let isSticky = target != Participant.main && chance(1, of: 4)
        if target == Participant.main || raws[target] { return .kill(target, kind(), .function, isSticky: isSticky) }
        let mode: KillMode = pick([.function, .nonBlocking, .blocking(timeout: nil), .blocking(timeout: limit())])
        return .kill(target, kind(), mode, isSticky: isSticky)
    }

    /// Releases permits to waiters, and takes them before any waiter runs.
    private mutating func releaseAndReacquire() -> [Step] {
        let semaphore = index(RandomProgram.permits.count)
        let count = pick([1, 2, 2, 3])
        return (0..<count).map { _ in step(.release(semaphore)) }
            + (0..<count).map { _ in step(.acquire(semaphore, timeout: 0)) }
    }

    private mutating func index(_ count: Int) -> Int {
        (sharedIndex ?? Int.random(in: 0..<count, using: &numbers)) % count
    }

    /// A step on a shared object. There are few objects, so that greenlets meet at them.
    private mutating func object() -> Action {
        let roll = Int.random(in: 0..<100, using: &numbers)
        let timeout = limit()
        switch pick(objectKinds) {
        case .several: return several()
        case .event:
            let event = index(RandomProgram.eventCount)
            if roll < 50 { return .waitForEvent(event, timeout: timeout) }
            return roll < 80 ? .setEvent(event) : .clearEvent(event)
        case .semaphore:
            let semaphore = index(RandomProgram.permits.count)
            if roll < 45 { return .acquire(semaphore, timeout: timeout) }
            return roll < 85 ? .release(semaphore) : .waitForPermit(semaphore, timeout: timeout)
        case .queue:
            let queue = index(RandomProgram.queueSizes.count)
            if roll < 3 { return .shutDown(queue, isImmediate: roll < 1) }
            if roll < 50 { return .put(queue, timeout: timeout) }
            return .take(queue, timeout: timeout, isPeek: roll > 85)
        }
    }

    private mutating func thing(amongGreenlets: Bool) -> Thing {
        switch Int.random(in: 0..<(amongGreenlets ? 4 : 3), using: &numbers) {
        case 0: .event(index(RandomProgram.eventCount))
        case 1: .semaphore(index(RandomProgram.permits.count))
        case 2: .queue(index(RandomProgram.queueSizes.count))
        default: .greenlet(joinable())
        }
    }

    private mutating func several() -> Action {
        let isTaking = chance(1, of: 2)
        // Duplicates are allowed.
        let things = (0..<pick([1, 2, 2, 3, 3, 4])).map { _ in thing(amongGreenlets: !isTaking) }
        if isTaking { return .takeAny(things, timeout: limit()) }
        return .waitForAny(things, timeout: limit(), count: chance(1, of: 2) ? pick([0, 1, 1, 1, 2]) : nil)
    }

    private mutating func timeout(_ id: Int, _ context: inout Context) -> Action {
        if !timeoutIDs.isEmpty, context.isHub || chance(1, of: 8) { return .cancelTimeout(pick(timeoutIDs)) }
        if context.isHub { return .state(anyIndex()) }
        if !context.timeouts.isEmpty, chance(1, of: 2) {
            let other = pick(context.timeouts)
            return chance(1, of: 4) ? .startTimeoutAgain(other) : .cancelTimeout(other)
        }
        context.timeouts.append(id)
        timeoutIDs.append(id)
        return .startTimeout(someDuration(), chance(1, of: 4) ? kind() : nil)
    }

    private mutating func compound(_ id: Int, _ context: inout Context) -> Action {
        switch Int.random(in: 0..<100, using: &numbers) {
        case 0..<45: return .catching(inside(&context))
        case 45..<56: return .cleaningUp(inside(&context), after: inside(&context))
        case 56..<76:
            if context.isHub { return .catching(inside(&context)) }
            switch Int.random(in: 0..<3, using: &numbers) {
            case 0: return .withTimeout(someDuration(), chance(1, of: 4) ? kind() : nil, inside(&context))
            case 1: return .withSilentTimeout(someDuration(), inside(&context))
            default: return .withTimeoutValue(someDuration(), inside(&context))
            }
        case 76..<92:
            let kind: LinkKind = pick([.any, .any, .value, .error, .raw])
            let action = Action.link(
                joinable(), kind, insideOf(Participant.none, isHub: kind == .raw, depth: context.depth))
            linkIDs.append(id)
            return action
        case 92..<95: return .post(insideOf(Participant.none, isHub: true, depth: context.depth))
        default:
            let action = Action.callback(insideOf(Participant.none, isHub: true, depth: context.depth))
            callbackIDs.append(id)
            return action
        }
    }
}
