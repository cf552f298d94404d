import Gevent
import GeventNet
import GeventTesting
import Glibc
import Testing

/// Runs `body` on a hub of its own on the loop that `GEVENT_LOOP` asks for, and checks that it leaves no descriptor;
/// `withHub` checks the rest.
func withNet(_ body: @escaping @Sendable (Hub) throws -> Void) throws {
    let before = openDescriptors()
    try withHub(on: .configured, body)
    #expect(openDescriptors() == before)
}

/// Made before descriptors are counted: with its first loop libuv opens a pipe that the process keeps.
private let firstHub: Void = {
    do { try withHub(on: .configured) { _ in } } catch { Issue.record(error) }
}()

/// The numbers of this process's open descriptors.
func openDescriptors() -> Set<CInt> {
    firstHub
    guard let directory = opendir("/proc/self/fd") else { return [] }
    defer { closedir(directory) }
    var found: Set<CInt> = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        if let number = CInt(name), number != dirfd(directory) { found.insert(number) }
    }
    return found
}

/// Two connected TCP sockets.
func tcpPair(_ address: SocketAddress = .loopback()) throws -> (Socket, Socket) {
    let listener = try Socket.listen(on: address)
    defer { listener.close() }
    let client = try Socket.connect(to: listener.localAddress)
    return (client, try listener.accept().socket)
}

/// Writes until there is no more room; returns how many bytes that took.
@discardableResult
func fill(_ socket: Socket) throws -> Int {
    let chunk = [UInt8](repeating: 7, count: 1 << 16)
    var total = 0
    do {
        while true { total += try socket.write(chunk, timeout: .zero) }
    } catch let error as SocketError where error.code == .wouldBlock {
        return total
    }
}

func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

/// The error that `body` throws, if it is one of sockets.
func socketError(_ body: () throws -> Void) -> SocketError? {
    do {
        try body()
        return nil
    } catch {
        return error as? SocketError
    }
}

/// Waits for something that other greenlets bring about; gives up, and fails, after ten seconds.
func eventually(_ what: Comment, _ condition: () -> Bool) throws {
    for _ in 0..<10_000 {
        if condition() { return }
        try Gevent.sleep(for: .milliseconds(1))
    }
    #expect(condition(), what)
}

/// A child process.
struct Child {
    let pid: pid_t

    init(_ arguments: String...) throws {
        var pid = pid_t()
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
        argv.append(nil)
        defer { for argument in argv { free(argument) } }
        let error = posix_spawn(&pid, arguments[0], nil, nil, argv, environ)
        try #require(error == 0, "cannot run \(arguments[0])")
        self.pid = pid
    }

    /// Blocks until it has ended, which it has or is about to; returns the signal that ended it.
    func wait() -> CInt {
        var status: CInt = 0
        while Glibc.waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        return status & 0x7f
    }
}
