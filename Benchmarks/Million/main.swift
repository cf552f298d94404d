// A million greenlets asleep at once: what each costs, and that all wake and end.
//
//     swift run -c release --package-path Benchmarks Million [count]

import Gevent
import Glibc

/// What the kernel says of this process.
struct Footprint {
    let residentBytes: Int
    let memoryMaps: Int

    init() {
        residentBytes = Footprint.residentPages() * Int(sysconf(CInt(_SC_PAGESIZE)))
        memoryMaps = Footprint.contents(of: "/proc/self/maps").count { $0 == UInt8(ascii: "\n") }
    }

    private static func residentPages() -> Int {
        let fields = String(decoding: contents(of: "/proc/self/statm"), as: UTF8.self).split(separator: " ")
        return fields.count > 1 ? Int(fields[1]) ?? 0 : 0
    }

    private static func contents(of path: String) -> [UInt8] {
        let file = open(path, O_RDONLY)
        guard file >= 0 else { return [] }
        defer { close(file) }
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(file, &buffer, buffer.count)
            if count <= 0 { return all }
            all += buffer[..<count]
        }
    }
}

func seconds(since start: LoopInstant, _ hub: Hub) -> Double { start.duration(to: hub.now) / .seconds(1) }

func rounded(_ value: Double) -> Double { (value * 100).rounded() / 100 }

func measure(_ count: Int) throws {
    let hub = try Hub.start()
    print("loop: \(hub.loopName), guard pages: \(RuntimeFacts.current.guardPages.rawValue)")
    let before = Footprint()
    var start = hub.now
    var ended = 0
    // Asleep until all are: however long that takes, none wakes before.
    let everybodySleeps = Greenlet {}
    for index in 0..<count {
        spawn {
            try everybodySleeps.join()
            try sleep(for: .milliseconds(1_000 + index % 1_000))
            ended += 1
        }
    }
    while hub.statistics.liveGreenlets < count { try sleep() }
    print("spawned and parked in \(rounded(seconds(since: start, hub))) s")
    everybodySleeps.start()
    start = hub.now
    while hub.statistics.pendingTimers < count { try sleep() }
    let parked = Footprint()
    print("asleep: \(hub.statistics.pendingTimers) greenlets")
    print("  resident bytes each: \((parked.residentBytes - before.residentBytes) / count)")
    print("  memory maps: \(parked.memoryMaps)")
    _ = try hub.join()
    print("woken and ended: \(ended) in \(rounded(seconds(since: start, hub))) s, of which they slept up to 2")
    if ended != count { fatalError("\(count - ended) did not wake") }
}

do {
    try measure(CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1]) ?? 1_000_000 : 1_000_000)
} catch {
    fatalError("\(error)")
}
