internal import CMeasure

/// One run of a case: its parameters and its results.
public final class Run {
    /// A figure in addition to the case's own.
    public struct Extra: Sendable {
        public let name: String
        public let value: Double
        public let unit: String
    }

    /// The measurement of the measured part.
    public struct Window: Sendable {
        public let nanoseconds: Int
        /// Processor time of the whole process.
        public let processorNanoseconds: Int
        /// The number of times the kernel preempted this process.
        public let preemptions: Int
        /// Allocations of the thread; nil if they are not counted.
        public let allocations: Int?
    }

    /// The number of operations to make.
    public let operations: Int
    public private(set) var window: Window?
    /// Bytes for each operation, resident and page tables, from a case about memory.
    public private(set) var bytesEach: Double?
    /// Processor time of one operation in nanoseconds, from a case whose load generator measures it; otherwise nil.
    public private(set) var processorNanosecondsEach: Double?
    public private(set) var extras: [Extra] = []

    private let countAllocations: (() -> Int)?
    private let aroundMeasured: (() throws -> Void) throws -> Void

    /// - Parameters:
    ///   - countAllocations: returns the number of allocations that the calling thread has made so far.
    ///   - aroundMeasured: receives the measured part and must call it once.
    public init(
        operations: Int, countAllocations: (() -> Int)? = nil,
        aroundMeasured: @escaping (() throws -> Void) throws -> Void = { try $0() }
    ) {
        self.operations = operations
        self.countAllocations = countAllocations
        self.aroundMeasured = aroundMeasured
    }

    /// Runs and measures `body`. A case calls this once, and prepares everything before the call.
    func measure(_ body: () throws -> Void) throws {
        precondition(window == nil, "a case measures one part")
        try aroundMeasured {
            let allocations = countAllocations?()
            let before = measure_now()
            try body()
            let after = measure_now()
            window = Window(
                nanoseconds: Int(after.wall - before.wall),
                processorNanoseconds: Int(after.processor - before.processor),
                preemptions: Int(after.preemptions - before.preemptions),
                allocations: allocations.map { (countAllocations?() ?? 0) - $0 })
        }
    }

    /// Sets the figure of a case about memory.
    func record(bytesEach: Double) { self.bytesEach = bytesEach }

    /// Sets the figure of a case about a server, as measured by its load generator.
    func record(processorNanosecondsEach: Double) { self.processorNanosecondsEach = processorNanosecondsEach }

    /// Adds a figure to the case's own.
    func also(_ name: String, _ value: Double, _ unit: String) {
        extras.append(Extra(name: name, value: value, unit: unit))
    }
}

@available(*, unavailable)
extension Run: Sendable {}

/// Returns the current time of a step of the reference loop in nanoseconds, and the thread's share of the processor.
public func referenceSteps(_ steps: Int) -> (nanoseconds: Double, share: Double) {
    let found = measure_reference_steps(Int64(steps))
    return (found.nanoseconds, found.share)
}
