// A random program in a small language of operations between greenlets. It runs twice, on the library
// (LibraryRun.swift) and on the reference model (ReferenceModel.swift), and everything observable is compared.

/// The steps of main and of a number of greenlets. Greenlets are identified by index.
struct RandomProgram: Hashable, Sendable {
    struct Body: Hashable, Sendable {
        var isRaw: Bool
        var steps: [Step]
    }

    /// The objects that its greenlets share: the number of each kind. Objects are identified by index.
    static let eventCount = 2
    /// The initial permits of each semaphore.
    static let permits = [0, 1, 2]
    /// The capacity of each queue; nil is unbounded.
    static let queueSizes: [Int?] = [1, 2, nil]

    var main: [Step]
    var greenlets: [Body]
}

/// One instruction. Its ID is unique in the program, and it runs at most once.
struct Step: Hashable, Sendable {
    var id: Int
    var action: Action
}

/// The sources of log entries: greenlets by index, and these.
enum Participant {
    static let main = -1
    static let hub = -2
    /// The greenlet of a link, which is not one of the program's.
    static let someLink = -3
    static let none = -4
    /// A posted job, whose errors are not reported.
    static let job = -5
    static func link(_ id: Int) -> Int { 1000 + id }
}

/// The kind of an error that a step throws; the error contains the step's ID.
enum ThrownKind: Hashable, Sendable {
    case failure, exit
}

enum KillMode: Hashable, Sendable {
    /// `Gevent.kill(_:throwing:)`: the only one for main and raw greenlets.
    case function
    case nonBlocking
    case blocking(timeout: Int?)
}

enum GetMode: Hashable, Sendable {
    case nonBlocking
    case blocking(timeout: Int?)
    /// Inside the caller's own Timeout.
    case under(Int?)
}

enum LinkKind: Hashable, Sendable {
    case any, value, error, raw
}

/// An object that can be waited for together with others.
enum Thing: Hashable, Sendable {
    case event(Int)
    case semaphore(Int)
    case queue(Int)
    case greenlet(Int)
}

/// Durations are nanoseconds; nil is none.
indirect enum Action: Hashable, Sendable {
    /// Spawns the greenlet, or starts it if it was made before.
    case start(Int)
    case startAfter(Int, Int)
    case sleep(Int)
    /// That many yields.
    case spin(Int)
    /// Lets time pass without parking.
    case compute(Int)
    case kill(Int, ThrownKind, KillMode, isSticky: Bool)
    case killAll([Int], ThrownKind, isBlocking: Bool, timeout: Int?, isSticky: Bool)
    case join(Int, timeout: Int?)
    case get(Int, GetMode)
    case joinAll([Int], timeout: Int?, isThrowing: Bool, count: Int?)
    case link(Int, LinkKind, [Step])
    /// Removes the link that another step made.
    case unlink(Int)
    case withTimeout(Int?, ThrownKind?, [Step])
    case withSilentTimeout(Int?, [Step])
    case withTimeoutValue(Int?, [Step])
    case startTimeout(Int?, ThrownKind?)
    /// Starts the timeout of another step, unless it is pending.
    case startTimeoutAgain(Int)
    case cancelTimeout(Int)
    case catching([Step])
    /// The first steps run in a `defer` around the second, on every way out.
    case cleaningUp([Step], after: [Step])
    case fail(ThrownKind)
    case returning
    case callback([Step])
    /// Posts through the hub's handle, as from another thread.
    case post([Step])
    case stopCallback(Int)
    case state(Int)
    case setEvent(Int)
    case clearEvent(Int)
    case waitForEvent(Int, timeout: Int?)
    case acquire(Int, timeout: Int?)
    case release(Int)
    case waitForPermit(Int, timeout: Int?)
    /// Puts the step's ID.
    case put(Int, timeout: Int?)
    case take(Int, timeout: Int?, isPeek: Bool)
    case shutDown(Int, isImmediate: Bool)
    /// Waits until that many are ready; nil means all.
    case waitForAny([Thing], timeout: Int?, count: Int?)
    /// Takes from the first that has something. Not for greenlets.
    case takeAny([Thing], timeout: Int?)

    /// The nested steps, for code that traverses a whole program.
    var blocks: [[Step]] {
        get {
            switch self {
            case .link(_, _, let steps), .withTimeout(_, _, let steps), .withSilentTimeout(_, let steps),
                .withTimeoutValue(_, let steps), .catching(let steps), .callback(let steps),
                .post(let steps):
                [steps]
            case .cleaningUp(let cleanup, let steps): [cleanup, steps]
            default: []
            }
        }
        set {
            switch self {
            case .link(let target, let kind, _): self = .link(target, kind, newValue[0])
            case .withTimeout(let duration, let kind, _): self = .withTimeout(duration, kind, newValue[0])
            case .withSilentTimeout(let duration, _): self = .withSilentTimeout(duration, newValue[0])
            case .withTimeoutValue(let duration, _): self = .withTimeoutValue(duration, newValue[0])
            case .catching: self = .catching(newValue[0])
            case .callback: self = .callback(newValue[0])
            case .post: self = .post(newValue[0])
            case .cleaningUp: self = .cleaningUp(newValue[0], after: newValue[1])
            default: break
            }
        }
    }

    /// Whether the nested steps run in this flow, and not in another greenlet or callback.
    var runsInline: Bool {
        switch self {
        case .link, .callback, .post: false
        default: true
        }
    }
}

