internal import CMeasure
internal import Gevent
internal import Glibc
internal import Synchronization

/// Cases that use the loop: descriptors, other threads, and the bare poll.
let loopCases: [Case] =
    [0, 1, 1_000].map(polls)
    + [1, 100, 1_000].map(pingPongs)
    + [
        Case(
            "descriptor-churn", "a descriptor's life: open, one wait, close", group: "descriptors", reachesLoop: true,
            operations: 50_000, quickOperations: 5_000
        ) { _, run in
            try run.measure {
                for _ in 0..<run.operations { try liveOnce() }
            }
        },
        Case(
            "post-sleeping", "post to a sleeping hub and back, on one CPU", group: "threads", reachesLoop: true,
            operations: 50_000, quickOperations: 5_000
        ) { hub, run in try postToSleeping(hub, run) },
        Case(
            "post-running", "post to a running hub", group: "threads", reachesLoop: true, operations: 500_000,
            quickOperations: 50_000
        ) { hub, run in try postToRunning(hub, run) },
    ]

// MARK: Descriptors

/// Pairs of greenlets that send one byte back and forth through two pipes.
private func pingPongs(pairs: Int) -> Case {
    Case(
        "pipe-ping-pong-\(pairs)", "ping-pong through pipes, \(grouped(pairs)) \(pairs == 1 ? "pair" : "pairs")",
        group: "descriptors", reachesLoop: true, operations: 200_000, quickOperations: 20_000
    ) { _, run in
        try needDescriptors(4 * pairs)
        let each = run.operations / pairs
        let gate = Greenlet {}
        let players = try (0..<pairs).flatMap { _ in
            let (ping, pong) = (try Pipe(), try Pipe())
            return [
                spawn {
                    try gate.join()
                    for _ in 0..<each {
                        try ping.put()
                        try pong.take()
                    }
                },
                spawn {
                    for _ in 0..<each {
                        try ping.take()
                        try pong.put()
                    }
                },
            ]
        }
        try sleep()
        try run.measure {
            gate.start()
            try joinAll(players, throwingErrors: true)
        }
    }
}

private func liveOnce() throws {
    let pipe = try Pipe()
    try pipe.put()
    // Waits although data is available, because the registration is what the case measures.
    _ = try pipe.readEnd.waitReadable()
    try pipe.close()
}

/// A pipe whose ends wait in the hub.
private struct Pipe {
    let readEnd: WatchedDescriptor
    let writeEnd: WatchedDescriptor

    init() throws {
        var ends: [CInt] = [0, 0]
        guard measure_pipe(&ends, true) == 0 else { throw LoopError(errno: errno, operation: "pipe") }
        readEnd = try WatchedDescriptor(ends[0])
        writeEnd = try WatchedDescriptor(ends[1])
    }

    func put() throws {
        var byte: UInt8 = 1
        while write(writeEnd.fileDescriptor, &byte, 1) != 1 {
            guard errno == EAGAIN else { throw LoopError(errno: errno, operation: "write") }
            _ = try writeEnd.waitWritable()
        }
    }

    func take() throws {
        var byte: UInt8 = 0
        while true {
            let count = read(readEnd.fileDescriptor, &byte, 1)
            if count == 1 { return }
            guard count < 0, errno == EAGAIN else { throw LoopError(errno: errno, operation: "read") }
            _ = try readEnd.waitReadable()
        }
    }

    func close() throws {
        try readEnd.close()
        try writeEnd.close()
    }
}

// MARK: Other threads

/// Runs both threads on one processor, so that a round trip takes two context switches in the kernel and does not
/// depend on the time to wake another core.
private func postToSleeping(_ hub: Hub, _ run: Run) throws {
    let (reply, end) = (try Bell(), try Bell())
    measure_bind(measure_allowed_processor(0))
    let (handle, count) = (hub.handle, run.operations)
    try run.measure {
        let poster = Thread {
            // A thread inherits its creator's processor binding.
            for _ in 0..<count {
                handle.post { reply.ring() }
                reply.hear()
            }
            end.ring()
        }
        try waitRead(end.descriptor)
        poster.join()
    }
    reply.close()
    end.close()
}

private func postToRunning(_ hub: Hub, _ run: Run) throws {
    final class Flag: Sendable {
        let isUp = Atomic<Bool>(false)
    }
    let flag = Flag()
    let (handle, count) = (hub.handle, run.operations)
    try run.measure {
        let poster = Thread {
            for _ in 1..<count { handle.post {} }
            handle.post { flag.isUp.store(true, ordering: .relaxed) }
        }
        // Something is always ready, so the hub polls without sleeping and needs no wake.
        while !flag.isUp.load(ordering: .relaxed) { try sleep() }
        poster.join()
    }
}

/// An event that one thread signals and another waits for.
private struct Bell: Sendable {
    let descriptor: CInt

    init() throws {
        descriptor = measure_bell()
        if descriptor < 0 { throw LoopError(errno: errno, operation: "eventfd") }
    }

    func ring() { measure_bell_ring(descriptor) }

    /// Blocks until the event is signalled.
    func hear() { measure_bell_hear(descriptor) }

    func close() { _ = Glibc.close(descriptor) }
}

/// A thread that runs a closure.
private struct Thread {
    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    private var thread = pthread_t()

    init(_ body: @escaping @Sendable () -> Void) {
        let error = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(Body(body)).toOpaque())
        precondition(error == 0, "no thread: error \(error)")
    }

    func join() { pthread_join(thread, nil) }
}
