/// A point in a loop's time, in nanoseconds since an origin that the loop chooses.
///
/// The clock never moves backwards. On a kernel loop the origin is that of `CLOCK_MONOTONIC`, on a virtual loop it is
/// zero. Only instants of the same loop can be compared.
@frozen
public struct LoopInstant: InstantProtocol, Sendable, CustomStringConvertible {
    /// Nanoseconds since the loop's origin.
    public var nanoseconds: Int64

    /// Creates the instant that many nanoseconds after the loop's origin.
    @inlinable
    public init(nanoseconds: Int64) {
        self.nanoseconds = nanoseconds
    }

    /// An instant later than any computed deadline: a poll until then waits for events and wakes only.
    @inlinable
    public static var distantFuture: LoopInstant { LoopInstant(nanoseconds: .max) }

    /// An instant earlier than any clock reading: a poll until then never blocks, and a loop need not read its clock
    /// for it.
    @inlinable
    public static var distantPast: LoopInstant { LoopInstant(nanoseconds: .min) }

    /// Returns this instant moved by a duration, forwards or (if it is negative) backwards.
    ///
    /// Fractions of a nanosecond round up, so that waiting until the result never ends early. Results out of range
    /// become ``distantFuture`` or ``distantPast``: a timeout of ten thousand years never fires.
    @inlinable
    public func advanced(by duration: Duration) -> LoopInstant {
        let attoseconds = duration.attoseconds
        // Fast path for durations below 2.6 hours. Divided by 2⁹ they fit 64 bits, and a nanosecond is 2⁹ · 5⁹
        // attoseconds.
        if attoseconds >= 0 && attoseconds < 1 << 73 {
            var step = UInt64(truncatingIfNeeded: attoseconds >> 9) / 1_953_125
            if UInt64(truncatingIfNeeded: attoseconds) != step &* 1_000_000_000 { step += 1 }
            let (moved, overflows) = nanoseconds.addingReportingOverflow(Int64(truncatingIfNeeded: step))
            return overflows ? .distantFuture : LoopInstant(nanoseconds: moved)
        }
        return advancedFar(by: duration)
    }

    @usableFromInline
    func advancedFar(by duration: Duration) -> LoopInstant {
        // `components` traps if the seconds do not fit 64 bits.
        if duration >= .seconds(10_000_000_000) { return .distantFuture }
        if duration <= .seconds(-10_000_000_000) { return .distantPast }
        let (seconds, attoseconds) = duration.components
        var fraction = attoseconds / 1_000_000_000
        // The remainder has the duration's sign. Division truncates, which for a negative value is already up.
        if attoseconds % 1_000_000_000 > 0 { fraction += 1 }
        let (whole, wholeOverflows) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (step, stepOverflows) = whole.addingReportingOverflow(fraction)
        if wholeOverflows || stepOverflows { return seconds < 0 ? .distantPast : .distantFuture }
        let (moved, overflows) = nanoseconds.addingReportingOverflow(step)
        if overflows { return step < 0 ? .distantPast : .distantFuture }
        return LoopInstant(nanoseconds: moved)
    }

    /// Returns the duration from this instant to the other; it is negative if the other is earlier.
    @inlinable
    public func duration(to other: LoopInstant) -> Duration {
        // `Duration` is wider than 64 bits of nanoseconds, so this cannot overflow.
        .nanoseconds(other.nanoseconds) - .nanoseconds(nanoseconds)
    }

    /// Returns whether the left instant is before the right one.
    @inlinable
    public static func < (left: LoopInstant, right: LoopInstant) -> Bool {
        left.nanoseconds < right.nanoseconds
    }

    /// The instant in seconds with nine digits, such as "12.000000345 s".
    public var description: String {
        switch self {
        case .distantFuture: return "distant future"
        case .distantPast: return "distant past"
        default:
            let (seconds, fraction) = nanoseconds.magnitude.quotientAndRemainder(dividingBy: 1_000_000_000)
            let digits = String(fraction)
            let padding = String(repeating: "0", count: 9 - digits.count)
            return "\(nanoseconds < 0 ? "-" : "")\(seconds).\(padding)\(digits) s"
        }
    }
}
