internal import CMeasure

/// One run of a case: what the case is told, and what it tells.
public final class Run {
    /// A figure besides the case's own.
    public struct Extra: Sendable {
        public let name: String
        public let value: Double
        public let unit: String
    }

    /// The measured part.
    public struct Window: Sendable {
        public let nanoseconds: Int
        /// Of the whole process.
        public let processorNanoseconds: Int
        /// How often the kernel took a processor away from this process.
        public let preemptions: Int
        /// Allocations of the thread; nil if nothing counts them.
        public let allocations: Int?
    }

    /// How many operations to make.
    public let operations: Int
    public private(set) var window: Window?
    /// Bytes each, resident and page tables, from a case about memory.
    public private(set) var bytesEach: Double?
    /// Processor time of one operation, in nanoseconds, from a case whose load generator measures it; nil where the
    /// window does.
    public private(set) var processorNanosecondsEach: Double?
    public private(set) var extras: [Extra] = []

    private let countAllocations: (() -> Int)?
    private let aroundMeasured: (() throws -> Void) throws -> Void

    /// - Parameters:
    ///   - countAllocations: how many allocations the calling thread has made so far.
    ///   - aroundMeasured: is handed the measured part and calls it, once.
    public init(
        operations: Int, countAllocations: (() -> Int)? = nil,
        aroundMeasured: @escaping (() throws -> Void) throws -> Void = { try $0() }
    ) {
        self.operations = operations
        self.countAllocations = countAllocations
        self.aroundMeasured = aroundMeasured
    }

    /// The part that is measured. A case calls this once; what it needs for that it makes before.
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

    /// The figure of a case about memory.
    func record(bytesEach: Double) { self.bytesEach = bytesEach }

    /// The figure of a case about a server: what its load generator measured.
    func record(processorNanosecondsEach: Double) { self.processorNanosecondsEach = processorNanosecondsEach }

    /// A figure besides the case's own.
    func also(_ name: String, _ value: Double, _ unit: String) {
        extras.append(Extra(name: name, value: value, unit: unit))
    }
}

@available(*, unavailable)
extension Run: Sendable {}

/// What a step of the reference loop takes now, in nanoseconds, and how much of that time the thread had a processor.
public func referenceSteps(_ steps: Int) -> (nanoseconds: Double, share: Double) {
    let found = measure_reference_steps(Int64(steps))
    return (found.nanoseconds, found.share)
}
