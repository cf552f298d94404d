import Gevent
import GeventNet
import Glibc

/// The response differs from the message, or the connection ended without one.
private struct UnexpectedResponse: Error {}

/// An echo server, its clients and their measurements.
final class Load {
    private let hub: Hub
    private let server: StreamServer
    private let messageBytes: Int
    private let connections: Int
    private let residentBefore: Int
    private var sockets: [Socket] = []

    private(set) var requests = 0
    private var latencies = Histogram()
    private var errors = 0
    /// The first error; the others are probably the same.
    private(set) var firstError: (any Error)?
    private var isFinished = false
    private var elapsed = Duration.zero
    private var resident = 0

    init(connections: Int, messageBytes: Int, on hub: Hub) throws {
        self.hub = hub
        self.messageBytes = messageBytes
        self.connections = connections
        residentBefore = residentBytes()
        server = StreamServer(.loopback(), backlog: 4096) { socket, _ in
            while try socket.withReadBytes({ bytes in
                try socket.writeAll(bytes)
                return !bytes.isEmpty
            }) {}
        }
        try server.start()
        sockets.reserveCapacity(connections)
        // Connects the clients one at a time: a burst would overflow the listener's queue, and the kernel would make
        // the refused clients retry a second later.
        for _ in 0..<connections {
            sockets.append(try Socket.connect(to: server.address, timeout: .seconds(30)))
        }
    }

    /// Makes every client send one message after another for the given time.
    func run(for duration: Duration) throws {
        let message = (0..<messageBytes).map { UInt8(truncatingIfNeeded: $0) }
        let start = hub.now
        let clients = sockets.map { socket in spawn { try self.runClient(over: socket, message) } }
        sockets = []
        try Gevent.sleep(for: duration)
        isFinished = true
        // Each client ends after its current round trip, which has a timeout.
        try joinAll(clients)
        elapsed = start.duration(to: hub.now)
        resident = residentBytes()
        try server.stop()
    }

    private func runClient(over socket: Socket, _ message: [UInt8]) throws {
        defer { socket.close() }
        do {
            var before = hub.now
            while !isFinished {
                try withTimeout(.seconds(30)) { _ in
                    try socket.writeAll(message)
                    try self.receive(message, from: socket)
                }
                let after = hub.now
                latencies.record(nanoseconds: after.nanoseconds - before.nanoseconds)
                before = after
                requests += 1
            }
        } catch {  // control: rethrown; an expired limit of a round trip is an ordinary failure here
            try rethrowControl(error)
            recordFailure(error)
        }
    }

    /// Reads the response, in any number of pieces, and compares it with `message`.
    private func receive(_ message: [UInt8], from socket: Socket) throws {
        var rest = message[...]
        while !rest.isEmpty {
            let count = try socket.withReadBytes { bytes in
                bytes.elementsEqual(rest.prefix(bytes.count)) ? bytes.count : 0
            }
            if count == 0 { throw UnexpectedResponse() }
            rest = rest.dropFirst(count)
        }
    }

    private func recordFailure(_ error: any Error) {
        errors += 1
        if firstError == nil { firstError = error }
    }

    var summary: Summary {
        let peakGreenlets = hub.statistics.peakLiveGreenlets
        return Summary(
            loop: hub.loopName, connections: connections, requests: requests,
            requestsPerSecond: (Double(requests) / (elapsed / .seconds(1))).rounded(),
            p50Microseconds: latencies.quantile(0.5), p99Microseconds: latencies.quantile(0.99),
            peakGreenlets: peakGreenlets, peakResidentBytes: peakResidentBytes(), errors: errors,
            maxMicroseconds: latencies.quantile(1),
            bytesPerGreenlet: max(resident - residentBefore, 0) / max(peakGreenlets, 1))
    }
}
