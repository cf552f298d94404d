// What the commands in Benchmarks/ are made of. Each measurement has a process of its own, so one's memory is not the
// next one's, and a crash ends one figure. `usage` below says what it prints.

import BenchmarkCases
import CCountAllocations
import CCountInstructions
import FoundationEssentials
import Gevent
import Glibc

let usage = """
    Runs one case, once, in this process, on the loop that GEVENT_LOOP chooses.

        run-case --list            the cases, one JSON object a line
        run-case --facts           the loops that are linked, with what they say of themselves; one JSON object
        run-case --reference       the reference loop alone, for who measures something else beside it
        run-case ID [--quick] [--operations N]
                                   runs the case and prints one JSON object
        run-case ID --operations N --instructions
                                   the same, one instruction after the other: prints "instructions", of one operation, on
                                   the measuring thread, with what the measured part begins with; and no other figure

    Of a run: "value" is the figure ("wall" and "processor" nanoseconds of one operation, or "memory" bytes each);
    "allocations", of the measuring thread, are per operation too; "extras" are further figures. "reference" is the
    reference loop's step before and after the case, by the wall clock, "referenceProcessor" in processor time, and
    "referenceShare" how much of the time this process had a processor: what is less than 1 went to somebody else. A
    case that this system cannot run gives "unavailable", the reason, and no figures.
    """

struct Description: Encodable {
    let id, title, group, figure, unit: String
    let reachesLoop: Bool
    let operations: Int
    let quickOperations: Int?

    init(_ one: Case) {
        (id, title, group) = (one.id, one.title, one.group)
        (figure, unit) = (one.figure.rawValue, one.figure.unit)
        reachesLoop = one.reachesLoop
        (operations, quickOperations) = (one.operations, one.quickOperations)
    }
}

struct Facts: Encodable {
    struct Loop: Encodable {
        let name: String
        let features: [String: String]
    }
    let version: String
    let loops: [Loop]
}

struct Result: Encodable {
    struct Extra: Encodable {
        let name: String
        let value: Double
        let unit: String
    }
    var `case`: String
    var loop: String?
    var unavailable: String?
    var value: Double?
    var operations: Int?
    var seconds: Double?
    var processorSeconds: Double?
    var preemptions: Int?
    var allocations: Double?
    var instructions: Double?
    var extras: [Extra] = []
    var reference: [Double] = []
    var referenceShare: Double?
    var referenceProcessor: [Double] = []
}

func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

func fail(_ message: String) -> Never {
    var line = "run-case: \(message)\n"
    _ = line.withUTF8 { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    exit(1)
}

/// About 10 ms.
let referenceLength = 1_000_000

func measured(_ one: Case, operations: Int) throws -> Result {
    // What the runtime does the first time only, which is much beside a few operations, is not counted.
    if count_instructions_is_on() != 0 { _ = try onFreshHub(one, operations: operations, isCounted: false) }
    return try onFreshHub(one, operations: operations, isCounted: count_instructions_is_on() != 0)
}

/// On the main thread, where most programs have their only hub, and where malloc, which gives every other thread an
/// arena that it enlarges page by page, makes few system calls.
func onFreshHub(_ one: Case, operations: Int, isCounted: Bool) throws -> Result {
    let hub = try Hub.start()
    let result = try run(one, on: hub, operations: operations, isCounted: isCounted)
    hub.destroy()
    return result
}

func run(_ one: Case, on hub: Hub, operations: Int, isCounted: Bool) throws -> Result {
    // Otherwise the hub, on which time passes a thousand times too fast, would do nothing but look around. Before its
    // first step, since a hub remembers for a while that turns were slow.
    if isCounted { hub.switchInterval = .seconds(3_600) }
    var result = Result(case: one.id, loop: hub.loopName)
    let run = Run(
        operations: operations, countAllocations: { Int(count_allocations_of_thread()) },
        aroundMeasured: { body in
            guard isCounted else { return try body() }
            count_instructions_begin()
            try body()
            count_instructions_end()
        })
    let before = referenceSteps(referenceLength)
    do {
        try one(on: hub, run)
    } catch let reason as CaseUnavailable {
        result.unavailable = reason.description
        return result
    }
    let after = referenceSteps(referenceLength)
    result.reference = [before.nanoseconds, after.nanoseconds]
    result.referenceShare = (before.share + after.share) / 2
    result.referenceProcessor = [before.nanoseconds * before.share, after.nanoseconds * after.share]
    result.fill(from: run, one.figure)
    return result
}

func counted(_ one: Case, operations: Int) throws -> Result {
    let words = ["run-case", one.id, "--operations", "\(operations)"]
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { for argument in arguments { free(argument) } }
    let count = count_instructions_of(&arguments)
    var result = Result(case: one.id)
    switch count {
    case -2: result.unavailable = "this system does not allow tracing"
    case ..<0: fail("\(one.id) failed while it was counted")
    default: (result.operations, result.instructions) = (operations, Double(count) / Double(operations))
    }
    return result
}

extension Result {
    mutating func fill(from run: Run, _ figure: Case.Figure) {
        guard let window = run.window else { fatalError("the case measured nothing") }
        let count = Double(run.operations)
        operations = run.operations
        seconds = Double(window.nanoseconds) / 1e9
        processorSeconds = Double(window.processorNanoseconds) / 1e9
        preemptions = window.preemptions
        allocations = window.allocations.map { Double($0) / count }
        extras = run.extras.map { Extra(name: $0.name, value: $0.value, unit: $0.unit) }
        switch figure {
        case .wall: value = Double(window.nanoseconds) / count
        case .processor: value = run.processorNanosecondsEach ?? Double(window.processorNanoseconds) / count
        case .memory: value = run.bytesEach
        }
    }
}

func run(_ arguments: [String]) throws {
    var (id, operations): (String?, Int?) = (nil, nil)
    var (isQuick, countsInstructions) = (false, false)
    var rest = arguments[...]
    while let argument = rest.popFirst() {
        switch argument {
        case "--help", "-h": return print(usage)
        case "--list":
            for one in allCases { try printJSON(Description(one)) }
            return
        case "--facts":
            let loops = try LoopBackend.linked.map { backend in
                let loop = try backend.makeLoop(Gevent.configuration.resolve())
                defer { loop.close() }
                return Facts.Loop(name: backend.name, features: loop.features)
            }
            return try printJSON(Facts(version: Gevent.version, loops: loops))
        case "--reference":
            let (first, second) = (referenceSteps(referenceLength), referenceSteps(referenceLength))
            var result = Result(case: "reference")
            result.reference = [first.nanoseconds, second.nanoseconds]
            result.referenceShare = (first.share + second.share) / 2
            result.referenceProcessor = [first.nanoseconds * first.share, second.nanoseconds * second.share]
            return try printJSON(result)
        case "--quick": isQuick = true
        case "--instructions": countsInstructions = true
        case "--operations":
            guard let number = rest.popFirst().flatMap({ Int($0) }), number > 0 else {
                fail("--operations takes a number above 0")
            }
            operations = number
        case _ where argument.hasPrefix("-") || id != nil:
            fail("\(argument)? run-case --help tells what there is")
        default: id = argument
        }
    }
    guard let id else { fail("which case? run-case --list tells") }
    guard let one = allCases.first(where: { $0.id == id }) else { fail("there is no case \(id); see run-case --list") }
    let count = operations ?? (isQuick ? one.quickOperations : nil) ?? one.operations
    try printJSON(try countsInstructions ? counted(one, operations: count) : measured(one, operations: count))
}

do {
    try run(Array(CommandLine.arguments.dropFirst()))
} catch {
    fail("\(error)")
}
