import Gevent
import GeventNet
import GeventTesting
import Glibc
import Testing

/// The file that a server on a Unix socket removes.
@Suite struct UnixServerFileTests {
    private static func withDirectory(_ body: (String) throws -> Void) throws {
        var template = Array("/tmp/gevent-unix-XXXXXX".utf8CString)
        let made = template.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!).map { String(cString: $0) } }
        let directory = try #require(made)
        defer {
            for name in ["server.sock", "other/server.sock", "other", ""] { remove("\(directory)/\(name)") }
        }
        try body(directory)
    }

    private static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Runs in a child process, because the working directory belongs to the process.
    @Test func aChangeOfDirectoryLeavesOtherFilesAlone() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                try Self.withDirectory { directory in
                    let other = "\(directory)/other"
                    mkdir(other, 0o700)
                    chdir(directory)
                    let server = StreamServer(try .unix("server.sock"), handler: echo)
                    try server.start()
                    chdir(other)
                    close(open("server.sock", O_CREAT | O_WRONLY, 0o600))
                    try server.stop()
                    chdir("/")
                    if !Self.exists("\(other)/server.sock") { exit(2) }
                    if Self.exists("\(directory)/server.sock") { exit(3) }
                }
            }
            exit(0)
        }
    }

    @Test func aSuccessorsFileStays() throws {
        try withNet { _ in
            try Self.withDirectory { directory in
                let path = "\(directory)/server.sock"
                let first = StreamServer(try .unix(path), handler: echo)
                try first.start()
                // The new file may get the inode number of the removed one.
                unlink(path)
                let second = StreamServer(try .unix(path), handler: echo)
                try second.start()
                try first.stop()
                #expect(Self.exists(path))
                let client = try Socket.connect(to: second.address)
                try client.writeAll("x")
                #expect(text(try client.readExactly(1)) == "x")
                client.close()
                try second.stop()
                #expect(!Self.exists(path))
                // The path may also name a file that is no socket.
                let third = StreamServer(try .unix(path), handler: echo)
                try third.start()
                unlink(path)
                close(open(path, O_CREAT | O_WRONLY, 0o600))
                try third.stop()
                #expect(Self.exists(path))
            }
        }
    }

    @Test func aGivenListenersFileStays() throws {
        try withNet { _ in
            try Self.withDirectory { directory in
                let path = "\(directory)/server.sock"
                let listener = try Socket.listen(on: .unix(path))
                chmod(path, 0o600)
                let server = try StreamServer(listener: listener, handler: echo)
                try server.start()
                try server.stop()
                #expect(Self.exists(path))
            }
        }
    }

    @Test func aFileWhoseModeWasChangedIsStillTheServers() throws {
        try withNet { _ in
            try Self.withDirectory { directory in
                let path = "\(directory)/server.sock"
                let server = StreamServer(try .unix(path), handler: echo)
                try server.start()
                chmod(path, 0o600)
                try server.stop()
                #expect(!Self.exists(path))
            }
        }
    }

    @Test func aForkedChildLeavesItsParentsFileAlone() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                try Self.withDirectory { directory in
                    let path = "\(directory)/server.sock"
                    let server = StreamServer(try .unix(path), handler: echo)
                    try server.start()
                    guard case .parent(let child) = try Gevent.fork(allowingThreads: true) else {
                        try server.stop()
                        _exit(0)
                    }
                    if try !waitPID(child).status.isSuccess { exit(2) }
                    if !Self.exists(path) { exit(3) }
                    let client = try Socket.connect(to: server.address)
                    try client.writeAll("x")
                    if text(try client.readExactly(1)) != "x" { exit(4) }
                    client.close()
                    try server.stop()
                    if Self.exists(path) { exit(5) }
                }
            }
            exit(0)
        }
    }
}
