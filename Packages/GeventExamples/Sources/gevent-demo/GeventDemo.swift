import ArgumentParser
import FoundationEssentials
import Gevent
import Glibc

@main
struct GeventDemo: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gevent-demo",
        abstract:
            "An echo server and its clients in one process and one thread, each connection a greenlet at both ends.",
        discussion: "Every round trip goes through the kernel's TCP and runs under a timeout.")

    @Option(help: "How many clients talk at the same time, at least 1.")
    var connections = 1000

    @Option(help: "For how many seconds, 1 to 3600.")
    var seconds = 5

    @Option(name: .customLong("message-bytes"), help: "The size of a message, 1 to 1048576.")
    var messageBytes = 64

    @Flag(help: "Print the summary as a JSON object.")
    var json = false

    func validate() throws {
        if connections < 1 { throw ValidationError("--connections must be at least 1, not \(connections).") }
        if !(1...3600).contains(seconds) { throw ValidationError("--seconds must be 1 to 3600, not \(seconds).") }
        if !(1...(1 << 20)).contains(messageBytes) {
            throw ValidationError("--message-bytes must be 1 to 1048576, not \(messageBytes).")
        }
    }

    func run() throws {
        // First thing, so that an unknown GEVENT_LOOP is an error to read and not a trap.
        let hub = try Hub.start()
        try reserveDescriptors()
        let load = try Load(connections: connections, messageBytes: messageBytes, on: hub)
        let progress = isatty(STDERR_FILENO) == 1 ? spawn { try showProgress(of: load) } : nil
        try load.run(for: .seconds(seconds))
        try progress?.kill()
        if let error = load.firstError { write("a client failed: \(error)\n", to: STDERR_FILENO) }
        let summary = load.summary
        print(json ? try summary.json() : summary.text)
        // What went wrong is in the summary; whoever only looks at the status learns it too.
        if summary.errors > 0 { throw ExitCode.failure }
    }

    /// Two descriptors per connection, since both ends are here, and a few for everything else.
    private func reserveDescriptors() throws {
        let others = 64
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        getrlimit(resource, &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(resource, &limit)
        let most = (Int(clamping: limit.rlim_max) - others) / 2
        if connections > most {
            throw ValidationError(
                "--connections \(connections) needs two descriptors each, and this system allows \(limit.rlim_max) per "
                    + "process: at most \(most) connections, or raise the hard limit (ulimit -Hn).")
        }
    }

    private func showProgress(of load: Load) throws {
        defer { write("\r\u{1b}[K", to: STDERR_FILENO) }
        let interval = Duration.milliseconds(200)
        var before = 0
        while true {
            try Gevent.sleep(for: interval)
            let rate = Double(load.requests - before) / (interval / .seconds(1))
            before = load.requests
            write("\r\u{1b}[K\(load.requests) requests, \(Int(rate)) per second", to: STDERR_FILENO)
        }
    }
}

private func write(_ text: String, to descriptor: CInt) {
    var text = text
    _ = text.withUTF8 { Glibc.write(descriptor, $0.baseAddress, $0.count) }
}

extension Summary {
    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }

    var text: String {
        """
        loop                \(loop)
        connections         \(connections)
        requests            \(requests) (\(Int(requestsPerSecond)) per second)
        latency             p50 \(milliseconds(p50Microseconds)), p99 \(milliseconds(p99Microseconds)), \
        max \(milliseconds(maxMicroseconds))
        greenlets at peak   \(peakGreenlets)
        memory              \(kibibytes(bytesPerGreenlet)) per greenlet with its socket, \
        \(kibibytes(peakResidentBytes)) in all at peak
        errors              \(errors)
        """
    }

    private func milliseconds(_ microseconds: Double) -> String {
        "\((microseconds / 10).rounded() / 100) ms"
    }

    private func kibibytes(_ bytes: Int) -> String {
        "\((Double(bytes) / 102.4).rounded() / 10) KiB"
    }
}
