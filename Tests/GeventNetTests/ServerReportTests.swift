import Gevent
import GeventTesting
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import GeventNet

/// The contents of reports about servers and their connections.
@Suite struct ServerReportTests {
    @Test func aDumpShowsTheProgramsOwnFunctionsAndThePeer() throws {
        try withNet { _ in
            var reads: UInt = 0
            let server = StreamServer(.loopback()) { socket, _ in
                reads = #line + 1
                _ = try socket.read()
            }
            let starts = #line + 1
            try server.start()
            let client = try Socket.connect(to: server.address)
            try eventually("the handler runs") { server.handlerCount == 1 }
            let dump = dumpGreenlets()
            let lines = dump.split(separator: "\n").map { String($0.drop { " │├└─".contains($0) }) }
            let own = try #require(
                lines.firstIndex { $0.hasPrefix("<Connection \"\(try client.localAddress)\"> ") }, "\(dump)")
            let place = "(ServerReportTests.swift:\(reads))"
            #expect(lines[own + 1].hasPrefix("at ") && lines[own + 1].hasSuffix(place), "\(dump)")
            let spawn = try #require(lines[(own + 1)...].firstIndex { $0.hasPrefix("spawned by a greenlet that") })
            #expect(lines[spawn].hasSuffix("(ServerReportTests.swift:\(starts))"), "\(dump)")
            let acceptor = try #require(lines.firstIndex { $0.contains("\"accept on \(server.address)\"") })
            #expect(lines[acceptor + 1].hasPrefix("spawned at "), "\(dump)")
            #expect(lines[acceptor + 1].hasSuffix("(ServerReportTests.swift:\(starts))"), "\(dump)")
            #expect(!dump.contains("(StreamServer.swift:") && !dump.contains("(SocketReading.swift:"), "\(dump)")
            client.close()
            try server.stop()
        }
    }

    @Test func theReportOfAnErrorNamesThePeerAndWhereTheServerWasStarted() throws {
        struct Oops: Error {}
        try withNet { hub in
            var reports: [String] = []
            hub.errorOutput = { reports.append($0) }
            try withServer({ _, _ in throw Oops() }) { server in
                let client = try Socket.connect(to: server.address)
                let peer = try client.localAddress
                #expect(try client.read() == [])
                try eventually("the error is reported") { !reports.isEmpty }
                client.close()
                let lines = reports[0].split(separator: "\n")
                #expect(lines[0] == "gevent: <Connection \"\(peer)\"> failed with Oops: Oops()")
                #expect(lines[1].hasPrefix("    spawned by a greenlet that was spawned at "))
                #expect(!reports[0].contains("(StreamServer.swift:"), "\(reports[0])")
            }
        }
    }

    @Test func aConnectionOfAUnixSocketIsNamedByTheServersAddress() throws {
        try withNet { _ in
            let address = try SocketAddress.unix("@gevent-net-names-\(getpid())")
            var names: [String] = []
            let server = StreamServer(address) { _, peer in
                names.append(AnyGreenlet.current.name)
                AnyGreenlet.current.name = "mine"
                names.append("\(AnyGreenlet.current)")
                #expect(peer == .unnamed)
            }
            try server.start()
            let client = try Socket.connect(to: address)
            #expect(try client.read() == [])
            client.close()
            try server.stop()
            #expect(names == ["\(address)", "<Connection \"mine\">"])
        }
    }

    /// The monitor can't call a greenlet's code, so it reads the name from the greenlet's stack.
    @Test func aMonitorsReportNamesThePeer() throws {
        try withNet { hub in
            let monitor = try hub.startMonitor()
            monitor.maxBlockingTime = .milliseconds(20)
            monitor.printsBlockingReports = false
            let reports = Names()
            monitor.onBlocking { report in reports.append(report.greenlet) }
            try withServer({ _, peer in
                // Blocks the thread until the monitor has reported it, for a minute at most. On a busy machine the
                // monitor may report main first.
                block(forSeconds: 60) { reports.contain("<Connection \"\(peer)\">") }
            }) { server in
                let client = try Socket.connect(to: server.address)
                let peer = try client.localAddress
                #expect(try client.read() == [])
                client.close()
                #expect(reports.contain("<Connection \"\(peer)\">"), "\(reports.all)")
            }
            hub.stopMonitor()
        }
    }

    @Test(arguments: [
        "127.0.0.1:80", "255.255.255.255:65535", "[::1]:0", "[::]:1", "[1::]:1", "[::ffff:10.1.2.3]:1", "[::1.2.3.4]:1",
        "[1:0:0:2::3]:1", "[0:1::1]:1", "[1:2:3:4:5:6:7:8]:1", "[2001:db8::a0f]:1", "[fe80::1%1]:65535", "unix:/a/b",
        "unix:@name",
    ])
    func theNameInASignalHandlerIsTheDescription(text: String) throws {
        let address = try SocketAddress(text)
        var name = ""
        address.withCText { name = String(cString: $0) }
        #expect(name == address.description)
    }

    @Test func aPeersResetIsQuietAndAnyOtherFailureIsNot() throws {
        try withNet { hub in
            var reports: [SocketError] = []
            hub.errorHandler = { error, _ in (error as? SocketError).map { reports.append($0) } }
            let (backend, backendPeer) = try tcpPair()
            try backendPeer.setOption(.linger, to: .zero)
            backendPeer.close()
            var served = 0
            let handler: StreamServer.Handler = { socket, _ in
                let kind = text(try socket.readExactly(1))
                served += 1
                switch kind {
                case "b": _ = try backend.read()
                case "e": _ = try socket.readExactly(10)
                default: while true { _ = try socket.readExactly(1) }
                }
            }
            try withServer(handler) { server in
                func reset(after message: String) throws {
                    let client = try Socket.connect(to: server.address)
                    let before = served
                    try client.writeAll(message)
                    try eventually("the handler runs") { served > before }
                    try client.setOption(.linger, to: .zero)
                    client.close()
                    try eventually("the handler ends") { server.handlerCount == 0 }
                    try sleep()
                }
                for _ in 0..<3 { try reset(after: "r") }
                #expect(reports == [])
                // The loss of another connection is a failure of the program.
                try reset(after: "b")
                #expect(reports.map(\.code) == [.connectionLost])
                let client = try Socket.connect(to: server.address)
                try client.writeAll("e")
                try client.shutdown(.write)
                #expect(try client.read() == [])
                try eventually("the error is reported") { reports.count == 2 }
                #expect(reports.last?.code == .endOfStream)
                client.close()
            }
            backend.close()
        }
    }
}

/// The names in reports, which the monitor's thread appends.
private final class Names: Sendable {
    private let names = Mutex<[String]>([])
    func append(_ name: String) { names.withLock { $0.append(name) } }
    func contain(_ name: String) -> Bool { names.withLock { $0.contains(name) } }
    var all: [String] { names.withLock { $0 } }
}
