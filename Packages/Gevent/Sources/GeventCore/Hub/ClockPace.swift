/// How many turns are taken between two looks at the clock: one at first, then twice as many as long as they are quick,
/// and fewer again once they are slow. So quick turns pay a fraction of a nanosecond for the clock, and slow ones are
/// noticed after few.
///
/// Turns can become slow without warning, and then as many are taken as quick ones were. What was learned from that is
/// kept for the next step, and forgotten as quickly as it was learned when turns are quick again.
struct ClockPace {
    private static var mostBetweenLooks: Int { 128 }

    /// The most there may be at present.
    private(set) var limit = mostBetweenLooks
    private var hasBeenSlow = false
    /// How many may be taken now.
    private(set) var count = 1

    /// A step begins.
    mutating func begin() {
        count = 1
        hasBeenSlow = false
    }

    /// So many turns took so many nanoseconds, where `tolerance` is what may pass between two looks.
    mutating func looked(turns: Int, elapsed: Int64, tolerance: Int64) {
        if elapsed > tolerance {
            hasBeenSlow = true
            limit = max(1, Int(Int64(turns) * tolerance / elapsed))
            count = limit
        } else {
            count = min(count * 2, limit)
        }
    }

    /// The step is over.
    mutating func end() {
        if !hasBeenSlow { limit = min(limit * 2, ClockPace.mostBetweenLooks) }
    }
}

extension Duration {
    /// Nanoseconds, from 0 to two years, which sums and products of a few of them do not leave.
    var wholeNanoseconds: Int64 {
        let longest = Int64(1) << 56
        let (seconds, attoseconds) = components
        if seconds < 0 { return 0 }
        if seconds >= longest / 1_000_000_000 { return longest }
        return max(0, seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }
}
