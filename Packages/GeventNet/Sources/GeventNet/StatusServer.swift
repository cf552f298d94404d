internal import Gevent
internal import Glibc

/// Tells whoever connects what the greenlets of its thread do.
///
/// ```swift
/// let status = try StatusServer(SocketAddress("127.0.0.1:7001"))
/// try status.start()
/// ```
///
/// `nc 127.0.0.1 7001` then prints a report of the greenlets and the statistics of the hub, and is done. A client that
/// sends a line within ``patience`` is asked for more instead, and gets an answer to each: `greenlets`, `stats`,
/// `settings`, `help`, `quit`. So `echo settings | nc …` asks for one thing, and `(echo help; cat) | nc …` begins a
/// conversation.
///
/// Whoever can connect can read it: there is no password. So it listens on this machine only, unless told otherwise. It
/// answers only when the hub's thread gets round to it: of a greenlet that blocks the thread, a `Monitor` tells.
///
/// gevent: `gevent.backdoor.BackdoorServer`, which offers an interpreter.
public final class StatusServer {
    /// How long a client may take for its first line before it gets the whole report; 200 ms.
    public var patience = Duration.milliseconds(200)

    /// How long a conversation may be silent before it is ended; five minutes. A client that does not take what it
    /// asked for is given as long.
    public var idleTimeout = Duration.seconds(300)

    /// Most clients at a time; others wait.
    private static let limit = 8

    private let address: SocketAddress
    private var server: StreamServer?

    /// A server that will listen on `address`. Never parks.
    ///
    /// Throws ``SocketError`` with code `badAddress` for an address that others than this machine can reach, unless
    /// `allowingRemote` is true.
    ///
    /// - Parameters:
    ///   - address: a loopback address or a Unix path; by default 127.0.0.1 with a port that the system chooses.
    ///   - allowingRemote: whether any address will do.
    public init(_ address: SocketAddress = .loopback(), allowingRemote: Bool = false) throws(SocketError) {
        if !allowingRemote && !address.isOnThisMachine {
            throw .badAddress(
                "\(address)", "a status server tells everything to anybody; allowingRemote: true makes it listen there")
        }
        self.address = address
    }

    /// Where it listens; after ``start()`` with its real port.
    public var localAddress: SocketAddress { server?.address ?? address }

    /// Whether it accepts connections.
    public var isStarted: Bool { server?.isStarted ?? false }

    /// Begins to listen and to accept. No effect on a started server. Never parks. Throws as ``StreamServer/start()``
    /// does.
    public func start() throws {
        if let server { return try server.start() }
        // The server is not retained by what it serves: what a handler needs is fixed now.
        let session = StatusSession(patience: patience, idleTimeout: idleTimeout)
        let made = StreamServer(address, limit: StatusServer.limit) { socket, _ in try session.serve(socket) }
        server = made
        try made.start()
    }

    /// Stops listening, and ends what runs as ``StreamServer/stop(timeout:)`` does; by default at once. Parks.
    @available(*, noasync)
    public func stop(timeout: Duration? = .zero) throws {
        try server?.stop(timeout: timeout)
    }
}

@available(*, unavailable)
extension StatusServer: Sendable {}

extension SocketAddress {
    /// Whether only this machine can reach it.
    fileprivate var isOnThisMachine: Bool {
        switch family {
        case .unix: true
        case .ipv4: host.hasPrefix("127.")
        case .ipv6: host == "::1"
        }
    }
}

/// One client.
private struct StatusSession {
    let patience: Duration
    let idleTimeout: Duration

    /// Nothing that is asked for is longer.
    private static let longestLine = 256
    private static let help = """
        greenlets   what each greenlet does and waits for
        stats       what the hub has done and holds
        settings    the settings in force, and where they come from
        help        this
        quit        end of the conversation

        """

    func serve(_ socket: Socket) throws {
        do {
            try converse(socket)
        } catch let error as SocketError {
            // A client that goes away, or falls silent, is no failure of anything here.
            switch error.code {
            case .connectionLost, .timedOut, .endOfStream: return
            default: throw error
            }
        }
    }

    private func converse(_ socket: Socket) throws {
        socket.timeout = idleTimeout
        var lines = LineReader(socket, longest: StatusSession.longestLine)
        let first: String?
        do {
            first = try lines.next(timeout: patience)
        } catch let error as SocketError where error.code == .timedOut {
            first = nil
        }
        guard var line = first else { return try socket.writeAll(statusReport()) }
        while line != "quit" {
            try socket.writeAll(answer(line))
            guard let next = try lines.next(timeout: idleTimeout) else { return }
            line = next
        }
    }

    private func answer(_ line: String) -> String {
        switch line {
        case "": ""
        case "greenlets": dumpGreenlets() + "\n"
        case "stats": statisticsReport()
        case "settings": settingsReport()
        case "help": StatusSession.help
        default: "no such command: \(line)\n\(StatusSession.help)"
        }
    }
}

/// Takes lines off a socket.
private struct LineReader {
    private let socket: Socket
    private let longest: Int
    private var bytes: [UInt8] = []
    private var isAtEnd = false

    init(_ socket: Socket, longest: Int) {
        self.socket = socket
        self.longest = longest
    }

    /// The next line without white space around it; nil at the end. What follows the last line's end is a line too.
    mutating func next(timeout: Duration) throws -> String? {
        while true {
            if let end = bytes.firstIndex(of: UInt8(ascii: "\n")) {
                defer { bytes.removeSubrange(...end) }
                return LineReader.text(bytes[..<end])
            }
            if isAtEnd || bytes.count >= longest {
                defer { bytes = [] }
                return bytes.isEmpty ? nil : LineReader.text(bytes[...])
            }
            let more = try socket.read(upTo: longest, timeout: timeout)
            isAtEnd = more.isEmpty
            bytes += more
        }
    }

    private static func text(_ bytes: ArraySlice<UInt8>) -> String {
        let words = String(decoding: bytes, as: UTF8.self).split { $0.isWhitespace || $0 == "\0" }
        return words.joined(separator: " ")
    }
}

// MARK: The texts

private func statusReport() -> String { "\(dumpGreenlets())\n\n\(statisticsReport())" }

private func statisticsReport() -> String {
    let hub = Hub.current
    let statistics = hub.statistics
    let rows: [(String, any CustomStringConvertible)] = [
        ("process", getpid()), ("loop", hub.loopName), ("uptime", "\(statistics.uptime)"),
        ("switches", statistics.switchCount), ("polls", statistics.pollCount), ("spawned", statistics.spawnCount),
        ("timers fired", statistics.firedTimers), ("greenlets", statistics.liveGreenlets),
        ("most greenlets", statistics.peakLiveGreenlets), ("parked", statistics.parkedGreenlets),
        ("ready", statistics.readyCount), ("timers", statistics.pendingTimers),
        ("waiting for descriptors", statistics.descriptorWaiters), ("idle stacks", statistics.idleStacks),
    ]
    return rows.map { "\($0.0): \($0.1)\n" }.joined()
}

private func settingsReport() -> String {
    Hub.current.resolvedConfiguration.settings.map { setting in
        "\(setting.name)=\(setting.value) (\(setting.origin.rawValue))\n"
    }.joined()
}
