/// The number of steps that the hub takes between two readings of the clock. It starts at one, doubles as long as the
/// steps are quick, and shrinks once they are slow. So quick steps pay a fraction of a nanosecond each for the clock,
/// and slow ones are noticed after a few.
///
/// Steps can become slow without warning; the hub then takes as many of them as it took quick ones before it reads the
/// clock. The limit learned from that is kept for the next run, and doubles again with each run that is quick.
struct ClockPace {
    private static var maxCount: Int { 128 }

    /// The upper bound of `count` at present.
    private(set) var limit = maxCount
    private var hasBeenSlow = false
    /// The number of steps that may be taken before the clock is read.
    private(set) var count = 1

    /// Begins a run.
    mutating func begin() {
        count = 1
        hasBeenSlow = false
    }

    /// Adapts `count` after `turns` steps that took `elapsed` nanoseconds; `tolerance` is the longest time that should
    /// pass between two readings.
    mutating func looked(turns: Int, elapsed: Int64, tolerance: Int64) {
        if elapsed > tolerance {
            hasBeenSlow = true
            limit = max(1, Int(Int64(turns) * tolerance / elapsed))
            count = limit
        } else {
            count = min(count * 2, limit)
        }
    }

    /// Ends the run.
    mutating func end() {
        if !hasBeenSlow { limit = min(limit * 2, ClockPace.maxCount) }
    }
}

extension Duration {
    /// Whole nanoseconds, clamped to the range from 0 to two years, so that sums and products of a few of them don't
    /// overflow.
    var wholeNanoseconds: Int64 {
        let longest = Int64(1) << 56
        let (seconds, attoseconds) = components
        if seconds < 0 { return 0 }
        if seconds >= longest / 1_000_000_000 { return longest }
        return max(0, seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }
}
