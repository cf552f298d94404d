extension RandomProgram {
    init(seed: UInt64) {
        var generator = ProgramGenerator(seed: seed)
        self = generator.makeProgram()
    }
}

/// Makes a program of a seed.
private struct ProgramGenerator {
    /// In whose code a step will stand; some are not for everybody.
    private struct Place {
        /// Main's and the hub's are those of `Who`; a link's body is nobody's own.
        var own: Int
        var isHub = false
        var depth = 0
        /// The timeouts that the same flow of control started before.
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
    /// Few programs spin, since spinning takes time.
    private var maySpin = false
    /// How many steps of 20 are about the shared objects, in simple steps; and which ones these are.
    private var objectPart = 0
    private var objectKinds: [ObjectKind] = []
    /// Where everybody meets; nil for anywhere.
    private var meetingPlace: Int?

    private enum ObjectKind { case event, semaphore, queue, several }

    init(seed: UInt64) { numbers = SeededNumbers(seed: seed) }

    mutating func makeProgram() -> RandomProgram {
        unit = [1, 1, 1000, 50_000, 20_000_000].randomElement(using: &numbers)!
        maySpin = chance(1, of: 30)
        objectPart = pick([0, 3, 3, 6, 14])
        // Whose line is long shows more than who has met everything.
        let all: [ObjectKind] = [.event, .semaphore, .queue]
        objectKinds = chance(1, of: 2) ? all : [pick(all + [.semaphore])]
        // Those who wait for several meet those who wait for one.
        if chance(1, of: 3) { objectKinds = all + [.several, .several] }
        meetingPlace = chance(1, of: 2) ? nil : Int.random(in: 0..<6, using: &numbers)
        raws = (0..<Int.random(in: 1...6, using: &numbers)).map { _ in chance(1, of: 8) }
        // Most programs have somebody to wait for.
        raws[0] = false
        var main: [Step] = []
        // Main starts some of them for sure, or most programs would be over before they began.
        for number in raws.indices where chance(3, of: 5) { main.append(step(.start(number))) }
        var place = Place(own: Who.main)
        main += steps(atMost: 8, &place)
        let bodies = raws.indices.map { number in
            var place = Place(own: number)
            return RandomProgram.Body(isRaw: raws[number], steps: steps(atMost: 7, &place))
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

    private mutating func anyone() -> Int { Int.random(in: 0..<raws.count, using: &numbers) }

    private mutating func anyoneOrMain() -> Int { chance(1, of: 15) ? Who.main : anyone() }

    private mutating func joinable() -> Int { pick(raws.indices.filter { !raws[$0] }) }

    /// Rarely itself.
    private mutating func joinable(for place: Place) -> Int {
        let target = joinable()
        return target == place.own && !chance(1, of: 6) ? joinable() : target
    }

    private mutating func some(_ choose: (inout Self) -> Int) -> [Int] {
        (0..<pick([0, 1, 2, 2, 3, 3, 4])).map { _ in choose(&self) }
    }

    private mutating func step(_ action: Action) -> Step {
        lastID += 1
        return Step(id: lastID, action: action)
    }

    // MARK: Steps

    private mutating func steps(atMost most: Int, _ place: inout Place) -> [Step] {
        var made: [Step] = []
        for _ in 0..<Int.random(in: 0...most, using: &numbers) {
            if objectKinds.contains(.semaphore), chance(objectPart, of: 60) {
                made += takeBack()
                continue
            }
            // The number is taken first, so that a timeout or link can be known by it to what comes later.
            lastID += 1
            let id = lastID
            made.append(Step(id: id, action: action(id, &place)))
        }
        return made
    }

    private mutating func inside(_ place: inout Place) -> [Step] {
        place.depth += 1
        defer { place.depth -= 1 }
        return steps(atMost: 4, &place)
    }

    private mutating func insideOf(_ own: Int, isHub: Bool, depth: Int) -> [Step] {
        var place = Place(own: own, isHub: isHub, depth: depth + 1)
        return steps(atMost: 3, &place)
    }

    private mutating func action(_ id: Int, _ place: inout Place) -> Action {
        if place.depth < 3, chance(place.depth == 0 ? 5 : 3, of: 10) { return compound(id, &place) }
        if maySpin, !place.isHub, chance(1, of: 5) { return .spin(Int.random(in: 500...3000, using: &numbers)) }
        if chance(objectPart, of: 20) { return object() }
        switch Int.random(in: 0..<100, using: &numbers) {
        case 0..<19: return .sleep(duration())
        case 19..<22: return .compute(max(0, duration()))
        case 22..<30: return .start(anyone())
        case 30..<36: return .startAfter(pick(raws.indices.filter { !raws[$0] }), duration())
        case 36..<48: return kill(place)
        case 48..<52:
            let isSticky = chance(1, of: 5)
            return .killAll(
                some { isSticky ? $0.anyone() : $0.anyoneOrMain() }, kind(), isBlocking: chance(2, of: 3),
                timeout: limit(), isSticky: isSticky)
        case 52..<60: return .join(joinable(for: place), timeout: limit())
        case 60..<68:
            if chance(1, of: 5) { return .get(joinable(for: place), .nonBlocking) }
            if !place.isHub, chance(1, of: 4) { return .get(joinable(for: place), .under(someDuration())) }
            return .get(joinable(for: place), .blocking(timeout: limit()))
        case 68..<74:
            return .joinAll(
                some { $0.joinable() }, timeout: limit(), isThrowing: chance(1, of: 3),
                count: chance(1, of: 3) ? pick([0, 1, 1, 2]) : nil)
        case 74..<77: return linkIDs.isEmpty ? .state(anyone()) : .unlink(pick(linkIDs))
        case 77..<88: return timeout(id, &place)
        case 88..<91: return .fail(kind())
        case 91..<93: return .returning
        case 93..<95: return callbackIDs.isEmpty ? .state(anyone()) : .stopCallback(pick(callbackIDs))
        default: return .state(anyone())
        }
    }

    private mutating func kill(_ place: Place) -> Action {
        var target = anyone()
        if chance(1, of: 12) { target = Who.main }
        if place.own >= 0, chance(1, of: 8) { target = place.own }
        // A sticky kill of main would outlast the program.
        let isSticky = target != Who.main && chance(1, of: 4)
        if target == Who.main || raws[target] { return .kill(target, kind(), .function, isSticky: isSticky) }
        let mode: KillMode = pick([.function, .nonBlocking, .blocking(timeout: nil), .blocking(timeout: limit())])
        return .kill(target, kind(), mode, isSticky: isSticky)
    }

    /// Gives permits to those who wait, and takes them before anybody runs.
    private mutating func takeBack() -> [Step] {
        let semaphore = place(RandomProgram.permits.count)
        let count = pick([1, 2, 2, 3])
        return (0..<count).map { _ in step(.release(semaphore)) }
            + (0..<count).map { _ in step(.acquire(semaphore, timeout: 0)) }
    }

    private mutating func place(_ count: Int) -> Int {
        (meetingPlace ?? Int.random(in: 0..<count, using: &numbers)) % count
    }

    /// About one of the shared objects. There are few, so that greenlets meet there.
    private mutating func object() -> Action {
        let roll = Int.random(in: 0..<100, using: &numbers)
        let timeout = limit()
        switch pick(objectKinds) {
        case .several: return several()
        case .event:
            let event = place(RandomProgram.eventCount)
            if roll < 50 { return .waitForEvent(event, timeout: timeout) }
            return roll < 80 ? .setEvent(event) : .clearEvent(event)
        case .semaphore:
            let semaphore = place(RandomProgram.permits.count)
            if roll < 45 { return .acquire(semaphore, timeout: timeout) }
            return roll < 85 ? .release(semaphore) : .waitForPermit(semaphore, timeout: timeout)
        case .queue:
            let queue = place(RandomProgram.queueSizes.count)
            if roll < 3 { return .shutDown(queue, isImmediate: roll < 1) }
            if roll < 50 { return .put(queue, timeout: timeout) }
            return .take(queue, timeout: timeout, isPeek: roll > 85)
        }
    }

    private mutating func thing(amongGreenlets: Bool) -> Thing {
        switch Int.random(in: 0..<(amongGreenlets ? 4 : 3), using: &numbers) {
        case 0: .event(place(RandomProgram.eventCount))
        case 1: .semaphore(place(RandomProgram.permits.count))
        case 2: .queue(place(RandomProgram.queueSizes.count))
        default: .greenlet(joinable())
        }
    }

    private mutating func several() -> Action {
        let isTaking = chance(1, of: 2)
        // Twice the same is allowed.
        let things = (0..<pick([1, 2, 2, 3, 3, 4])).map { _ in thing(amongGreenlets: !isTaking) }
        if isTaking { return .takeAny(things, timeout: limit()) }
        return .waitForAny(things, timeout: limit(), count: chance(1, of: 2) ? pick([0, 1, 1, 1, 2]) : nil)
    }

    private mutating func timeout(_ id: Int, _ place: inout Place) -> Action {
        if !timeoutIDs.isEmpty, place.isHub || chance(1, of: 8) { return .cancelTimeout(pick(timeoutIDs)) }
        if place.isHub { return .state(anyone()) }
        if !place.timeouts.isEmpty, chance(1, of: 2) {
            let other = pick(place.timeouts)
            return chance(1, of: 4) ? .startTimeoutAgain(other) : .cancelTimeout(other)
        }
        place.timeouts.append(id)
        timeoutIDs.append(id)
        return .startTimeout(someDuration(), chance(1, of: 4) ? kind() : nil)
    }

    private mutating func compound(_ id: Int, _ place: inout Place) -> Action {
        switch Int.random(in: 0..<100, using: &numbers) {
        case 0..<45: return .catching(inside(&place))
        case 45..<56: return .cleaningUp(inside(&place), after: inside(&place))
        case 56..<76:
            if place.isHub { return .catching(inside(&place)) }
            switch Int.random(in: 0..<3, using: &numbers) {
            case 0: return .withTimeout(someDuration(), chance(1, of: 4) ? kind() : nil, inside(&place))
            case 1: return .withSilentTimeout(someDuration(), inside(&place))
            default: return .withTimeoutValue(someDuration(), inside(&place))
            }
        case 76..<92:
            let kind: LinkKind = pick([.any, .any, .value, .error, .raw])
            let action = Action.link(
                joinable(), kind, insideOf(Who.nobody, isHub: kind == .raw, depth: place.depth))
            linkIDs.append(id)
            return action
        case 92..<95: return .post(insideOf(Who.nobody, isHub: true, depth: place.depth))
        default:
            let action = Action.callback(insideOf(Who.nobody, isHub: true, depth: place.depth))
            callbackIDs.append(id)
            return action
        }
    }
}
