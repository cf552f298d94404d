import Glibc

/// The results of a run. The JSON has the encoded keys and no others.
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

    // Shown in the text only.
    let maxMicroseconds: Double
    let bytesPerGreenlet: Int

    private enum CodingKeys: CodingKey {
        case loop, connections, requests, requestsPerSecond, p50Microseconds, p99Microseconds, peakGreenlets
        case peakResidentBytes, errors
    }
}

/// The resident memory of this process.
func residentBytes() -> Int { statusBytes("VmRSS:") }

/// The peak resident memory of this process. getrusage's figure survives exec, so under `swift run` it would be that of
/// the package manager.
func peakResidentBytes() -> Int { statusBytes("VmHWM:") }

/// Returns a size from /proc/self/status, which has it in KiB; 0 if the field is missing.
private func statusBytes(_ field: String) -> Int {
    guard let file = fopen("/proc/self/status", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, CInt(line.count), file) != nil {
        let words = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self).split(separator: " ")
        guard let name = words.first, name.hasPrefix(field) else { continue }
        // "VmRSS:\t   12345 kB": the tab belongs to the first word.
        return words.count > 1 ? (Int(words[1]) ?? 0) * 1024 : 0
    }
    return 0
}
