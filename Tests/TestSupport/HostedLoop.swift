public import GeventLoop

/// A loop on an adopted C loop, together with a closure that destroys the C loop, for checks that only create and close
/// a loop.
public final class HostedLoop<Base: Loop>: Loop {
    public static var backendName: String { Base.backendName }

    private let base: Base
    private var endHost: (() -> Void)?

    /// - Parameter endHost: destroys the C loop; called once, after the loop was closed.
    public init(_ base: Base, endHost: @escaping () -> Void) {
        self.base = base
        self.endHost = endHost
    }

    public var now: LoopInstant { base.now }
    public var timerResolution: Duration { base.timerResolution }
    public var waker: any LoopWaker { base.waker }
    public var features: [String: String] { base.features }

    public func setInterest(_ interest: Readiness, for fileDescriptor: CInt, generation: UInt32) throws(LoopError) {
        try base.setInterest(interest, for: fileDescriptor, generation: generation)
    }

    public func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        try base.poll(until: deadline, into: &events)
    }

    public func recoverAfterFork() throws(LoopError) {
        try base.recoverAfterFork()
    }

    public func close() {
        base.close()
        endHost?()
        endHost = nil
    }
}
