public import Gevent

/// A benchmark case.
///
/// All cases are in ``allCases``, for use by any harness.
public struct Case: Sendable {
    /// The figure that is divided by the number of operations.
    public enum Figure: String, Sendable {
        /// Wall time of the measured part, in nanoseconds.
        case wall
        /// Processor time of this process in the measured part, in nanoseconds: the cost of a server whose clients are
        /// another process, or of timers, between which the process sleeps.
        case processor
        /// Resident bytes and page tables.
        case memory

        public var unit: String { self == .memory ? "bytes" : "ns" }
    }

    /// The name on command lines, in baselines, and in the programs of other systems for the same case.
    public let id: String
    public let title: String
    public let group: String
    public let figure: Figure
    /// Whether the case uses the event loop. If not, its result does not depend on the loop.
    public let reachesLoop: Bool
    /// The number of operations in a run.
    public let operations: Int
    /// The number of operations in a quick run; nil if a quick run cannot be shorter and is skipped.
    public let quickOperations: Int?
    let run: @Sendable (_ hub: Hub, _ run: Run) throws -> Void

    init(
        _ id: String, _ title: String, group: String, figure: Figure = .wall, reachesLoop: Bool = false,
        operations: Int, quickOperations: Int?,
        run: @escaping @Sendable (_ hub: Hub, _ run: Run) throws -> Void
    ) {
        self.id = id
        self.title = title
        self.group = group
        self.figure = figure
        self.reachesLoop = reachesLoop
        self.operations = operations
        self.quickOperations = quickOperations
        self.run = run
    }

    /// Runs the case once as the main greenlet of `hub`, which must be new.
    public func callAsFunction(on hub: Hub, _ run: Run) throws {
        try self.run(hub, run)
    }
}

/// All cases. A new list of cases must be added here.
public let allCases: [Case] = greenletCases + objectCases + timerCases + loopCases + memoryCases + networkCases

/// Thrown when this system cannot run the case.
public struct CaseUnavailable: Error, CustomStringConvertible {
    public let description: String

    init(_ description: String) { self.description = description }
}

/// Thrown when a case did not do the work that it measures.
struct CaseFailed: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
