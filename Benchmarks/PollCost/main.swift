// What the Loop protocol costs: a poll with nothing, one and a thousand descriptors ready, on each linked loop, beside
// the same in plain C. Both sides in turn, several times; medians and the ratio.
//
//     swift run -c release --package-path Benchmarks PollCost

import CPlainLoops
import GeventEpoll
import GeventLoop
import Glibc

/// Pipes, `ready` of which have something to read.
struct Descriptors {
    var reads: [CInt] = []
    var writes: [CInt] = []

    init(ready: Int, idle: Int) {
        for index in 0..<(ready + idle) {
            var ends: [CInt] = [0, 0]
            guard pipe(&ends) == 0 else { fatalError("no pipe: errno \(errno); raise the limit with ulimit -n 4096") }
            reads.append(ends[0])
            writes.append(ends[1])
            if index < ready { write(ends[1], "x", 1) }
        }
    }

    func close() {
        for descriptor in reads + writes { Glibc.close(descriptor) }
    }
}

/// Nanoseconds a poll.
func ours(_ backend: LoopBackend, _ descriptors: Descriptors, rounds: Int) throws -> Double {
    let loop = try backend.makeLoop()
    defer { loop.close() }
    for descriptor in descriptors.reads { try loop.setInterest(.read, for: descriptor, generation: 0) }
    var events = ReadyEvents()
    var seen = 0
    let start = loop.now
    for _ in 0..<rounds {
        try loop.poll(until: .distantPast, into: &events)
        seen += events.count
        events.removeAll()
    }
    precondition(seen >= 0)
    return Double(start.duration(to: loop.now) / .nanoseconds(1)) / Double(rounds)
}

typealias Plain = (UnsafePointer<CInt>, CInt, CInt, UnsafeMutablePointer<Int64>) -> Int64

func plain(_ polls: Plain, _ descriptors: Descriptors, rounds: Int) -> Double {
    var seen: Int64 = 0
    return Double(polls(descriptors.reads, CInt(descriptors.reads.count), CInt(rounds), &seen)) / Double(rounds)
}

var programs: [String: Plain] = ["epoll": { plain_epoll_polls($0, $1, $2, $3) }]
#if HAS_LIBEV
    programs["libev"] = { plain_libev_polls($0, $1, $2, $3) }
#endif
#if HAS_LIBUV
    programs["libuv"] = { plain_libuv_polls($0, $1, $2, $3) }
#endif

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

func padded(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
}

var limit = rlimit()
getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
limit.rlim_cur = limit.rlim_max
setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)

print("loop        ready   ours, ns a poll   plain C   ratio")
for backend in LoopBackend.linked {
    guard let program = programs[backend.name] else { continue }
    for (ready, rounds) in [(0, 300_000), (1, 300_000), (1_000, 3_000)] {
        let descriptors = Descriptors(ready: ready, idle: 16)
        var mine: [Double] = []
        var theirs: [Double] = []
        for _ in 0..<11 {
            mine.append(try ours(backend, descriptors, rounds: rounds))
            theirs.append(plain(program, descriptors, rounds: rounds))
        }
        descriptors.close()
        let ratio = median(zip(mine, theirs).map { $0 / $1 })
        print(
            backend.name + String(repeating: " ", count: 8 - backend.name.count), padded("\(ready)", 8),
            padded("\(Int(median(mine)))", 17), padded("\(Int(median(theirs)))", 9),
            padded("\((ratio * 100).rounded() / 100)", 7))
    }
}
