internal import GeventCore
internal import Glibc

/// The memory of the process has passed a limit, one way or the other; see
/// ``Monitor/watchMemory(limit:every:reading:)``.
public enum MemoryEvent: Sendable, Hashable, CustomStringConvertible {
    /// More than `limit` bytes are used: for the first time, or more than when it was last looked at.
    ///
    /// gevent: `gevent.events.MemoryUsageThresholdExceeded`.
    case exceeded(usage: Int, limit: Int)
    /// No more than `limit` bytes are used again; when it was last looked at, it was `previous`.
    ///
    /// gevent: `gevent.events.MemoryUsageUnderThreshold`.
    case recovered(usage: Int, limit: Int, previous: Int)

    public var description: String {
        switch self {
        case .exceeded(let usage, let limit): "the process uses \(usage) bytes of memory, more than \(limit)"
        case .recovered(let usage, let limit, let previous):
            "the process uses \(usage) bytes of memory, no more than \(limit) again, after \(previous)"
        }
    }
}

/// Decides what is an event.
struct MemoryWatch {
    let limit: Int
    /// The last usage if it was above the limit, else 0.
    private var exceeded = 0

    init(limit: Int) { self.limit = limit }

    mutating func judge(_ usage: Int) -> MemoryEvent? {
        let previous = exceeded
        exceeded = usage > limit ? usage : 0
        if usage > max(limit, previous) { return .exceeded(usage: usage, limit: limit) }
        if usage <= limit && previous > 0 { return .recovered(usage: usage, limit: limit, previous: previous) }
        return nil
    }
}

/// Bytes of the process's memory that are in RAM, as the kernel counts them; nil if it does not tell.
func residentMemory() -> Int? {
    let file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
    if file < 0 { return nil }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 256)
    let count = read(file, &bytes, bytes.count)
    if count <= 0 { return nil }
    // Sizes in pages: all of the address space, what is resident, and more.
    let fields = String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: " ")
    guard fields.count > 1, let pages = Int(fields[1]) else { return nil }
    return pages * sysconf(CInt(_SC_PAGESIZE))
}
