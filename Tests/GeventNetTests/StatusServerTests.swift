import Gevent
import GeventNet
import GeventTesting
import Glibc
import Testing

/// Everything up to the end of the stream.
private func readToEnd(_ socket: Socket) throws -> String {
    var bytes: [UInt8] = []
    while true {
        let more = try socket.read(timeout: .seconds(30))
        if more.isEmpty { return text(bytes) }
        bytes += more
    }
}

private func withStatus(
    _ address: SocketAddress = .loopback(), _ body: @escaping @Sendable (StatusServer) throws -> Void
) throws {
    try withNet { _ in
        let server = try StatusServer(address)
        server.patience = .milliseconds(20)
        try server.start()
        try body(server)
        try server.stop()
    }
}

@Suite struct StatusServerTests {
    @Test func whoSaysNothingGetsTheReportAndIsDone() throws {
        try withStatus { server in
            let sleeper = spawn { try sleep(for: .seconds(60)) }
            sleeper.name = "the sleeper"
            try sleep()
            for _ in 0..<2 {
                let client = try Socket.connect(to: server.localAddress)
                let report = try readToEnd(client)
                #expect(report.contains("loop: \(Hub.current.loopName)\n"))
                #expect(report.contains("process: \(getpid())\n"))
                #expect(report.contains("\"the sleeper\"> parked for "))
                // The acceptor, the sleeper, and who answers.
                #expect(report.contains("\ngreenlets: 3\n"))
                client.close()
            }
            try sleeper.kill()
        }
    }

    @Test func whoSendsLinesGetsAnAnswerToEach() throws {
        try withStatus { server in
            let client = try Socket.connect(to: server.localAddress)
            try client.writeAll("stats\nset")
            var answer = ""
            while !answer.contains("idle stacks: ") { answer += text(try client.read(timeout: .seconds(30))) }
            #expect(answer.hasPrefix("process: \(getpid())\n"))
            // Longer than a silent client is waited for.
            try sleep(for: .milliseconds(50))
            try client.writeAll("tings\r\n  help \n\nnonsense\nquit\nstats\n")
            let rest = try readToEnd(client)
            #expect(rest.contains("GEVENT_STACK_SIZE=1MiB (default)\n"))
            #expect(rest.contains("\ngreenlets   what each greenlet does and waits for\n"))
            #expect(rest.contains("\nno such command: nonsense\ngreenlets   what"))
            #expect(rest.hasSuffix("end of the conversation\n"))
            client.close()
        }
    }

    @Test func theLastLineNeedsNoEnd() throws {
        try withStatus { server in
            let client = try Socket.connect(to: server.localAddress)
            try client.writeAll("greenlets")
            try client.shutdown(.write)
            #expect(try readToEnd(client).contains("parked for "))
            client.close()
            // And who sends nothing but the end gets everything.
            let silent = try Socket.connect(to: server.localAddress)
            try silent.shutdown(.write)
            #expect(try readToEnd(silent).contains("idle stacks: "))
            silent.close()
        }
    }

    @Test func aLineWithoutEndIsCutAndAClientThatGoesAwayIsNoFailure() throws {
        try withStatus { server in
            var reports = 0
            Hub.current.errorHandler = { _, _ in reports += 1 }
            let client = try Socket.connect(to: server.localAddress)
            try client.writeAll(String(repeating: "x", count: 300) + "\nquit\n")
            #expect(try readToEnd(client).contains("no such command: xxx"))
            client.close()
            for _ in 0..<5 {
                let rude = try Socket.connect(to: server.localAddress)
                try rude.writeAll("settings\nsettings\nsettings\n")
                rude.close()
            }
            // Served after them.
            let last = try Socket.connect(to: server.localAddress)
            #expect(try readToEnd(last).contains("loop: "))
            last.close()
            #expect(reports == 0)
        }
    }

    @Test func aUnixPathWillDo() throws {
        let path = "/tmp/gevent-status-\(getpid()).sock"
        unlink(path)
        try withStatus(try .unix(path)) { server in
            let client = try Socket.connect(to: server.localAddress)
            #expect(try readToEnd(client).contains("loop: "))
            client.close()
        }
        #expect(access(path, F_OK) != 0)
    }

    @Test(arguments: ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", ":0"])
    func othersCannotConnectUnlessThatIsWanted(address: String) throws {
        let address = try SocketAddress(address)
        let error = socketError { _ = try StatusServer(address) }
        #expect(error?.code == .badAddress)
        #expect(error?.message.contains("allowingRemote") == true)
        let server = try StatusServer(address, allowingRemote: true)
        #expect(server.localAddress == address)
        #expect(!server.isStarted)
        for local in ["127.0.0.1:0", "127.1.2.3:0", "[::1]:0"] { _ = try StatusServer(SocketAddress(local)) }
    }

    @Test func itStartsOnceAndStops() throws {
        try withNet { _ in
            let server = try StatusServer()
            #expect(!server.isStarted)
            try server.stop()
            try server.start()
            try server.start()
            #expect(server.isStarted)
            #expect(server.localAddress.port > 0)
            // One that is being waited for does not hold up the stop.
            let client = try Socket.connect(to: server.localAddress)
            try client.writeAll("help\n")
            _ = try client.read(timeout: .seconds(30))
            try server.stop()
            #expect(!server.isStarted)
            #expect(try readToEnd(client) == "")
            client.close()
        }
    }
}
