public import GeventLoop
internal import Synchronization

/// The contract of ``/GeventLoop/Loop`` as named checks, for our loops and for yours.
///
/// No test framework is needed; with Swift Testing it reads
///
/// ```swift
/// @Test(arguments: LoopConformance.checks)
/// func myLoopKeepsTheContract(check: LoopConformance.Check) {
///     let result = LoopConformance(name: "mine") { try MyLoop() }.run(check)
///     #expect(result.failure == nil)
/// }
/// ```
///
/// Each check makes its own loop on a thread of its own and closes everything it opened. Checks run one at a time
/// within a process, because they fork and reuse descriptor numbers. They use the real clock where the loop does, and
/// are strict about "not early" but generous about "not late". The process's soft limit on open descriptors is raised
/// to 4,096 if it is lower, and by two checks, for as long as they run, to what they need or to what the system allows.
public struct LoopConformance: Sendable {
    /// Makes a fresh loop that belongs to the calling thread.
    public typealias Factory = @Sendable () throws -> any Loop

    /// One named fact about loops.
    public struct Check: Sendable, CustomStringConvertible {
        /// The fact in plain words, such as "the empty set removes".
        public let name: String

        /// The line of the contract it belongs to, 1 to 9.
        public let contractLine: Int

        /// Runs the check on the calling thread; throws an error that describes what was expected and what happened.
        public let run: @Sendable (_ makeLoop: @escaping Factory) throws -> Void

        /// The name with its line, such as "1: the empty set removes".
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

    /// What became of one check.
    public struct Result: Sendable, CustomStringConvertible {
        /// The check.
        public let check: Check

        /// The loop's name, as given to ``LoopConformance/init(name:makeLoop:)``.
        public let loop: String

        /// What was expected and what happened; nil if the check passed.
        public let failure: String?

        /// One line, such as "ok   epoll 1: the empty set removes".
        public var description: String {
            failure.map { "FAIL \(loop) \(check): \($0)" } ?? "ok   \(loop) \(check)"
        }
    }

    /// Every check, by the lines of the contract.
    public static let checks: [Check] =
        interestChecks + eventChecks + returningChecks + appendingChecks + wakingChecks + descriptorChecks
        + forkChecks + confinementChecks

    /// The loop's name in results.
    public let name: String

    private let makeLoop: Factory

    /// The conformance of one kind of loop.
    ///
    /// - Parameters:
    ///   - name: what results call it.
    ///   - makeLoop: makes a fresh loop; called on a thread of each check's own.
    public init(name: String, makeLoop: @escaping Factory) {
        self.name = name
        self.makeLoop = makeLoop
    }

    /// Runs every check. Blocks the calling thread for a second or so.
    public func run() -> [Result] {
        Self.checks.map { run($0) }
    }

    /// Runs one check. One that has not finished after 30 seconds has failed; its thread is left behind.
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
