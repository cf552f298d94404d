internal import GeventCore
internal import Glibc
internal import Synchronization

/// A file that hubs write trace events to: an array of JSON, whose end may be missing.
///
/// Any thread; a hub hands over whole events.
///
/// The name often comes from the environment and lies in a directory that others may write to. So the file must be a
/// regular one that belongs to this process's user and has no other name; a link that another user left there must
/// lead to nothing of ours, and a FIFO or a device must not hang the program.
final class TraceFile: Sendable {
    private struct State {
        /// How many hubs write to it.
        var users = 0
        var isOpen = false
        var hasFailed = false
    }

    /// As it was given, with a `%p` in it.
    let path: String
    private let name: String
    /// A forked child has the descriptor too, and the file is not its own.
    private let owner = getpid()
    private let state = ForkableMutex(State())
    private let descriptor = Atomic<CInt>(-1)

    /// Files that this process has written to, by name.
    private static let known = ForkableMutex<[String: TraceFile]>([:])
    private static let end = "\n]\n"

    private init(_ path: String, name: String) {
        self.path = path
        self.name = name
    }

    /// The file for one more hub. `continuing` goes on where an earlier hub of this process has stopped.
    static func open(_ path: String, continuing: Bool) throws(LoopError) -> TraceFile {
        completeAtExit
        let process = getpid()
        let name = path.split(separator: "%p", omittingEmptySubsequences: false).joined(separator: "\(process)")
        let result = known.withLock { files -> Result<TraceFile, LoopError> in
            let file = files[name].flatMap { $0.owner == process ? $0 : nil } ?? TraceFile(path, name: name)
            let isKnown = files[name] === file
            do throws(LoopError) {
                try file.addUser(continuing: continuing && isKnown)
            } catch {
                return .failure(error)
            }
            files[name] = file
            return .success(file)
        }
        return try result.get()
    }

    private func addUser(continuing: Bool) throws(LoopError) {
        let failure = state.withLock { state -> LoopError? in
            if !state.isOpen {
                let opened: CInt
                do throws(LoopError) {
                    opened = try openSafely()
                } catch {
                    return error
                }
                if let error = continuing ? reopenArray(opened) : beginArray(opened) {
                    Glibc.close(opened)
                    return LoopError(errno: error, operation: operation)
                }
                descriptor.store(opened, ordering: .relaxed)
                state.isOpen = true
                state.hasFailed = false
            }
            state.users += 1
            return nil
        }
        if let failure { throw failure }
    }

    private var operation: String { "open the trace \(name)" }

    /// Opens or makes the file and changes nothing in one that is not acceptable.
    private func openSafely() throws(LoopError) -> CInt {
        // Without O_NONBLOCK, opening a FIFO waits for its reader. On a regular file the flag has no effect.
        let opened = Glibc.open(name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0o666)
        if opened < 0 {
            let error = errno
            // Of a FIFO without a reader the kernel says "no such device".
            let message: String? =
                switch error {
                case ELOOP: "ELOOP: it is a symbolic link, which is not followed"
                case ENXIO: "ENXIO: it is not a regular file"
                default: nil
                }
            guard let message else { throw LoopError(errno: error, operation: operation) }
            throw LoopError(.system, errno: error, operation: operation, message: message)
        }
        var status = stat()
        let error = fstat(opened, &status) == 0 ? 0 : errno
        let reason: String? =
            if error != 0 {
                String(cString: strerror(error))
            } else if status.st_mode & S_IFMT != S_IFREG {
                "it is not a regular file"
            } else if status.st_uid != geteuid() {
                "it belongs to another user"
            } else if status.st_nlink > 1 {
                "it is a file with another name (a hard link)"
            } else {
                nil
            }
        guard let reason else { return opened }
        Glibc.close(opened)
        throw LoopError(.system, errno: error == 0 ? EPERM : error, operation: operation, message: reason)
    }

    private func beginArray(_ file: CInt) -> CInt? {
        if ftruncate(file, 0) != 0 || lseek(file, 0, SEEK_SET) < 0 { return errno }
        // The first event: all others can have their comma in front of them.
        let text = """
            [
            {"ph":"M","pid":\(owner),"tid":0,"name":"process_labels","args":{"labels":"gevent \(version)"}}
            """
        return TraceFile.write(Array(text.utf8), to: file)
    }

    /// Takes the end away that was written when it was closed.
    private func reopenArray(_ file: CInt) -> CInt? {
        let size = lseek(file, 0, SEEK_END)
        if size < 0 { return errno }
        // Removed or replaced by somebody else meanwhile.
        if size <= TraceFile.end.utf8.count { return beginArray(file) }
        let rest = size - TraceFile.end.utf8.count
        if ftruncate(file, rest) != 0 || lseek(file, rest, SEEK_SET) < 0 { return errno }
        return nil
    }

    /// Appends whole events. Returns whether it did; the first time that it cannot, that is printed.
    func write(_ bytes: [UInt8]) -> Bool {
        if getpid() != owner { return false }
        return state.withLock { state in
            guard state.isOpen, !state.hasFailed else { return false }
            guard let error = TraceFile.write(bytes, to: descriptor.load(ordering: .relaxed)) else { return true }
            state.hasFailed = true
            printToStandardError("gevent: \(LoopError(errno: error, operation: "the trace \(name) ends here"))\n")
            return false
        }
    }

    /// One hub less; after the last one the array is complete.
    func close() {
        if getpid() != owner { return }
        state.withLock { state in
            state.users -= 1
            if state.users == 0 { complete(&state) }
        }
    }

    private func complete(_ state: inout State) {
        guard state.isOpen else { return }
        let file = descriptor.exchange(-1, ordering: .relaxed)
        if !state.hasFailed { _ = TraceFile.write(Array(TraceFile.end.utf8), to: file) }
        Glibc.close(file)
        state.isOpen = false
    }

    /// In a forked child: lets go of the parent's file. Takes no lock, since a thread that is not there may have it.
    func abandon() {
        let file = descriptor.exchange(-1, ordering: .relaxed)
        if file >= 0 { Glibc.close(file) }
    }

    /// Returns an errno.
    private static func write(_ bytes: [UInt8], to file: CInt) -> CInt? {
        var rest = bytes[...]
        while !rest.isEmpty {
            let written = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            if written < 0 && errno == EINTR { continue }
            if written <= 0 { return written < 0 ? errno : EIO }
            rest = rest.dropFirst(written)
        }
        return nil
    }

    /// A process that ends without destroying its hubs leaves complete files all the same. What other threads have not
    /// handed over is lost.
    private static let completeAtExit: Void = {
        atexit {
            if Hub.exists { Hub.current.stopTrace() }
            let process = getpid()
            let files = TraceFile.known.withLock { Array($0.values) }
            for file in files where file.owner == process { file.state.withLock { file.complete(&$0) } }
        }
    }()
}
