internal import Gevent
@_spi(GeventInternals) internal import GeventCore
@_spi(GeventInternals) internal import GeventDiagnostics
internal import Glibc

/// A server that reports the state of its thread's greenlets to every client that connects.
///
/// ```swift
/// let status = try StatusServer(SocketAddress("127.0.0.1:7001"))
/// try status.start()
/// ```
///
/// `nc 127.0.0.1 7001` then prints a report of the greenlets and the statistics of the hub, and exits. A client that
/// sends a line within ``patience`` starts a session instead and gets an answer to each line: `greenlets`, `stats`,
/// `settings`, `help`, `quit`. So `echo settings | nc …` sends one command, and `(echo help; cat) | nc …` starts an
/// interactive session.
///
/// There is no password: every client that can connect can read the reports. Unless `allowingRemote` is true, the
/// server therefore listens on this machine only. It answers only while the hub runs; a `Monitor` reports a greenlet
/// that blocks the thread.
///
/// Answers do not delay the program: they are built one at a time, in steps of about a millisecond with pauses four
/// times as long between them. They list up to 1,000 greenlets, and none if the hub has more than 50,000 stacks;
/// `dumpGreenlets` still lists them there. At most eight clients are served at a time. While others wait, a client that
/// is silent for a second is disconnected.
///
/// gevent: `gevent.backdoor.BackdoorServer`, which offers an interpreter.
public final class StatusServer {
    /// The time a client has to send its first line before it gets the whole report; 200 ms.
    public var patience = Duration.milliseconds(200)

    /// The time a session may be idle before it is ended; five minutes, or a second while other clients wait. The same
    /// limit applies to a client that does not read its answer.
    public var idleTimeout = Duration.seconds(300)

    private let requestedAddress: SocketAddress
    private var server: StreamServer?

    /// Creates a server that will listen on `address`. Never parks.
    ///
    /// Throws ``SocketError`` with code `badAddress` for an address that other machines can reach, unless
    /// `allowingRemote` is true.
    ///
    /// - Parameters:
    ///   - address: a loopback address or a Unix path; by default 127.0.0.1 with a port that the system chooses.
    ///   - allowingRemote: whether any address is allowed.
    public init(_ address: SocketAddress = .loopback(), allowingRemote: Bool = false) throws(SocketError) {
        if !allowingRemote && !address.isOnThisMachine {
            throw .badAddress(
                "\(address)",
                "a status server has no password; pass allowingRemote: true to make it reachable from other machines")
        }
        requestedAddress = address
    }

    /// The address the server listens on; after ``start()`` with the actual port.
    public var address: SocketAddress { server?.address ?? requestedAddress }

    /// Whether the server accepts connections.
    public var isStarted: Bool { server?.isStarted ?? false }

    /// Starts to listen and to accept. Has no effect on a started server. Never parks. Throws the errors of
    /// ``StreamServer/start()``.
    ///
    /// If the system chose the port, prints it where the hub prints its reports (`Hub.errorOutput`).
    public func start() throws {
        if let server { return try server.start() }
        // The handler must not retain the server, so it captures the current values.
        let clients = StatusClients(patience: patience, idleTimeout: idleTimeout)
        // One more than are served at a time: that one waits for a slot.
        let server = StreamServer(requestedAddress, limit: StatusClients.limit + 1) { socket, _ in
            try clients.serve(socket)
        }
        self.server = server
        try server.start()
        if requestedAddress.family.isInternet && requestedAddress.port == 0 {
            Hub.current.errorOutput?("gevent: a status server listens on \(address)\n")
        }
    }

    /// Stops listening, and ends the sessions as ``StreamServer/stop(timeout:)`` does, by default at once. Parks.
    @available(*, noasync)
    public func stop(timeout: Duration? = .zero) throws {
        try server?.stop(timeout: timeout)
    }
}

@available(*, unavailable)
extension StatusServer: Sendable {}

extension SocketAddress {
    /// Whether only this machine can reach the address.
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
    /// The maximum number of clients that are served at a time.
    static let limit = 8
    /// The time a client may be silent while another waits for a slot.
    private static let crowdedTimeout = Duration.seconds(1)

    let patience: Duration
    let idleTimeout: Duration
    let throttle = AnswerThrottle()
    private var sessions: [StatusSession] = []
    // Qualified, because the C library has a type of the same name.
    private let slots = Gevent.Semaphore(limit)

    init(patience: Duration, idleTimeout: Duration) {
        self.patience = patience
        self.idleTimeout = idleTimeout
    }

    func serve(_ socket: Socket) throws {
        try acquireSlot()
        let session = StatusSession(socket, of: self)
        sessions.append(session)
        defer {
            sessions.removeAll { $0 === session }
            slots.release()
        }
        try session.serve()
    }

    private func acquireSlot() throws {
        while try !slots.acquire(timeout: evictSilentSession()) {}
    }

