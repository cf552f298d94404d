internal import CLoad
internal import CMeasure
internal import Gevent
internal import Glibc

/// The load generator, in a process of its own: this program again, which turns into it (see CLoad.h).
///
/// What it says is waited for in the hub, so whoever serves it goes on serving.
final class LoadProcess {
    private let process: pid_t
    /// What it prints.
    private let output: WatchedDescriptor
    /// Open for as long as it is to go on.
    private let input: CInt
    private var unread: [UInt8] = []
    private var isOver = false

    init(_ mode: String, _ arguments: [String]) throws {
        var words = [mode] + arguments
        // The second processor is the clients'; with one only, nothing keeps the two apart.
        if measure_allowed_processors() > 1 { words += ["--cpu", "\(measure_allowed_processor(1))"] }
        let variable = "\(LOAD_VARIABLE)=\(words.joined(separator: " "))"
        var (fromChild, toChild): ([CInt], [CInt]) = ([0, 0], [0, 0])
        guard measure_pipe(&fromChild, false) == 0, measure_pipe(&toChild, false) == 0 else {
            throw LoopError(errno: errno, operation: "pipe")
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, toChild[0], STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], STDOUT_FILENO)
        var process: pid_t = 0
        let error = withCString(variable) { variable in
            withCString("load") { name in
                var (arguments, environment): ([UnsafeMutablePointer<CChar>?], [UnsafeMutablePointer<CChar>?])
                (arguments, environment) = ([name, nil], [variable, nil])
                return posix_spawn(&process, "/proc/self/exe", &actions, nil, &arguments, &environment)
            }
        }
        close(fromChild[1])
        close(toChild[0])
        guard error == 0 else { throw LoopError(errno: error, operation: "start the load generator") }
        self.process = process
        input = toChild[1]
        _ = fcntl(fromChild[0], F_SETFL, O_NONBLOCK)
        output = try WatchedDescriptor(fromChild[0])
    }

    /// Parks until all connections stand.
    func waitForStart() throws {
        let line = try readLine()
        try expect(line == "started", "the load generator begins with \"\(line)\"; its errors are on standard error")
    }

    /// Parks until it has come to its end, and returns what it says of that.
    func readResult() throws -> String { try readLine() }

    /// Lets it end, if it has not by itself.
    func end() {
        if isOver { return }
        isOver = true
        close(input)
        // It may have clients that nobody serves any more.
        kill(process, SIGTERM)
        var status: CInt = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    }

    /// A number in the JSON that it prints: one flat object, whose keys occur once.
    func number(_ key: String, in result: String) throws -> Double {
        guard let start = result.split(separator: "\"\(key)\": ", maxSplits: 1).dropFirst().first,
            let value = Double(start.prefix { !",}".contains($0) })
        else { throw CaseFailed("the load generator says nothing of \(key): \(result)") }
        return value
    }

    private func readLine() throws -> String {
        while true {
            if let end = unread.firstIndex(of: UInt8(ascii: "\n")) {
                defer { unread.removeSubrange(...end) }
                return String(decoding: unread[..<end], as: UTF8.self)
            }
            var room = [UInt8](repeating: 0, count: 4_096)
            let count = read(output.fileDescriptor, &room, room.count)
            if count > 0 {
                unread += room[..<count]
            } else if count == 0 {
                throw CaseFailed("the load generator ended early; its errors are on standard error")
            } else if errno == EAGAIN {
                _ = try output.waitReadable()
            } else {
                throw LoopError(errno: errno, operation: "read from the load generator")
            }
        }
    }
}

@available(*, unavailable)
extension LoadProcess: Sendable {}

private func withCString<Result>(
    _ text: String, _ body: (UnsafeMutablePointer<CChar>) throws -> Result
) rethrows -> Result {
    let copy = strdup(text)!
    defer { free(copy) }
    return try body(copy)
}