// MARK: Observations

/// An error, in a form common to the library and the model.
enum Fault: Hashable, Sendable {
    case failure(Int)
    case exit(Int)
    /// The Timeout of that step.
    case timeout(Int)
    /// The unnamed Timeout of `withSilentTimeout`, by its duration.
    case silentTimeout(Int?)
    /// The unnamed Timeout of a `timeout:` argument or `withTimeout(_:timeoutValue:)`.
    case limit(Int?)
    case wouldBlockForever
    case blockedInHub
    case queueFull
    case queueEmpty
    case queueShutDown
    case other(String)
}

/// The state of a greenlet as shown by its properties.
struct StateSnapshot: Hashable, Sendable {
    var isStarted = false
    var isActive = false
    var isDead = false
    var isReady = false
    var isSuccessful = false
    var value: Int?
    var error: Fault?
    var exit: Fault?
}

enum Outcome: Hashable, Sendable {
    case done
    case value(Int)
    /// The result of a wait with a limit.
    case satisfied(Bool)
    case list([Int])
    case threw(Fault)
    /// The scope's own timeout had fired.
    case expired
    /// The step had nothing to act on.
    case absent
    case wasPending(Bool)
    case state(StateSnapshot)
    case began
    case caught(Fault)
    case reported(Fault, of: Int)
}

/// One line of the log.
struct Entry: Hashable, Sendable {
    /// Nanoseconds of virtual time.
    var time: Int64
    var participant: Int
    /// The step's ID; 0 for the start and the end of a body, and for reports.
    var step: Int
    var outcome: Outcome
}

// MARK: Text

extension RandomProgram: CustomStringConvertible {
    var description: String {
        var lines = ["main:"] + text(main, 1)
        for (number, body) in greenlets.enumerated() where !body.steps.isEmpty || isMentioned(number) {
            lines.append("greenlet \(number)\(body.isRaw ? " (raw)" : ""):")
            lines += text(body.steps, 1)
        }
        return lines.joined(separator: "\n")
    }

    private func isMentioned(_ number: Int) -> Bool {
        ([main] + greenlets.map(\.steps)).contains { mentions(number, $0) }
    }

    private func mentions(_ number: Int, _ steps: [Step]) -> Bool {
        steps.contains { step in
            step.action.targets.contains(number) || step.action.blocks.contains { mentions(number, $0) }
        }
    }

    private func text(_ steps: [Step], _ depth: Int) -> [String] {
        let indent = String(repeating: "    ", count: depth)
        if steps.isEmpty { return ["\(indent)nothing"] }
        return steps.flatMap { step in
            ["\(indent)\(step.id): \(step.action.phrase)"]
                + step.action.blocks.enumerated().flatMap { index, block in
                    (index > 0 ? ["\(indent)after which, the body:"] : []) + text(block, depth + 1)
                }
        }
    }
}

extension Action {
    var targets: [Int] {
        switch self {
        case .start(let target), .startAfter(let target, _), .kill(let target, _, _, _), .join(let target, _),
            .get(let target, _), .link(let target, _, _), .state(let target):
            [target]
        case .killAll(let targets, _, _, _, _), .joinAll(let targets, _, _, _): targets
        case .waitForAny(let things, _, _):
            things.compactMap { if case .greenlet(let number) = $0 { number } else { nil } }
        default: []
        }
    }

