import Gevent
import GeventNet
import GeventTesting
import Glibc
import Testing

/// Runs `body` on a new hub with the loop that `GEVENT_LOOP` selects, and checks that no descriptor leaks; `withHub`
/// checks everything else.
func withNet(_ body: @escaping @Sendable (Hub) throws -> Void) throws {
    let before = openDescriptors()
    try withHub(on: .configured, body)
    #expect(openDescriptors() == before)
}

/// Created before descriptors are counted: libuv opens a pipe with its first loop and never closes it.
private let firstHub: Void = {
    do { try withHub(on: .configured) { _ in } } catch { Issue.record(error) }
}()

/// Returns the numbers of this process's open descriptors, except those of regular files: a thread that symbolicates
/// opens and closes program files at any time.
func openDescriptors() -> Set<CInt> {
    firstHub
    guard let directory = opendir("/proc/self/fd") else { return [] }
    defer { closedir(directory) }
    var numbers: Set<CInt> = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        guard let number = CInt(name), number != dirfd(directory) else { continue }
        var attributes = stat()
        // One that cannot be examined was closed meanwhile.
        if fstat(number, &attributes) != 0 || attributes.st_mode & S_IFMT == S_IFREG { continue }
        numbers.insert(number)
    }
    return numbers
}

/// Creates two connected TCP sockets.
func tcpPair(_ address: SocketAddress = .loopback()) throws -> (Socket, Socket) {
    let listener = try Socket.listen(on: address)
    defer { listener.close() }
    let client = try Socket.connect(to: listener.localAddress)
    return (client, try listener.accept().socket)
}

/// Writes until there is no more room; returns the number of bytes written.
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

/// Returns the error that `body` throws, if it is a `SocketError`.
func socketError(_ body: () throws -> Void) -> SocketError? {
    do {
        try body()
        return nil
    } catch {
        return error as? SocketError
    }
}

/// Waits for a condition that other greenlets make true; fails after ten seconds.
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

    /// Blocks until the process, which is about to end, has ended; returns the signal that ended it.
    func wait() -> CInt {
        var status: CInt = 0
        while Glibc.waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        return status & 0x7f
    }
}
