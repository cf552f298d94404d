internal import CMeasure
internal import CPlainLoops
internal import Gevent
internal import Glibc

#if canImport(CPlainLibev)
    internal import CPlainLibev
#endif
#if canImport(CPlainLibuv)
    internal import CPlainLibuv
#endif

/// The bare poll with none, one or many descriptors ready, compared with plain C on the same library: the cost of the
/// Loop protocol.
func polls(ready: Int) -> Case {
    Case(
        "poll-\(ready)", "poll, \(grouped(ready)) ready", group: "descriptors", reachesLoop: true,
        operations: ready < 100 ? 500_000 : 5_000, quickOperations: ready < 100 ? 50_000 : 500
    ) { hub, run in
        try needDescriptors(2 * (ready + idleDescriptors))
        guard let backend = LoopBackend.linked.first(where: { $0.name == hub.loopName }) else {
            throw CaseUnavailable("the hub's loop, \(hub.loopName), is not among the linked ones")
        }
        let descriptors = try Descriptors(ready: ready)
        defer { descriptors.close() }
        let plain = plainPolls(hub.loopName)
        let loop = try backend.makeLoop(hub.resolvedConfiguration)
        defer { loop.close() }
        for descriptor in descriptors.reads { try loop.setInterest(.read, for: descriptor, generation: 0) }
        // Both sides alternate several times, so noise affects both alike.
        let rounds = 9
        let each = max(1, run.operations / rounds)
        var ratios: [Double] = []
        for _ in 0..<(plain == nil ? 0 : rounds) {
            let ours = try nanosecondsOfPolls(loop, each, expecting: ready)
            ratios.append(ours / descriptors.nanoseconds(of: plain!, each))
        }
        try run.measure { _ = try nanosecondsOfPolls(loop, run.operations, expecting: ready) }
        if !ratios.isEmpty { run.also("in times of plain C", ratios.sorted()[rounds / 2], "×") }
    }
}

/// Watched and never ready.
private let idleDescriptors = 16

/// Returns the nanoseconds of one poll.
private func nanosecondsOfPolls(_ loop: any Loop, _ rounds: Int, expecting ready: Int) throws -> Double {
    var events = ReadyEvents(minimumCapacity: 1_024)
    var seen = 0
    let start = loop.now
    for _ in 0..<rounds {
        try loop.poll(until: .distantPast, into: &events)
        seen += events.count
        events.removeAll()
    }
    let nanoseconds = Double(start.duration(to: loop.now) / .nanoseconds(1))
    // A loop may limit the events of one poll, but each poll finds one.
    try expect(ready == 0 ? seen == 0 : seen >= rounds, "\(rounds) polls found \(seen) events")
    return nanoseconds / Double(rounds)
}

/// The same polls in C. Takes descriptors, their number, rounds, and the event count. Returns nanoseconds of all
/// rounds.
private typealias PlainPolls = (UnsafePointer<CInt>, CInt, CInt, UnsafeMutablePointer<Int64>) -> Int64

/// The C program on the library of a loop; nil for a loop without a library.
private func plainPolls(_ loop: String) -> PlainPolls? {
    switch loop {
    case "epoll": return { plain_epoll_polls($0, $1, $2, $3) }
    #if canImport(CPlainLibev)
        case "libev": return { plain_libev_polls($0, $1, $2, $3) }
    #endif
    #if canImport(CPlainLibuv)
        case "libuv": return { plain_libuv_polls($0, $1, $2, $3) }
    #endif
    default: return nil
    }
}

/// Pipes; the first `ready` ones contain data.
private struct Descriptors {
    private(set) var reads: [CInt] = []
    private var writes: [CInt] = []

    init(ready: Int) throws {
        for index in 0..<(ready + idleDescriptors) {
            var ends: [CInt] = [0, 0]
            guard measure_pipe(&ends, false) == 0 else { throw LoopError(errno: errno, operation: "pipe") }
            reads.append(ends[0])
            writes.append(ends[1])
            if index < ready { write(ends[1], "x", 1) }
        }
    }

    /// The nanoseconds of one poll.
    func nanoseconds(of polls: PlainPolls, _ rounds: Int) -> Double {
        var seen: Int64 = 0
        return Double(polls(reads, CInt(reads.count), CInt(rounds), &seen)) / Double(rounds)
    }

    func close() {
        for descriptor in reads + writes { Glibc.close(descriptor) }
    }
}
