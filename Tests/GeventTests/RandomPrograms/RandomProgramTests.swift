import Glibc
import Testing

/// The logs of one program on the library and the model.
private struct Comparison {
    let library: [Entry]
    let model: [Entry]

    init(of program: RandomProgram, defect: PlantedDefect? = nil) throws {
        library = try LibraryRun.log(of: program)
        model = ReferenceModel.log(of: program, defect: defect)
    }

    var isEqual: Bool { library == model }

    /// The first line in which they differ, with a few before it.
    var firstDifference: String {
        let place = zip(library, model).enumerated().first { $0.element.0 != $0.element.1 }?.offset
        let first = place ?? min(library.count, model.count)
        func line(_ log: [Entry]) -> String { first < log.count ? "\(log[first])" : "nothing more" }
        let before = library[max(0, first - 8)..<first].map { "    \($0)" }
        return (["both:"] + before + ["library: \(line(library))", "model:   \(line(model))"]).joined(separator: "\n")
    }
}

/// Reads a number from the environment.
private func setting(_ name: String) -> UInt64? {
    getenv(name).flatMap { UInt64(String(cString: $0)) }
}

@Suite("Random programs")
struct RandomProgramTests {
    /// GEVENT_TEST_SEED chooses other programs, and GEVENT_TEST_PROGRAMS their number.
    private static let firstSeed = setting("GEVENT_TEST_SEED") ?? usualSeed
    private static let usualSeed: UInt64 = 1_000_000
    private static let programCount = Int(setting("GEVENT_TEST_PROGRAMS") ?? usualProgramCount)

    /// These tests run once for each loop, like the whole target, but on virtual time they never use that loop:
    /// repeating the programs would find nothing new. So only the first run has them all. The other runs have a few,
    /// which show that nothing in a process on another loop disturbs them.
    private static var usualProgramCount: UInt64 {
        if isSanitized { return 500 }
        return isFirstRun ? 10_000 : 1_000
    }

    private static var isFirstRun: Bool {
        let loop = getenv("GEVENT_LOOP").map { String(cString: $0) } ?? ""
        return loop.isEmpty || loop == "epoll"
    }

    @Test("The scheduler matches the reference model in random programs, to the last line of the log")
    func agreesWithModel() throws {
        for number in 0..<RandomProgramTests.programCount {
            let seed = RandomProgramTests.firstSeed &+ UInt64(number)
            let program = RandomProgram(seed: seed)
            if try Comparison(of: program).isEqual { continue }
            let smallest = try program.minimised { try !Comparison(of: $0).isEqual }
            Issue.record(
                """
                Seed \(seed); GEVENT_TEST_SEED=\(seed) GEVENT_TEST_PROGRAMS=1 runs it alone. Made smaller:
                \(smallest)
                \(try Comparison(of: smallest).firstDifference)
                """)
            return
        }
    }

    @Test(
        "A planted defect is found within a few programs, and its program is minimised",
        .enabled(if: isFirstRun && !isSanitized, "it tests these tests, which one run does"),
        arguments: PlantedDefect.allCases)
    func findsPlantedDefect(defect: PlantedDefect) throws {
        // Each defect shows up in one of this many programs, or of many more.
        let most = 3000
        let found = try (0..<most).lazy.map { RandomProgram(seed: RandomProgramTests.usualSeed &+ UInt64($0)) }
            .first { try !Comparison(of: $0, defect: defect).isEqual }
        let program = try #require(found, "no program of \(most) shows it")
        let smallest = try program.minimised { try !Comparison(of: $0, defect: defect).isEqual }
        // This defect needs long queues.
        #expect(
            smallest.stepCount <= ([.losesPosition, .overtakesPassedOver].contains(defect) ? 14 : 10), "\(smallest)")
        #expect(try Comparison(of: smallest).isEqual, "it is the defect that shows")
        #expect(try !Comparison(of: smallest, defect: defect).isEqual)
    }

    @Test("The programs contain every kind of step and produce every kind of error")
    func variety() {
        var actions: Set<String> = []
        var faults: Set<String> = []
        for number in 0..<500 {
            let program = RandomProgram(seed: RandomProgramTests.firstSeed &+ UInt64(number))
            let log = ReferenceModel.log(of: program)
            let done = Set(log.map(\.step))
            for step in program.allSteps where done.contains(step.id) { actions.insert(caseName(step.action)) }
            for entry in log {
                if case .threw(let fault) = entry.outcome { faults.insert(caseName(fault)) }
            }
        }
        #expect(
            actions == [
                "start", "startAfter", "sleep", "spin", "compute", "kill", "killAll", "join", "get", "joinAll", "link",
                "unlink", "withTimeout", "withSilentTimeout", "withTimeoutValue", "startTimeout", "startTimeoutAgain",
                "cancelTimeout", "catching", "cleaningUp", "fail", "returning", "callback", "stopCallback", "post",
                "state", "setEvent", "clearEvent", "waitForEvent", "acquire", "release", "waitForPermit", "put", "take",
                "shutDown", "waitForAny", "takeAny",
            ])
        #expect(
            faults == [
                "failure", "exit", "timeout", "silentTimeout", "limit", "wouldBlockForever", "blockedInHub",
                "queueFull", "queueEmpty", "queueShutDown",
            ])
    }

    private func caseName(_ value: some Any) -> String {
        Mirror(reflecting: value).children.first?.label ?? "\(value)"
    }

    @Test("A seed determines the program, and the program determines the log; another seed makes another program")
    func seeds() throws {
        let program = RandomProgram(seed: 7)
        #expect(program == RandomProgram(seed: 7))
        #expect(program != RandomProgram(seed: 8))
        #expect(try LibraryRun.log(of: program) == LibraryRun.log(of: program))
    }
}
