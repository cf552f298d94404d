import ArgumentParser
import FoundationEssentials
import Gevent
import Glibc

@main
struct GeventDemo: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gevent-demo",
        abstract:
            "Runs an echo server and its clients on one thread, with a greenlet at each end of a connection.",
        discussion: "Each round trip uses a real TCP connection and has a timeout.")

    @Option(help: "The number of concurrent clients, at least 1.")
    var connections = 1000

    @Option(help: "The duration of the run in seconds, 1 to 3600.")
    var seconds = 5

    @Option(name: .customLong("message-bytes"), help: "The size of a message in bytes, 1 to 1048576.")
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
        // Comes first, so that an unknown GEVENT_LOOP prints an error instead of trapping.
        let hub = try Hub.start()
        try reserveDescriptors()
        let load = try Load(connections: connections, messageBytes: messageBytes, on: hub)
        let progress = isatty(STDERR_FILENO) == 1 ? spawn { try showProgress(of: load) } : nil
        try load.run(for: .seconds(seconds))
        try progress?.kill()
        if let error = load.firstError { write("a client failed: \(error)\n", to: STDERR_FILENO) }
        let summary = load.summary
        print(json ? try summary.json() : summary.text)
        // The summary counts the errors; the exit status reports them too.
        if summary.errors > 0 { throw ExitCode.failure }
    }

    /// Raises the limit of open descriptors. Each connection needs two, since both ends are in this process, and
    /// everything else needs a few.
    private func reserveDescriptors() throws {
        let otherDescriptors = 64
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        getrlimit(resource, &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(resource, &limit)
        let maxConnections = (Int(clamping: limit.rlim_max) - otherDescriptors) / 2
        if connections > maxConnections {
            throw ValidationError(
                "--connections \(connections) needs two descriptors per connection, and this system allows "
                    + "\(limit.rlim_max) per process: at most \(maxConnections) connections, or raise the hard limit "
                    + "(ulimit -Hn).")
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
        peak greenlets      \(peakGreenlets)
        memory              \(kibibytes(bytesPerGreenlet)) per greenlet including its socket, \
        \(kibibytes(peakResidentBytes)) in total at peak
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
