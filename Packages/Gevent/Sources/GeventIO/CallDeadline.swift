public import GeventCore

/// How long a call may still park. For `GeventNet`.
///
/// `WatchedDescriptor.begin` makes it after a check of the thread, so code that has one need not check it again.
@_spi(GeventInternals)
public struct CallDeadline {
    /// Nil without a limit; zero or less if the call must not park.
    @usableFromInline let limit: Duration?
    /// Whether the limit is for all the waits of the call together, and not for each.
    @usableFromInline let coversWholeCall: Bool
    /// When the whole call is over. Set at its first wait, so that a call that need not wait never reads the clock.
    @usableFromInline var deadline: LoopInstant?
    /// The time is up. One more attempt is due, and then the error.
    public internal(set) var isOver = false

    @inlinable
    @inline(__always)
    init(_ limit: Duration?, coversWholeCall: Bool) {
        self.limit = limit
        self.coversWholeCall = coversWholeCall
    }

    /// Whether the call must not park at all.
    @inlinable
    @inline(__always)
    public var isNone: Bool {
        guard let limit else { return false }
        return limit <= .zero
    }

    /// The limit of the next wait.
    mutating func next() -> Duration? {
        guard let limit, coversWholeCall else { return limit }
        let now = Hub.current.now
        if let deadline { return now.duration(to: deadline) }
        deadline = now.advanced(by: limit)
        return limit
    }

    /// Parks for `pause`, but not beyond the end of the call. Throws `DescriptorFailure` if there is no time left.
    public mutating func sleep(for pause: Duration) throws {
        if isNone { throw DescriptorFailure.wouldBlock }
        guard let left = next() else { return try GeventCore.sleep(for: pause) }
        if left <= .zero { throw DescriptorFailure.timedOut }
        try GeventCore.sleep(for: min(pause, left))
    }
}
