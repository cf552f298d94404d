import ArgumentParser
import Gevent
import GeventNet
import Glibc

@main
struct EchoServer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "echo-server",
        abstract: "Sends back whatever it is sent, to any number of clients, until Ctrl-C.",
        discussion: "Try it: nc 127.0.0.1 7777")

    @Option(help: "The numeric address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port to listen on, 0 to 65535; 0 takes a free one.")
    var port = 7777

    func validate() throws {
        do throws(SocketError) {
            _ = try SocketAddress(host: host, port: port)
        } catch {
            throw ValidationError("\(error)")
        }
    }

    func run() throws {
        // First thing, so that an unknown GEVENT_LOOP is an error to read and not a trap.
        try Hub.start()
        raiseDescriptorLimit()
        let totals = Totals()
        let server = StreamServer(try SocketAddress(host: host, port: port), backlog: 4096) { socket, _ in
            try totals.serve(socket)
        }
        try server.start()
        say("listening on \(server.address)")
        var signals: [Registration] = []
        for number in [SIGINT, SIGTERM] {
            let registration = try onSignal(number) {
                // The next one meets the default action again.
                for signal in signals { signal.cancel() }
                say("stopping with \(server.handlerCount) connections open; Ctrl-C again ends it at once")
                try server.stop()
            }
            signals.append(registration)
        }
        try server.serveForever()
        say(totals.description)
    }
}

/// What was served.
final class Totals: CustomStringConvertible {
    private var connections = 0
    private var bytes = 0
    private var brokenConnections = 0

    func serve(_ socket: Socket) throws {
        connections += 1
        do {
            // The bytes stand in a buffer that is lent only while there are any: a quiet client costs none.
            while try socket.withReadBytes({ received in
                try socket.writeAll(received)
                bytes += received.count
                return !received.isEmpty
            }) {}
        } catch let error as SocketError where error.code == .connectionLost {
            // Clients come and go as they please; that is not an error of this program.
            brokenConnections += 1
        }
    }

    var description: String {
        "served \(connections) connections, \(bytes) bytes; \(brokenConnections) connections were broken off"
    }
}

/// Prints a line at once, also into a pipe.
private func say(_ line: String) {
    print(line)
    fflush(nil)
}

/// Each connection is a descriptor, and the usual soft limit of 1024 is meant for programs that use `select`.
private func raiseDescriptorLimit() {
    var limit = rlimit()
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    getrlimit(resource, &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(resource, &limit)
}