    var phrase: String {
        func limit(_ timeout: Int?) -> String { timeout.map { ", timeout \($0) ns" } ?? "" }
        func sticky(_ isSticky: Bool) -> String { isSticky ? ", sticky" : "" }
        func span(_ duration: Int?) -> String { duration.map { "\($0) ns" } ?? "nil" }
        func raising(_ kind: ThrownKind?) -> String { kind.map { ", throwing \($0)" } ?? "" }
        return switch self {
        case .start(let target): "start \(target)"
        case .startAfter(let target, let delay): "start \(target) after \(delay) ns"
        case .sleep(let duration): "sleep \(duration) ns"
        case .compute(let duration): "compute for \(duration) ns"
        case .spin(let count): "yield \(count) times"
        case .kill(let target, let kind, .function, let isSticky):
            "Gevent.kill \(target == Participant.main ? "main" : "\(target)"), \(kind)\(sticky(isSticky))"
        case .kill(let target, let kind, .nonBlocking, let isSticky):
            "kill \(target) without blocking, \(kind)\(sticky(isSticky))"
        case .kill(let target, let kind, .blocking(let timeout), let isSticky):
            "kill \(target), \(kind)\(limit(timeout))\(sticky(isSticky))"
        case .killAll(let targets, let kind, let isBlocking, let timeout, let isSticky):
            "killAll \(targets)\(isBlocking ? "" : " without blocking"), \(kind)\(limit(timeout))\(sticky(isSticky))"
        case .join(let target, let timeout): "join \(target)\(limit(timeout))"
        case .get(let target, .nonBlocking): "get \(target) without blocking"
        case .get(let target, .blocking(let timeout)): "get \(target)\(limit(timeout))"
        case .get(let target, .under(let duration)): "get \(target), under a Timeout of \(span(duration))"
        case .joinAll(let targets, let timeout, let isThrowing, let count):
            "joinAll \(targets)\(limit(timeout))\(isThrowing ? ", throwing errors" : "")"
                + (count.map { ", count \($0)" } ?? "")
        case .link(let target, let kind, _): "link (\(kind)) to \(target):"
        case .unlink(let id): "unlink the link of step \(id)"
        case .withTimeout(let duration, let kind, _): "withTimeout \(span(duration))\(raising(kind)):"
        case .withSilentTimeout(let duration, _): "withSilentTimeout \(span(duration)):"
        case .withTimeoutValue(let duration, _): "withTimeout \(span(duration)), with a value:"
        case .startTimeout(let duration, let kind): "start a Timeout of \(span(duration))\(raising(kind))"
        case .startTimeoutAgain(let id): "start the Timeout of step \(id) again"
        case .cancelTimeout(let id): "cancel the Timeout of step \(id)"
        case .catching: "catch what is thrown in:"
        case .cleaningUp: "defer:"
        case .fail(let kind): "throw \(kind)"
        case .returning: "return"
        case .callback: "hub callback:"
        case .post: "posted job:"
        case .stopCallback(let id): "stop the callback of step \(id)"
        case .state(let target): "look at \(target)"
        case .setEvent(let event): "set event \(event)"
        case .clearEvent(let event): "clear event \(event)"
        case .waitForEvent(let event, let timeout): "wait for event \(event)\(limit(timeout))"
        case .acquire(let semaphore, let timeout): "acquire semaphore \(semaphore)\(limit(timeout))"
        case .release(let semaphore): "release semaphore \(semaphore)"
        case .waitForPermit(let semaphore, let timeout): "wait for semaphore \(semaphore)\(limit(timeout))"
        case .put(let queue, let timeout): "put into queue \(queue)\(limit(timeout))"
        case .take(let queue, let timeout, false): "take from queue \(queue)\(limit(timeout))"
        case .take(let queue, let timeout, true): "peek at queue \(queue)\(limit(timeout))"
        case .waitForAny(let things, let timeout, let count):
            "wait for \(things)\(limit(timeout))\(count.map { ", count \($0)" } ?? "")"
        case .takeAny(let things, let timeout): "take from one of \(things)\(limit(timeout))"
        case .shutDown(let queue, let isImmediate): "shut queue \(queue) down\(isImmediate ? " at once" : "")"
        }
    }
}

extension Entry: CustomStringConvertible {
    var description: String {
        let name =
            switch participant {
            case Participant.main: "main"
            case Participant.hub: "hub"
            case 1000...: "link \(participant - 1000)"
            default: "greenlet \(participant)"
            }
        return "\(time) ns, \(name), \(step == 0 ? "" : "step \(step): ")\(outcome)"
    }
}
