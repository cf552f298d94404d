/// A histogram of durations. Each bucket is at most an eighth of a power of two wide, so a value is accurate to 6
/// percent at any magnitude, and recording one is an addition.
struct Histogram {
    private static let stepsPerDoubling = 8
    private var counts = [Int](repeating: 0, count: 64 * stepsPerDoubling)
    private var count = 0
    private var largest: Int64 = 0

    mutating func record(nanoseconds: Int64) {
        let value = max(nanoseconds, 1)
        let doubling = 63 - value.leadingZeroBitCount
        // The three bits after the leading one.
        let step = Int(doubling >= 3 ? value >> Int64(doubling - 3) : value << Int64(3 - doubling)) & 7
        counts[doubling * Self.stepsPerDoubling + step] += 1
        count += 1
        largest = max(largest, value)
    }

    /// Returns the duration that the given fraction of all values does not exceed, in microseconds: the middle of its
    /// bucket.
    func quantile(_ fraction: Double) -> Double {
        if fraction >= 1 { return microseconds(Double(largest)) }
        let rank = Int((Double(count) * fraction).rounded(.up))
        var seen = 0
        for (index, bucket) in counts.enumerated() where bucket > 0 {
            seen += bucket
            if seen >= rank {
                let (doubling, step) = index.quotientAndRemainder(dividingBy: Self.stepsPerDoubling)
                let power = Double(UInt64(1) << UInt64(doubling))
                return microseconds(min(power * (1 + (Double(step) + 0.5) / 8), Double(largest)))
            }
        }
        return 0
    }

    private func microseconds(_ nanoseconds: Double) -> Double {
        (nanoseconds / 100).rounded() / 10
    }
}
