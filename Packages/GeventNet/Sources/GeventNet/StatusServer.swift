internal import Gevent
@_spi(GeventInternals) internal import GeventCore
@_spi(GeventInternals) internal import GeventDiagnostics
internal import Glibc

/// Reports what the greenlets of its thread do to every client that connects.
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
/// Every client that can connect can read it: there is no password. So it listens on this machine only, unless
/// `allowingRemote` is true. It answers only when the hub runs: a greenlet that blocks the thread is reported by a
/// `Monitor`.
///
/// Answers do not hold up the program: they are made one at a time and in steps of about a millisecond, with rests in
/// between that are four times as long. They show up to 1,000 greenlets, and none in a hub
/// with more than 50,000 stacks, where `dumpGreenlets` still shows them. Eight clients are served at a time. While
/// others wait, a client that is silent for a second loses its place.
///
/// gevent: `gevent.backdoor.BackdoorServer`, which offers an interpreter.
public final class StatusServer {
    /// How long a client may take for its first line before it gets the whole report; 200 ms.
    public var patience = Duration.milliseconds(200)

    /// How long a conversation may be silent before it is ended; five minutes, or a second while other clients wait for
    /// a place. A client that does not take what it asked for is given as long.
    public var idleTimeout = Duration.seconds(300)

    private let requestedAddress: SocketAddress
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
        requestedAddress = address
    }

    /// Where it listens; after ``start()`` with its real port.
    public var address: SocketAddress { server?.address ?? requestedAddress }

    /// Whether it accepts connections.
    public var isStarted: Bool { server?.isStarted ?? false }

    /// Begins to listen and to accept. No effect on a started server. Never parks. Throws as ``StreamServer/start()``
    /// does.
    ///
    /// A port that the system has chosen is printed, where the hub prints its reports (`Hub.errorOutput`).
    public func start() throws {
        if let server { return try server.start() }
        // The server is not retained by what it serves: what a handler needs is fixed now.
        let clients = StatusClients(patience: patience, idleTimeout: idleTimeout)
        // One more than are served: it is the one that waits for a place.
        let made = StreamServer(requestedAddress, limit: StatusClients.limit + 1) { socket, _ in
            try clients.serve(socket)
        }
        server = made
        try made.start()
        if requestedAddress.family.isInternet && requestedAddress.port == 0 {
            Hub.current.errorOutput?("gevent: a status server listens on \(address)\n")
        }
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

/// The clients of one status server.
private final class StatusClients {
    /// Most clients that are served at a time.
    static let limit = 8
    /// How long a client may be silent while another waits for a place.
    private static let crowdedTimeout = Duration.seconds(1)

    let patience: Duration
    let idleTimeout: Duration
    let pace = AnswerPace()
    private var sessions: [StatusSession] = []
    // By its full name: the C library has a type of this name.
    private let places = Gevent.Semaphore(limit)

    init(patience: Duration, idleTimeout: Duration) {
        self.patience = patience
        self.idleTimeout = idleTimeout
    }

    func serve(_ socket: Socket) throws {
        try waitForPlace()
        let session = StatusSession(socket, of: self)
        sessions.append(session)
        defer {
            sessions.removeAll { $0 === session }
            places.release()
        }
        try session.serve()
    }

    private func waitForPlace() throws {
        while try !places.acquire(timeout: timeUntilPlace()) {}
    }

    /// How long to wait before looking again. Ends the session whose client has been silent for too long.
    private func timeUntilPlace() -> Duration {
        let now = Hub.current.now
        let silences = sessions.compactMap { session in
            session.silentSince.map { (session: session, silence: $0.duration(to: now)) }
        }
        guard let longest = silences.max(by: { $0.silence < $1.silence }) else { return StatusClients.crowdedTimeout }
        if longest.silence < StatusClients.crowdedTimeout { return StatusClients.crowdedTimeout - longest.silence }
        longest.session.end()
        // It leaves its place at its next turn.
        return StatusClients.crowdedTimeout
    }
}

/// One client that is served.
private final class StatusSession {
    private let socket: Socket
    private let clients: StatusClients
    /// Since when the server waits for the client to send a line or to take an answer; nil while it does not.
    private(set) var silentSince: LoopInstant?

    /// Nothing that is asked for is longer.
    private static let longestLine = 256
    private static let help = """
        greenlets   what each greenlet does and waits for
        stats       what the hub has done and holds
        settings    the settings in force, and where they come from
        help        this
        quit        end of the conversation

        """

    init(_ socket: Socket, of clients: StatusClients) {
        self.socket = socket
        self.clients = clients
    }

    /// Ends the wait for the client.
    func end() {
        silentSince = nil
        socket.close()
    }

    func serve() throws {
        do {
            try converse()
        } catch let error as SocketError {
            // The client left, was silent for too long or lost its place: no failure of the program.
            switch error.code {
            case .connectionLost, .timedOut, .endOfStream, .closed: return
            default: throw error
            }
        }
    }

    private func converse() throws {
        socket.timeout = clients.idleTimeout
        var lines = LineReader(socket, longest: StatusSession.longestLine)
        let first: String?
        do {
            first = try waitingForClient { try lines.next(timeout: clients.patience) }
        } catch let error as SocketError where error.code == .timedOut {
            first = nil
        }
        guard var line = first else {
            return try answer { try dumpGreenlets(pausing: $0) + "\n\n" + statisticsReport() }
        }
        while line != "quit" {
            try answer { try self.text(for: line, pausing: $0) }
            guard let next = try waitingForClient({ try lines.next(timeout: clients.idleTimeout) }) else { return }
            line = next
        }
    }

    private func answer(_ make: (_ pause: () throws -> Void) throws -> String) throws {
        let text = try clients.pace.make(make)
        try waitingForClient { try socket.writeAll(text) }
    }

    private func waitingForClient<Result>(_ body: () throws -> Result) throws -> Result {
        silentSince = Hub.current.now
        defer { silentSince = nil }
        return try body()
    }

    private func text(for line: String, pausing pause: () throws -> Void) throws -> String {
        switch line {
        case "": ""
        case "greenlets": try dumpGreenlets(pausing: pause) + "\n"
        case "stats": statisticsReport()
        case "settings": settingsReport()
        case "help": StatusSession.help
        default: "no such command: \(line)\n\(StatusSession.help)"
        }
    }
}

/// Makes answers one at a time and with rests, so that clients cannot hold up the hub, however much they ask for.
private final class AnswerPace {
    /// The hub may work on answers for so long without a rest.
    private static let step = Duration.milliseconds(1)
    /// A rest is so many times as long as the work before it, so that answers take a fifth of the thread's time.
    private static let restFactor = 4

    private let turn = Gevent.Semaphore(1)
    private let clock = ContinuousClock()
    /// Work since the last rest, without the step that is under way.
    private var worked = Duration.zero

    /// Calls `answer` when no other answer is being made. It calls what it is given between its steps.
    func make(_ answer: (_ pause: () throws -> Void) throws -> String) throws -> String {
        try turn.acquire()
        defer { turn.release() }
        var mark = clock.now
        func pause() throws {
            let now = clock.now
            worked += now - mark
            mark = now
            if worked < AnswerPace.step { return }
            let rest = worked * AnswerPace.restFactor
            worked = .zero
            try sleep(for: rest)
            mark = clock.now
        }
        let text = try answer(pause)
        try pause()
        // Many small answers are not made in one go either.
        try sleep()
        return text
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
