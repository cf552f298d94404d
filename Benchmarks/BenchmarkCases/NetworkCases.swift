internal import CMeasure
internal import Gevent
internal import GeventNet
internal import Glibc

/// A TCP server whose clients are another process, on another processor if there is one.
let networkCases: [Case] =
    [1, 100, 1_000, 10_000].map(echo)
    + [
        Case(
            "accept-close", "accept and close, server CPU per connection", group: "network", figure: .processor,
            reachesLoop: true, operations: 40_000, quickOperations: 8_000
        ) { _, run in try acceptAndClose(run) },
        Case(
            "idle-connections-10000", "an idle TCP connection, of 10,000", group: "memory", figure: .memory,
            reachesLoop: true, operations: 10_000, quickOperations: 10_000
        ) { _, run in try idleConnections(run) },
    ]

/// All connections are active: each has a request in flight at all times.
private func echo(connections: Int) -> Case {
    // With one connection, both sides sleep between two requests. With 10,000, connecting alone takes long.
    let (operations, quickOperations) =
        switch connections {
        case 1: (25_000, 10_000)
        case 10_000: (100_000, 40_000)
        default: (200_000, 40_000)
        }
    return Case(
        "tcp-echo-\(connections)",
        "TCP echo, 64 bytes, \(grouped(connections)) active \(connections == 1 ? "connection" : "connections"), "
            + "server CPU per request",
        group: "network", figure: .processor, reachesLoop: true, operations: operations,
        quickOperations: quickOperations
    ) { _, run in
        try needDescriptors(connections)
        let server = try startServer { socket in try echo(socket) }
        try serve(server, run, "echo", connections: connections, bytes: 64)
    }
}

private func acceptAndClose(_ run: Run) throws {
    // A connection is closed when its handler returns.
    let server = try startServer { _ in }
    try serve(server, run, "accept", connections: 64)
}

private func echo(_ socket: Socket) throws {
    while try socket.withReadBytes({ received in
        try socket.writeAll(received)
        return !received.isEmpty
    }) {}
}

private func startServer(_ handler: @escaping (Socket) throws -> Void) throws -> StreamServer {
    // This thread and new threads stay on the first processor; the clients get the second.
    measure_bind(measure_allowed_processor(0))
    let server = StreamServer(.loopback(), backlog: 4_096) { socket, _ in try handler(socket) }
    try server.start()
    return server
}

/// Serves the clients of one load generator until it has made its requests.
private func serve(_ server: StreamServer, _ run: Run, _ mode: String, connections: Int, bytes: Int? = nil) throws {
    var arguments = ["--port", "\(server.port)", "--connections", "\(connections)", "--requests", "\(run.operations)"]
    arguments += ["--server-pid", "\(getpid())"]
    if let bytes { arguments += ["--bytes", "\(bytes)"] }
    let load = try LoadProcess(mode, arguments)
    defer { load.end() }
    try load.waitForStart()
    var result = ""
    try run.measure { result = try load.readResult() }
    // Measured by the generator, as for the peers: from its first request to its last answer, without the closing of
    // its connections.
    run.record(processorNanosecondsEach: try load.number("serverProcessorNanosecondsPerRequest", in: result))
    run.also("requests a second", try load.number("requestsPerSecond", in: result), "")
    run.also("median latency", try load.number("p50Microseconds", in: result), "µs")
    run.also("99th percentile of the latency", try load.number("p99Microseconds", in: result), "µs")
    try server.stop()
}

private func idleConnections(_ run: Run) throws {
    try needDescriptors(run.operations)
    let server = try startServer { socket in try echo(socket) }
    // Makes the allocations that are shared by all later connections before the measurement.
    let few = try LoadProcess("idle", ["--port", "\(server.port)", "--connections", "10"])
    try few.waitForStart()
    let before = measure_memory_bytes(0)
    let load = try LoadProcess("idle", ["--port", "\(server.port)", "--connections", "\(run.operations)"])
    defer {
        load.end()
        few.end()
    }
    // Each has sent a byte and received the echo: its greenlet has run, and waits.
    try load.waitForStart()
    run.record(bytesEach: Double(measure_memory_bytes(0) - before) / Double(run.operations))
    try run.measure {}
}
