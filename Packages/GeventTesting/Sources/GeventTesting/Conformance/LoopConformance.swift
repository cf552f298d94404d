public import GeventLoop
internal import Synchronization

/// The contract of ``/GeventLoop/Loop`` as named checks, for the loops of this package and your own.
///
/// No test framework is needed. With Swift Testing, a test looks like this:
///
/// ```swift
/// @Test(arguments: LoopConformance.checks)
/// func myLoopKeepsTheContract(check: LoopConformance.Check) {
///     let result = LoopConformance(name: "mine") { try MyLoop() }.run(check)
///     #expect(result.failure == nil)
/// }
/// ```
///
/// Each check creates its own loop on its own thread and closes everything it opened. Checks run one at a time within a
/// process, because they fork and reuse descriptor numbers. They use the real clock where the loop does, and are strict
/// about "not early" but generous about "not late". The soft limit of the process on open descriptors is raised to
/// 4,096 if it is lower. Two checks raise it further while they run, to the number they need or the most that the
/// system allows.
public struct LoopConformance: Sendable {
    /// A closure that creates a new loop that belongs to the calling thread.
    public typealias Factory = @Sendable () throws -> any Loop

    /// A named check of one fact about loops.
    public struct Check: Sendable, CustomStringConvertible {
        /// The fact, such as "the empty set removes".
        public let name: String

        /// The line of the contract that the check belongs to, 1 to 9.
        public let contractLine: Int

        /// Runs the check on the calling thread. Throws an error that describes what was expected and what happened.
        public let run: @Sendable (_ makeLoop: @escaping Factory) throws -> Void

        /// The line and the name, such as "1: the empty set removes".
        public var description: String { "\(contractLine): \(name)" }

        init(_ contractLine: Int, _ name: String, _ body: @escaping @Sendable (Workbench) throws -> Void) {
            self.contractLine = contractLine
            self.name = name
            run = { makeLoop in
                let bench = try Workbench(makeLoop)
                defer { bench.cleanUp() }
                try body(bench)
            }
        }
    }

    /// The result of one check.
    public struct Result: Sendable, CustomStringConvertible {
        /// The check.
        public let check: Check

        /// The loop's name, as given to ``LoopConformance/init(name:makeLoop:)``.
        public let loop: String

        /// A description of what was expected and what happened; nil if the check passed.
        public let failure: String?

        /// One line, such as "ok   epoll 1: the empty set removes".
        public var description: String {
            failure.map { "FAIL \(loop) \(check): \($0)" } ?? "ok   \(loop) \(check)"
        }
    }

    /// Every check, in the order of the lines of the contract.
    public static let checks: [Check] =
        interestChecks + eventChecks + returningChecks + appendingChecks + wakingChecks + descriptorChecks
        + forkChecks + confinementChecks

    /// The loop's name in results.
    public let name: String

    private let makeLoop: Factory

    /// Creates the conformance checks of one kind of loop.
    ///
    /// - Parameters:
    ///   - name: the loop's name in results.
    ///   - makeLoop: creates a new loop; each check calls it on its own thread.
    public init(name: String, makeLoop: @escaping Factory) {
        self.name = name
        self.makeLoop = makeLoop
    }

    /// Runs every check. Blocks the calling thread for about a second.
    public func run() -> [Result] {
        Self.checks.map { run($0) }
    }

    /// Runs one check. A check that has not finished after 30 seconds fails, and its thread is abandoned.
    public func run(_ check: Check) -> Result {
        let makeLoop = makeLoop
        let outcome = Self.oneAtATime.withLock { _ in
            runOnThread(seconds: 30) { () -> String? in
                do {
                    try check.run(makeLoop)
                    return nil
                } catch {  // control: a loop's check runs no greenlets
                    return "\(error)"
                }
            }
        }
        return Result(check: check, loop: name, failure: outcome ?? "did not finish within 30 seconds")
    }

    private static let oneAtATime = Mutex(())
}
