import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A temporary directory, removed with the object.
private final class Directory {
    let path: String

    init() throws {
        var name = Array("/tmp/gevent-watch-XXXXXX".utf8CString)
        try #require(mkdtemp(&name) != nil)
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { remove(path) }

    private func remove(_ path: String) {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name != "." && name != ".." { remove("\(path)/\(name)") }
            }
            closedir(directory)
        }
        Glibc.remove(path)
    }

    func write(_ name: String, _ text: String) {
        let file = open("\(path)/\(name)", O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        _ = Glibc.write(file, text, text.utf8.count)
        close(file)
    }
}

/// Runs on the real clock, because file system events do not follow virtual time.
@Suite("File watches")
struct FileWatchTests {
    @Test("Writing changes the attributes; unlinking makes them nil and keeps the previous ones")
    func writeAndUnlink() throws {
        let before = openDescriptorCount()
        try withHub(on: .configured) { hub in
            let directory = try Directory()
            directory.write("file", "one")
            let watch = try FileWatch(path: "\(directory.path)/file")
            #expect(watch.attributes?.size == 3 && watch.previous == nil)
            spawn(after: .milliseconds(1)) { directory.write("file", "longer") }
            while watch.attributes?.size != 6 { #expect(try watch.wait(timeout: .seconds(20))) }
            // The write truncates first, so the previous attributes may be of either state.
            let written = watch.attributes
            spawn(after: .milliseconds(1)) { unlink("\(directory.path)/file") }
            while watch.attributes != nil { #expect(try watch.wait(timeout: .seconds(20))) }
            #expect(watch.previous?.inode == written?.inode && watch.previous?.size == 6)
            #expect("\(watch)" == "<FileWatch \"\(directory.path)/file\">")
            try watch.cancel()
        }
        #expect(openDescriptorCount() == before)
    }

    @Test("A watch sees its file created, replaced by a rename, changed in its mode, and moved away")
    func nameLifetime() throws {
        try withHub(on: .configured) { _ in
            let directory = try Directory()
            let path = "\(directory.path)/file"
            let watch = try FileWatch(path: path)
            #expect(watch.attributes == nil)
            func until(_ condition: (FileAttributes?) -> Bool) throws {
                while !condition(watch.attributes) { #expect(try watch.wait(timeout: .seconds(20))) }
            }
            spawnRaw { directory.write("file", "12") }
            try until { $0?.size == 2 }
            let first = watch.attributes
            #expect(watch.previous == nil || watch.previous?.size == 0)
            // A change to another name in the directory does not count.
            directory.write("other", "1234")
            #expect(try watch.wait(timeout: .milliseconds(20)) == false)
            spawnRaw { rename("\(directory.path)/other", path) }
            try until { $0?.size == 4 }
            #expect(watch.attributes?.inode != first?.inode && watch.previous == first)
            // The new file is now the watched one.
            spawnRaw { chmod(path, 0o600) }
            try until { $0?.mode == UInt32(S_IFREG) | 0o600 }
            spawnRaw { rename(path, "\(directory.path)/elsewhere") }
            try until { $0 == nil }
            #expect(watch.previous?.size == 4)
            // Its new name elsewhere is not watched.
            chmod("\(directory.path)/elsewhere", 0o644)
            #expect(try watch.wait(timeout: .milliseconds(20)) == false)
            try watch.cancel()
        }
    }

    @Test("The parent directories need not exist: the watch sees the file once all of them appear, repeatedly")
    func missingDirectories() throws {
        try withHub(on: .configured) { _ in
            let directory = try Directory()
            let watch = try FileWatch(path: "\(directory.path)/a/b/file")
            for round in 1...3 {
                #expect(watch.attributes == nil)
                spawn {
                    for name in ["a", "a/b"] {
                        mkdir("\(directory.path)/\(name)", 0o755)
                        if round > 1 { try sleep(for: .milliseconds(2)) }
                    }
                    directory.write("a/b/file", String(repeating: "x", count: round))
                }
                while watch.attributes?.size != Int64(round) { #expect(try watch.wait(timeout: .seconds(20))) }
                spawn {
                    unlink("\(directory.path)/a/b/file")
                    rmdir("\(directory.path)/a/b")
                    rmdir("\(directory.path)/a")
                }
                while watch.attributes != nil { #expect(try watch.wait(timeout: .seconds(20))) }
                try sleep(for: .milliseconds(2))
            }
            try watch.cancel()
        }
    }

    @Test("A directory can be watched, alone or together with a file in it: changes of its entries count")
    func directories() throws {
        try withHub(on: .configured) { _ in
            let directory = try Directory()
            let outer = try FileWatch(path: directory.path + "/")
            let inner = try FileWatch(path: "\(directory.path)/file")
            #expect(outer.path == directory.path)
            let start = outer.attributes
            // Wait for another tick of the file system's clock.
            try sleep(for: .milliseconds(20))
            directory.write("file", "1")
            while inner.attributes?.size != 1 { #expect(try inner.wait(timeout: .seconds(20))) }
            while outer.attributes == start { #expect(try outer.wait(timeout: .seconds(20))) }
            try outer.cancel()
            // The other watch still needs the shared registration.
            spawnRaw { unlink("\(directory.path)/file") }
            while inner.attributes != nil { #expect(try inner.wait(timeout: .seconds(20))) }
            try inner.cancel()
        }
    }

    @Test("No change is missed between two waits, and a zero timeout only checks")
    func betweenWaits() throws {
        try withHub(on: .configured) { _ in
            let directory = try Directory()
            directory.write("file", "1")
            let watch = try FileWatch(path: "\(directory.path)/file")
            #expect(try watch.wait(timeout: .zero) == false)
            directory.write("file", "12")
            #expect(try watch.wait(timeout: .zero))
            #expect(watch.attributes?.size == 2)
            #expect(try watch.wait(timeout: .zero) == false)
            directory.write("file", "123")
            // The hub sees the change while no greenlet waits.
            while watch.attributes?.size != 3 { try sleep(for: .milliseconds(1)) }
            #expect(try watch.wait())
            #expect(try watch.wait(timeout: .milliseconds(1)) == false)
            try watch.cancel()
        }
    }

    @Test("Several greenlets wait for one change; those killed or timed out leave nothing behind")
    func severalWaiters() throws {
        try withHub(on: .configured) { hub in
            let directory = try Directory()
            let watch = try FileWatch(path: "\(directory.path)/file")
            let waiting = (0..<3).map { _ in spawn { try watch.wait() } }
            let killed = spawn { try watch.wait() }
            try sleep()
            #expect(hub.deadlockReport().contains("a wait for a change of <FileWatch"))
            try killed.kill()
            #expect(try withSilentTimeout(.milliseconds(1)) { try watch.wait() } == nil)
            directory.write("file", "1")
            try joinAll(waiting)
            #expect(waiting.allSatisfy { $0.value == true })
            try watch.cancel()
        }
    }

    @Test("Closing throws into waiters; the closed watch keeps its last attributes")
    func closing() throws {
        let before = openDescriptorCount()
        try withHub(on: .configured) { _ in
            let directory = try Directory()
            directory.write("file", "1")
            let watch = try FileWatch(path: "\(directory.path)/file")
            let waiting = spawn { try watch.wait() }
            try sleep()
            try watch.cancel()
            try watch.cancel()
            try waiting.join()
            #expect((waiting.error as? SystemError)?.errno == ECANCELED)
            #expect(throws: SystemError.self) { try watch.wait() }
            #expect(!watch.isActive && watch.attributes?.size == 1)
            #expect(openDescriptorCount() < before + 20)
        }
        #expect(openDescriptorCount() == before)
    }

    @Test("onChange runs in a greenlet, never twice at once; its errors are reported and stop nothing")
    func closures() throws {
        let entries = try logged(on: .configured) { log, hub in
            let directory = try Directory()
            var calls = 0
            var running = 0
            let watch = try FileWatch(path: "\(directory.path)/file") { watch in
                running += 1
                #expect(running == 1 && AnyGreenlet.current is RawGreenlet)
                calls += 1
                defer { running -= 1 }
                try sleep(for: .milliseconds(5))
                if calls == 1 { throw Boom() }
            }
            #expect(!(try hub.join(timeout: .milliseconds(1))))
            for size in 1...20 {
                directory.write("file", String(repeating: "x", count: size))
                try sleep(for: .milliseconds(1))
            }
            try waitUntil { watch.attributes?.size == 20 && running == 0 }
            try sleep(for: .milliseconds(20))
            #expect((2...20).contains(calls) && watch.attributes?.size == 20)
            try watch.cancel()
            #expect(try hub.join())
        }
        #expect(entries.count == 1 && entries[0].hasPrefix("reported Boom of <RawGreenlet"))
    }

    @Test("A watch without a closure ends with its last reference; a watch with a closure runs until it is closed")
    func references() throws {
        let before = openDescriptorCount()
        try withHub(on: .configured) { hub in
            let directory = try Directory()
            weak var weakly: FileWatch?
            do {
                let watch = try FileWatch(path: "\(directory.path)/file")
                weakly = watch
                #expect(hub.existingService(FileWatchService.self) != nil)
            }
            #expect(weakly == nil)
            #expect(hub.existingService(FileWatchService.self) == nil)
            var called = false
            do {
                let watch = try FileWatch(path: "\(directory.path)/file", referenced: false) { _ in called = true }
                weakly = watch
            }
            #expect(weakly != nil)
            #expect(try hub.join())
            weakly?.isReferenced = true
            #expect(try weakly?.isReferenced == true && !hub.join(timeout: .milliseconds(1)))
            weakly?.isReferenced = false
            #expect(try hub.join())
            directory.write("file", "1")
            try waitUntil { called }
            try weakly?.cancel()
            try sleep()
            #expect(weakly == nil)
            // Destroying the hub closes the remaining watches.
            _ = try FileWatch(path: "\(directory.path)/file") { _ in }
        }
        #expect(openDescriptorCount() == before)
    }

    @Test("When the kernel drops events, every file is checked")
    func overflow() throws {
        try withHub(on: .configured) { hub in
            let directory = try Directory()
            let watches = try (0..<3).map { try FileWatch(path: "\(directory.path)/file\($0)") }
            let busy = try FileWatch(path: directory.path)
            let most = try #require(Int(readAll("/proc/sys/fs/inotify/max_queued_events")))
            // The names alternate, because the kernel merges equal consecutive events.
            for number in 0...most / 2 {
                directory.write("busy\(number % 2)", "")
                unlink("\(directory.path)/busy\(number % 2)")
            }
            for number in 0..<3 { directory.write("file\(number)", "12") }
            for watch in watches {
                while watch.attributes?.size != 2 { try sleep(for: .milliseconds(1)) }
            }
            for watch in watches + [busy] { try watch.cancel() }
        }
    }

    @Test("An empty path throws, and so does running out of descriptors")
    func refused() async throws {
        try withHub { _ in
            #expect(throws: SystemError.self) { try FileWatch(path: "") }
            #expect(throws: SystemError.self) { try FileWatch(path: "/tmp\0/elsewhere") }
            let root = try FileWatch(path: "/")
            #expect(root.attributes != nil)
            let file = try FileWatch(path: "/etc/hostname/impossible")
            #expect(file.attributes == nil)
            try root.cancel()
            try file.cancel()
        }
        await #expect(processExitsWith: .success) {
            try withHub { _ in
                _ = takeAllDescriptors()
                do {
                    _ = try FileWatch(path: "/tmp")
                } catch let error as SystemError {
                    // Not `exit`: sanitizers need descriptors for their checks at exit.
                    _exit(error.errno == EMFILE ? 0 : 1)
                }
                _exit(2)
            }
        }
    }

    @Test("A watch that cannot be made leaves nothing behind in the kernel, even while others continue")
    func refusedNextToOthers() throws {
        try withHub(on: .configured) { _ in
            let directory = try Directory()
            // Uses another directory, because this one is already watched.
            let other = try FileWatch(path: "\(directory.path)/a/file")
            let before = kernelWatchCount()
            #expect(before == 1)
            mkdir("\(directory.path)/b", 0o755)
            let tooLong = String(repeating: "x", count: 300)
            let error = #expect(throws: SystemError.self) { try FileWatch(path: "\(directory.path)/b/\(tooLong)") }
            #expect(error?.errno == ENAMETOOLONG)
            #expect(kernelWatchCount() == before)
            // Registrations that other watches use remain.
            #expect(throws: SystemError.self) { try FileWatch(path: "\(directory.path)/\(tooLong)") }
            #expect(kernelWatchCount() == before)
            mkdir("\(directory.path)/a", 0o755)
            directory.write("a/file", "1")
            while other.attributes?.size != 1 { #expect(try other.wait(timeout: .seconds(20))) }
            try other.cancel()
        }
    }

    @Test("A relative path is resolved against the directory that was current when the watch was made")
    func relative() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                let directory = try Directory()
                chdir(directory.path)
                let watch = try FileWatch(path: "file")
                chdir("/")
                directory.write("file", "1")
                guard try watch.wait(timeout: .seconds(20)) else { exit(1) }
                try watch.cancel()
            }
            exit(0)
        }
    }

    @Test("In a forked child a watch continues on its own, and takes no event from the parent")
    func forked() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                let directory = try Directory()
                let watch = try FileWatch(path: "\(directory.path)/file")
                let code = try inChild {
                    directory.write("file", "1")
                    while watch.attributes?.size != 1 { _ = try watch.wait(timeout: .seconds(9)) }
                    return 0
                }
                if code != 0 { exit(1) }
                while watch.attributes?.size != 1 { _ = try watch.wait(timeout: .seconds(9)) }
                try watch.cancel()
            }
            exit(0)
        }
    }
}

/// The number of files and directories that the kernel watches for this process.
private func kernelWatchCount() -> Int {
    guard let directory = opendir("/proc/self/fdinfo") else { return -1 }
    defer { closedir(directory) }
    var count = 0
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let parts = readAll("/proc/self/fdinfo/\(name)").split(
            separator: "inotifywd:", omittingEmptySubsequences: false)
        count += parts.count - 1
    }
    return count
}

private func readAll(_ path: String) -> String {
    let file = open(path, O_RDONLY)
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = max(read(file, &bytes, bytes.count), 0)
    return String(decoding: bytes.prefix(count).filter { $0 > 32 }, as: UTF8.self)
}
