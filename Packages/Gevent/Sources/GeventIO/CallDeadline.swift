public import GeventCore

/// The time for which a call may still park. For `GeventNet`.
///
/// `WatchedDescriptor.begin` checks the thread before it creates one, so code that has a deadline need not check again.
@_spi(GeventInternals)
public struct CallDeadline {
    /// The timeout; nil for no limit, zero or less if the call must not park.
    @usableFromInline let limit: Duration?
    /// Whether the limit covers the whole call rather than each wait.
    @usableFromInline let coversWholeCall: Bool
    /// The instant at which the whole call expires. Set at the first wait, so that a call that doesn't wait never reads
    /// the clock.
    @usableFromInline var deadline: LoopInstant?
    /// Whether the limit has expired. One more attempt is made before the call throws.
    public internal(set) var hasExpired = false

    @inlinable
    @inline(__always)
    init(_ limit: Duration?, coversWholeCall: Bool) {
        self.limit = limit
        self.coversWholeCall = coversWholeCall
    }

    /// Whether the call must not park at all.
    @inlinable
    @inline(__always)
    public var forbidsParking: Bool {
        guard let limit else { return false }
        return limit <= .zero
    }

    /// Returns the timeout of the next wait.
    mutating func nextTimeout() -> Duration? {
        guard let limit, coversWholeCall else { return limit }
        let now = Hub.current.now
        if let deadline { return now.duration(to: deadline) }
        deadline = now.advanced(by: limit)
        return limit
    }

    /// Parks for `pause`, but not past the deadline of the call. Throws `DescriptorFailure` if no time remains.
    public mutating func sleep(for pause: Duration) throws {
        if forbidsParking { throw DescriptorFailure.wouldBlock }
        guard let remaining = nextTimeout() else { return try GeventCore.sleep(for: pause) }
        if remaining <= .zero { throw DescriptorFailure.timedOut }
        try GeventCore.sleep(for: min(pause, remaining))
    }
}
