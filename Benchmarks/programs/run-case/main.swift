// The program on which the commands in Benchmarks/ are built. Each measurement runs in its own process, so that memory
// is measured separately and a crash loses only one figure. `usage` below describes the output.

import BenchmarkCases
import CCountAllocations
import CCountInstructions
import FoundationEssentials
import Gevent
import Glibc

let usage = """
    Runs one case, once, in this process, on the loop selected by GEVENT_LOOP.

        run-case --list            lists the cases, one JSON object per line
        run-case --facts           prints the linked loops with their features as one JSON object
        run-case --reference       runs the reference loop alone, for measurements of other programs
        run-case ID [--quick] [--operations N]
                                   runs the case and prints one JSON object
        run-case ID --operations N --instructions
                                   single-steps the case: prints only "instructions", those of the measuring thread per
                                   operation, including the start of the measured part

    The result of a run: "value" is the figure (nanoseconds of "wall" or "processor" time per operation, or bytes of
    "memory" each). "allocations" are those of the measuring thread per operation; "extras" are further figures.
    "reference" is the time of a step of the reference loop before and after the case, by the wall clock,
    "referenceProcessor" the same in processor time. "referenceShare" is this process's share of the processor; a value
    below 1 means that other processes used it. A case that this system cannot run has "unavailable", the reason, and no
    figures.
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

/// Takes about 10 ms.
let referenceLength = 1_000_000

func measured(_ one: Case, operations: Int) throws -> Result {
    // Excludes the runtime's work at first use, which would be significant with few operations.
    if count_instructions_is_on() != 0 { _ = try onFreshHub(one, operations: operations, isCounted: false) }
    return try onFreshHub(one, operations: operations, isCounted: count_instructions_is_on() != 0)
}

/// Runs the case on the main thread, where most programs have their only hub. malloc makes few system calls there,
/// while any other thread has an arena that grows page by page.
func onFreshHub(_ one: Case, operations: Int, isCounted: Bool) throws -> Result {
    let hub = try Hub.start()
    let result = try run(one, on: hub, operations: operations, isCounted: isCounted)
    hub.destroy()
    return result
}

func run(_ one: Case, on hub: Hub, operations: Int, isCounted: Bool) throws -> Result {
    // While stepping, time passes a thousand times too fast, and the hub would only check timers. Set before the first
    // step, because a hub remembers slow greenlets for a while.
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
            fail("unknown argument \(argument); see run-case --help")
        default: id = argument
        }
    }
    guard let id else { fail("the case is missing; see run-case --list") }
    guard let one = allCases.first(where: { $0.id == id }) else { fail("there is no case \(id); see run-case --list") }
    let count = operations ?? (isQuick ? one.quickOperations : nil) ?? one.operations
    try printJSON(try countsInstructions ? counted(one, operations: count) : measured(one, operations: count))
}

do {
    try run(Array(CommandLine.arguments.dropFirst()))
} catch {
    fail("\(error)")
}
