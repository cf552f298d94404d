internal import CGevent

/// What ``assertSwitches(maxBlockingTime:hubOnly:_:)`` throws: a block kept the thread to itself.
///
/// gevent: the `AssertionError` of `gevent.util.assert_switches`.
public struct NoSwitchError: Error, Sendable, Hashable, CustomStringConvertible {
    /// How long the block took, on the loop's clock.
    public let elapsed: Duration
    /// How long it might have gone without a switch.
    public let maxBlockingTime: Duration?
    /// Whether only switches to the hub counted.
    public let hubOnly: Bool

    public var description: String {
        let target = hubOnly ? "to the hub" : "to another greenlet"
        let limit = maxBlockingTime.map { ", where \(decimalSeconds($0)) s are allowed" } ?? ""
        return "a block did not switch \(target) in \(decimalSeconds(elapsed)) s\(limit)"
    }
}

/// Runs `body` and returns what it does, and throws ``NoSwitchError`` if it did not let others run: no greenlet was
/// switched to, or, with `hubOnly`, the hub was not, which looks at timers and descriptors.
///
/// With `maxBlockingTime` only a block that took longer than that, on the loop's clock, has to have switched. Nests. An
/// error that `body` throws passes through, and nothing is added to it. Costs two readings of the clock. For tests and
/// for finding what blocks.
///
/// gevent: `gevent.util.assert_switches(max_blocking_time=None, hub_only=False)`.
@available(*, noasync)
public func assertSwitches<Value>(
    maxBlockingTime: Duration? = nil, hubOnly: Bool = false, _ body: () throws -> Value
) throws -> Value {
    let hub = try currentHub()
    let count = hubOnly ? hub.pointee.root_switch_count : gevent_switch_count(hub)
    let start = Hub.time(hub)
    let value = try body()
    // The greenlet may have destroyed the hub, and with that it has switched.
    guard gevent_hub_current() == hub else { return value }
    if (hubOnly ? hub.pointee.root_switch_count : gevent_switch_count(hub)) != count { return value }
    let elapsed = start.duration(to: Hub.time(hub))
    if let maxBlockingTime, elapsed <= maxBlockingTime { return value }
    throw NoSwitchError(elapsed: elapsed, maxBlockingTime: maxBlockingTime, hubOnly: hubOnly)
}
