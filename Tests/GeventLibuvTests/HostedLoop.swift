import GeventLoop

/// A loop on an adopted one, together with what made that: for checks, which make a loop and close it, and no more.
final class HostedLoop<Base: Loop>: Loop {
    static var backendName: String { Base.backendName }

    private let base: Base
    private var endHost: (() -> Void)?

    /// - Parameter endHost: is called once, after the loop was closed.
    init(_ base: Base, endHost: @escaping () -> Void) {
        self.base = base
        self.endHost = endHost
    }

    var now: LoopInstant { base.now }
    var timerResolution: Duration { base.timerResolution }
    var waker: any LoopWaker { base.waker }
    var features: [String: String] { base.features }

    func setInterest(_ interest: Readiness, for fileDescriptor: CInt, generation: UInt32) throws(LoopError) {
        try base.setInterest(interest, for: fileDescriptor, generation: generation)
    }

    func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        try base.poll(until: deadline, into: &events)
    }

    func recoverAfterFork() throws(LoopError) {
        try base.recoverAfterFork()
    }

    func close() {
        base.close()
        endHost?()
        endHost = nil
    }
}