    /// Ends the session of the client that has been silent for too long, if any. Returns the time to wait before the
    /// next check.
    private func evictSilentSession() -> Duration {
        let now = Hub.current.now
        let silences = sessions.compactMap { session in
            session.silentSince.map { (session: session, silence: $0.duration(to: now)) }
        }
        guard let longest = silences.max(by: { $0.silence < $1.silence }) else { return StatusClients.crowdedTimeout }
        if longest.silence < StatusClients.crowdedTimeout { return StatusClients.crowdedTimeout - longest.silence }
        longest.session.end()
        // The session releases its slot when it next runs.
        return StatusClients.crowdedTimeout
    }
}

/// The session of one client.
private final class StatusSession {
    private let socket: Socket
    private let clients: StatusClients
    /// The time at which the server began to wait for the client to send a line or to read an answer; nil while it does
    /// not wait.
    private(set) var silentSince: LoopInstant?

    /// The maximum length of a line in bytes; no command is longer.
    private static let maxLineLength = 256
    private static let help = """
        greenlets   the state of each greenlet and what it waits for
        stats       the counters of the hub
        settings    the settings in use and their origin
        help        this list
        quit        end the session

        """

    init(_ socket: Socket, of clients: StatusClients) {
        self.socket = socket
        self.clients = clients
    }

    /// Closes the connection, which ends the wait for the client.
    func end() {
        silentSince = nil
        socket.close()
    }

    func serve() throws {
        do {
            try runSession()
        } catch let error as SocketError {
            // The client disconnected, was silent for too long or lost its slot, which is no failure of the program.
            switch error.code {
            case .connectionLost, .timedOut, .endOfStream, .closed: return
            default: throw error
            }
        }
    }

    private func runSession() throws {
        socket.timeout = clients.idleTimeout
        var lines = LineReader(socket, maxLength: StatusSession.maxLineLength)
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
        let text = try clients.throttle.make(make)
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
        default: "unknown command: \(line)\n\(StatusSession.help)"
        }
    }
}

/// Builds answers one at a time and with pauses, so that clients can't delay the hub, however many answers they
/// request.
private final class AnswerThrottle {
    /// The time the hub may work on answers without a pause.
    private static let step = Duration.milliseconds(1)
    /// The ratio of a pause to the work before it: answers take a fifth of the thread's time.
    private static let pauseFactor = 4

    private let lock = Gevent.Semaphore(1)
    private let clock = ContinuousClock()
    /// The work since the last pause, without the current step.
    private var workSincePause = Duration.zero

    /// Calls `answer` when no other answer is being built. `answer` calls its argument between its steps.
    func make(_ answer: (_ pause: () throws -> Void) throws -> String) throws -> String {
        try lock.acquire()
        defer { lock.release() }
        var mark = clock.now
        func pause() throws {
            let now = clock.now
            workSincePause += now - mark
            mark = now
            if workSincePause < AnswerThrottle.step { return }
            let duration = workSincePause * AnswerThrottle.pauseFactor
            workSincePause = .zero
            try sleep(for: duration)
            mark = clock.now
        }
        let text = try answer(pause)
        try pause()
        // Yield after each answer, so that many small ones are not built without a break.
        try sleep()
        return text
    }
}

/// Reads lines from a socket.
private struct LineReader {
    private let socket: Socket
    private let maxLength: Int
    private var bytes: [UInt8] = []
    private var isAtEnd = false

    init(_ socket: Socket, maxLength: Int) {
        self.socket = socket
        self.maxLength = maxLength
    }

    /// Returns the next line without surrounding white space; nil at the end. Bytes after the last newline are a line
    /// too.
    mutating func next(timeout: Duration) throws -> String? {
        while true {
            if let end = bytes.firstIndex(of: UInt8(ascii: "\n")) {
                defer { bytes.removeSubrange(...end) }
                return LineReader.text(bytes[..<end])
            }
            if isAtEnd || bytes.count >= maxLength {
                defer { bytes = [] }
                return bytes.isEmpty ? nil : LineReader.text(bytes[...])
            }
            let more = try socket.read(upTo: maxLength, timeout: timeout)
            isAtEnd = more.isEmpty
            bytes += more
        }
    }

    private static func text(_ bytes: ArraySlice<UInt8>) -> String {
        let words = String(decoding: bytes, as: UTF8.self).split { $0.isWhitespace || $0 == "\0" }
        return words.joined(separator: " ")
    }
}

// MARK: Reports

private func statisticsReport() -> String {
    let hub = Hub.current
    let statistics = hub.statistics
    let rows: [(String, any CustomStringConvertible)] = [
        ("process", getpid()), ("loop", hub.loopName), ("uptime", "\(statistics.uptime)"),
        ("switches", statistics.switchCount), ("polls", statistics.pollCount), ("spawned", statistics.spawnCount),
        ("timers fired", statistics.firedTimers), ("greenlets", statistics.liveGreenlets),
        ("peak greenlets", statistics.peakLiveGreenlets), ("parked", statistics.parkedGreenlets),
        ("ready", statistics.readyCount), ("timers", statistics.pendingTimers),
        ("descriptor waiters", statistics.descriptorWaiters), ("idle stacks", statistics.idleStacks),
    ]
    return rows.map { "\($0.0): \($0.1)\n" }.joined()
}

private func settingsReport() -> String {
    Hub.current.resolvedConfiguration.settings.map { setting in
        "\(setting.name)=\(setting.value) (\(setting.origin.rawValue))\n"
    }.joined()
}
