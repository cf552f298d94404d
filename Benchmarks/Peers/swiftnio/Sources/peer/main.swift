// SwiftNIO with one event loop.

import Dispatch
import Glibc
import NIOCore
import NIOPosix

let quick = CommandLine.arguments.dropFirst(2).first == "--quick"

func scaled(_ count: Int) -> Int { quick ? count / 10 : count }

func report(_ name: String, _ operations: Int, _ spent: Duration) {
    let nanoseconds = spent / .nanoseconds(1) / Double(operations)
    print("{\"case\": \"\(name)\", \"operations\": \(operations), \"nanoseconds\": \(nanoseconds)}")
}

let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

final class Echo: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.write(data, promise: nil) }
    func channelReadComplete(context: ChannelHandlerContext) { context.flush() }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

final class CloseAtOnce: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    func channelActive(context: ChannelHandlerContext) { context.close(promise: nil) }
}

func serve(echoes: Bool) throws {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    let bootstrap = ServerBootstrap(group: group)
        .serverChannelOption(ChannelOptions.backlog, value: 4096)
        .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
        .serverChannelOption(ChannelOptions.maxMessagesPerRead, value: 100)
        .childChannelOption(ChannelOptions.socketOption(.tcp_nodelay), value: 1)
        .childChannelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                if echoes {
                    try channel.pipeline.syncOperations.addHandler(Echo())
                } else {
                    try channel.pipeline.syncOperations.addHandler(CloseAtOnce())
                }
            }
        }
    let channel = try bootstrap.bind(host: "127.0.0.1", port: 0).wait()
    // Not print, which would keep the line in its buffer.
    let line = "{\"port\": \(channel.localAddress?.port ?? 0)}\n"
    write(STDOUT_FILENO, line, line.utf8.count)
    _ = readLine()
    exit(0)
}

/// Scheduled tasks: starts all of them, then cancels them. A cancel searches all pending tasks.
func timers(_ name: String, cancelling: Bool) {
    let count = 100_000
    let loop = group.next()
    let done = DispatchSemaphore(value: 0)
    loop.execute {
        var start = ContinuousClock.now
        let tasks = (0..<count).map { loop.scheduleTask(in: .milliseconds(Int64(60_000 + $0 * 7919 % 600_000))) {} }
        let started = ContinuousClock.now - start
        start = .now
        for task in tasks { task.cancel() }
        let cancelled = ContinuousClock.now - start
        report(name, count, cancelling ? cancelled : started)
        done.signal()
    }
    done.wait()
}

func processorTime() -> Duration {
    var now = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now)
    return .seconds(now.tv_sec) + .nanoseconds(now.tv_nsec)
}

/// The moments of run-case, in microseconds.
func randomMoments(_ count: Int) -> [Int] {
    var state: UInt64 = 1
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return 100_000 + Int(state >> 33) % (count * 10)
    }
}

func timersRandom(_ name: String) {
    let count = scaled(100_000)
    let moments = randomMoments(count)
    let loop = group.next()
    let done = DispatchSemaphore(value: 0)
    loop.execute {
        let start = processorTime()
        let fired = NIOLoopBound(Counter(), eventLoop: loop)
        for moment in moments {
            loop.scheduleTask(in: .microseconds(Int64(moment))) {
                fired.value.count += 1
                if fired.value.count == count {
                    report(name, count, processorTime() - start)
                    done.signal()
                }
            }
        }
    }
    done.wait()
}

final class Counter {
    var count = 0
}

/// Another thread wakes the sleeping loop, and is woken by it: a round trip.
func wake(_ name: String) {
    let count = scaled(200_000)
    let loop = group.next()
    let semaphore = DispatchSemaphore(value: 0)
    let start = ContinuousClock.now
    for _ in 0..<count {
        loop.execute { semaphore.signal() }
        semaphore.wait()
    }
    report(name, count, ContinuousClock.now - start)
}

let cases: [(String, (String) throws -> Void)] = [
    ("timers-start", { timers($0, cancelling: false) }),
    ("timers-cancel", { timers($0, cancelling: true) }),
    ("timers-random", { timersRandom($0) }),
    ("post-sleeping", { wake($0) }),
    ("serve-echo", { _ in try serve(echoes: true) }),
    ("serve-close", { _ in try serve(echoes: false) }),
]

let argument = CommandLine.arguments.dropFirst().first
if argument == "--list" {
    for (name, _) in cases { print(name) }
} else if let found = cases.first(where: { $0.0 == argument }) {
    try found.1(found.0)
} else {
    let usage = "usage: peer --list | CASE [--quick]\n"
    write(STDERR_FILENO, usage, usage.utf8.count)
    exit(64)
}
