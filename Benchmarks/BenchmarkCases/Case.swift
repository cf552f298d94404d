public import Gevent

/// One thing to measure.
///
/// The list of all is ``allCases``; whoever runs them, on whatever harness, takes them from there.
public struct Case: Sendable {
    /// What of a run is divided by its operations.
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

    /// What it is called on command lines, in baselines and by the programs of other systems that do the same.
    public let id: String
    public let title: String
    public let group: String
    public let figure: Figure
    /// Whether the event loop takes part in what is measured. If not, one loop is as good as another.
    public let reachesLoop: Bool
    /// Operations of a run.
    public let operations: Int
    /// Operations of a quick run; nil if a quick run cannot be shorter and is left out.
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

    /// Runs it once as the main greenlet of `hub`, which must be fresh.
    public func callAsFunction(on hub: Hub, _ run: Run) throws {
        try self.run(hub, run)
    }
}

/// The table: a part that is added later adds its list here.
public let allCases: [Case] = greenletCases + objectCases + timerCases + loopCases + memoryCases + networkCases

/// This system cannot run the case, and that is nobody's fault.
public struct CaseUnavailable: Error, CustomStringConvertible {
    public let description: String

    init(_ description: String) { self.description = description }
}

/// A case did not do what it is there to measure.
struct CaseFailed: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
