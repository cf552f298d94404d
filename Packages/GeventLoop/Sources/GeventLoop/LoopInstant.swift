/// A point in a loop's time: nanoseconds since an origin of the loop's choosing.
///
/// The clock never goes back. On a kernel loop the origin is `CLOCK_MONOTONIC`'s, on a virtual loop it is zero; two
/// instants can be compared only if they come from the same loop.
@frozen
public struct LoopInstant: InstantProtocol, Sendable, CustomStringConvertible {
    /// Nanoseconds since the loop's origin.
    public var nanoseconds: Int64

    /// The instant that many nanoseconds after the loop's origin.
    @inlinable
    public init(nanoseconds: Int64) {
        self.nanoseconds = nanoseconds
    }

    /// Later than any deadline that can be computed: a poll until then waits for events and wakes only.
    @inlinable
    public static var distantFuture: LoopInstant { LoopInstant(nanoseconds: .max) }

    /// Earlier than any clock reading: a poll until then never blocks, and a loop need not read its clock to know it.
    @inlinable
    public static var distantPast: LoopInstant { LoopInstant(nanoseconds: .min) }

    /// This instant moved by a duration, forwards or (if it is negative) backwards.
    ///
    /// Fractions of a nanosecond round up, so that waiting until the result never ends early. What does not fit
    /// becomes ``distantFuture`` or ``distantPast``: a timeout of ten thousand years is simply one that never fires.
    @inlinable
    public func advanced(by duration: Duration) -> LoopInstant {
        let attoseconds = duration.attoseconds
        // Nearly every duration there is: less than 2.6 hours. Divided by 2⁹ it fits 64 bits, and 2⁹ · 5⁹ is a
        // nanosecond.
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
        // Components that do not fit would trap.
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

    /// How long it is from this instant to the other; negative if the other is earlier.
    @inlinable
    public func duration(to other: LoopInstant) -> Duration {
        // `Duration` is wider than 64 bits of nanoseconds, so this cannot overflow.
        .nanoseconds(other.nanoseconds) - .nanoseconds(nanoseconds)
    }

    /// Whether the left instant comes before the right one.
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
