internal import GeventCore
internal import Glibc

/// A change of the process's memory usage across a limit; see ``Monitor/watchMemory(limit:every:reading:)``.
public enum MemoryEvent: Sendable, Hashable, CustomStringConvertible {
    /// The usage is above `limit` bytes, and either was not before or has grown since the last check.
    ///
    /// gevent: `gevent.events.MemoryUsageThresholdExceeded`.
    case exceeded(usage: Int, limit: Int)
    /// The usage is down to `limit` bytes or less. At the last check it was `previous`.
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

/// A memory limit, which turns measured usages into events.
struct MemoryWatch {
    let limit: Int
    /// The last usage if it was above the limit; otherwise 0.
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

/// Returns the resident memory of the process in bytes, as the kernel counts it; nil if it is unknown.
func residentMemory() -> Int? {
    let file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
    if file < 0 { return nil }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 256)
    let count = read(file, &bytes, bytes.count)
    if count <= 0 { return nil }
    // The fields are numbers of pages: the address space, the resident pages, and more.
    let fields = String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: " ")
    guard fields.count > 1, let pages = Int(fields[1]) else { return nil }
    return pages * sysconf(CInt(_SC_PAGESIZE))
}
