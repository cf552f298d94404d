internal import CLoad
internal import CMeasure
internal import Gevent
internal import Glibc

/// The load generator in its own process: this program again, which becomes the generator (see CLoad.h).
///
/// The hub waits for its output, so a server in this process keeps serving.
final class LoadProcess {
    private let process: pid_t
    /// The read end of its standard output.
    private let output: WatchedDescriptor
    /// Keeps its standard input open until it should end.
    private let input: CInt
    private var unread: [UInt8] = []
    private var isOver = false

    init(_ mode: String, _ arguments: [String]) throws {
        var words = [mode] + arguments
        // The clients run on the second processor. With only one, they share it with the server.
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

    /// Parks until all connections are open.
    func waitForStart() throws {
        let line = try readLine()
        try expect(line == "started", "the load generator started with \"\(line)\"; its errors are on standard error")
    }

    /// Parks until it has ended, and returns the JSON that it printed.
    func readResult() throws -> String { try readLine() }

    /// Ends it, unless it has ended by itself.
    func end() {
        if isOver { return }
        isOver = true
        close(input)
        // Some of its clients may no longer have a server.
        kill(process, SIGTERM)
        var status: CInt = 0
        while Glibc.waitpid(process, &status, 0) < 0 && errno == EINTR {}
    }

    /// Returns a number from its JSON: one flat object with unique keys.
    func number(_ key: String, in result: String) throws -> Double {
        guard let start = result.split(separator: "\"\(key)\": ", maxSplits: 1).dropFirst().first,
            let value = Double(start.prefix { !",}".contains($0) })
        else { throw CaseFailed("the load generator does not report \(key): \(result)") }
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
