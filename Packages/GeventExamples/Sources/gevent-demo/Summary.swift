import Glibc

/// What the demo found out. The JSON has the keys that are encoded, and no others.
struct Summary: Encodable {
    let loop: String
    let connections: Int
    let requests: Int
    let requestsPerSecond: Double
    let p50Microseconds: Double
    let p99Microseconds: Double
    let peakGreenlets: Int
    let peakResidentBytes: Int
    let errors: Int

    // Only for people.
    let maxMicroseconds: Double
    let bytesPerGreenlet: Int

    private enum CodingKeys: CodingKey {
        case loop, connections, requests, requestsPerSecond, p50Microseconds, p99Microseconds, peakGreenlets
        case peakResidentBytes, errors
    }
}

/// The memory this process has in RAM now.
func residentBytes() -> Int {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    guard fgets(&line, CInt(line.count), file) != nil else { return 0 }
    let fields = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self).split(separator: " ")
    // Pages in all, and then those that are resident.
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(getpagesize()) : 0
}

/// The most it ever had.
func peakResidentBytes() -> Int {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss * 1024
}
