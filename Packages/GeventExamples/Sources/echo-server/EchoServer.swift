import ArgumentParser
import Gevent
import GeventNet
import Glibc

@main
struct EchoServer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "echo-server",
        abstract: "Echoes the bytes of any number of clients until Ctrl-C.",
        discussion: "Try it: nc 127.0.0.1 7777")

    @Option(help: "The numeric address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port to listen on, 0 to 65535; 0 lets the system choose one.")
    var port = 7777

    func validate() throws {
        do throws(SocketError) {
            _ = try SocketAddress(host: host, port: port)
        } catch {
            throw ValidationError("\(error)")
        }
    }

    func run() throws {
        // Comes first, so that an unknown GEVENT_LOOP prints an error instead of trapping.
        try Hub.start()
        raiseDescriptorLimit()
        let totals = Totals()
        let server = StreamServer(try SocketAddress(host: host, port: port), backlog: 4096) { socket, _ in
            try totals.serve(socket)
        }
        try server.start()
        printLine("listening on \(server.address)")
        var signals: [Registration] = []
        for number in [SIGINT, SIGTERM] {
            let registration = try onSignal(number) {
                // The next signal has the default action again.
                for signal in signals { signal.cancel() }
                printLine("stopping with \(server.handlerCount) connections open; press Ctrl-C again to exit at once")
                try server.stop()
            }
            signals.append(registration)
        }
        try server.serveForever()
        printLine(totals.description)
    }
}

/// Counts the connections and bytes served.
final class Totals: CustomStringConvertible {
    private var connections = 0
    private var bytes = 0
    private var lostConnections = 0

    func serve(_ socket: Socket) throws {
        connections += 1
        do {
            // The buffer is borrowed only while there are bytes in it, so an idle client costs none.
            while try socket.withReadBytes({ received in
                try socket.writeAll(received)
                bytes += received.count
                return !received.isEmpty
            }) {}
        } catch let error as SocketError where error.code == .connectionLost {
            // Clients may disconnect at any time; that is no error of this program.
            lostConnections += 1
        }
    }

    var description: String {
        "served \(connections) connections, \(bytes) bytes; \(lostConnections) connections were lost"
    }
}

/// Prints a line and flushes it at once, also into a pipe.
private func printLine(_ line: String) {
    print(line)
    fflush(nil)
}

/// Raises the limit of open descriptors, since each connection needs one. The usual soft limit of 1024 is meant for
/// programs that use `select`.
private func raiseDescriptorLimit() {
    var limit = rlimit()
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    getrlimit(resource, &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(resource, &limit)
}
