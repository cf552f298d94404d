internal import CGevent

/// The error that ``assertSwitches(maxBlockingTime:hubOnly:_:)`` throws if its block did not switch.
///
/// gevent: the `AssertionError` of `gevent.util.assert_switches`.
public struct NoSwitchError: Error, Sendable, Hashable, CustomStringConvertible {
    /// How long the block took, on the loop's clock.
    public let elapsed: Duration
    /// The longest time the block was allowed to run without a switch; nil if every block has to switch.
    public let maxBlockingTime: Duration?
    /// Whether only switches to the hub counted.
    public let hubOnly: Bool

    public var description: String {
        let target = hubOnly ? "to the hub" : "to another greenlet"
        let limit = maxBlockingTime.map { ", where \(decimalSeconds($0)) s are allowed" } ?? ""
        return "a block did not switch \(target) in \(decimalSeconds(elapsed)) s\(limit)"
    }
}

/// Runs `body` and returns its result; throws ``NoSwitchError`` if `body` did not switch to another greenlet, or, with
/// `hubOnly`, to the hub, which fires timers and polls descriptors.
///
/// With `maxBlockingTime`, a block that took no longer than that, on the loop's clock, need not have switched. Calls
/// can be nested. An error that `body` throws is rethrown unchanged. Reads the clock twice. Meant for tests and for
/// finding blocking code.
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
    // The greenlet may have destroyed the hub, which counts as a switch.
    guard gevent_hub_current() == hub else { return value }
    if (hubOnly ? hub.pointee.root_switch_count : gevent_switch_count(hub)) != count { return value }
    let elapsed = start.duration(to: Hub.time(hub))
    if let maxBlockingTime, elapsed <= maxBlockingTime { return value }
    throw NoSwitchError(elapsed: elapsed, maxBlockingTime: maxBlockingTime, hubOnly: hubOnly)
}
