internal import GeventCore
internal import Glibc
internal import Synchronization

/// A file of trace events that several hubs can write to: a JSON array whose closing bracket may be missing.
///
/// Usable from any thread. Each write appends complete events.
///
/// The path often comes from the environment, and its directory may be writable by other users. So the file must be a
/// regular file with a single hard link that belongs to this process's user. Otherwise a link planted by another user
/// could overwrite one of this user's files, and a FIFO or a device could hang the program.
final class TraceFile: Sendable {
    private struct State {
        /// The number of hubs that write to the file.
        var users = 0
        var isOpen = false
        var hasFailed = false
    }

    /// The path as given, with `%p` not yet replaced.
    let path: String
    private let name: String
    /// The process that opened the file. A forked child inherits the descriptor but must not write.
    private let owner = getpid()
    private let state = ForkableMutex(State())
    private let descriptor = Atomic<CInt>(-1)

    /// The files that this process has written to, by name.
    private static let known = ForkableMutex<[String: TraceFile]>([:])
    private static let end = "\n]\n"

    private init(_ path: String, name: String) {
        self.path = path
        self.name = name
    }

    /// Opens the file for one more hub. With `continuing`, appends to what earlier hubs of this process have written.
    static func open(_ path: String, continuing: Bool) throws(SystemError) -> TraceFile {
        completeAtExit
        let process = getpid()
        let name = path.split(separator: "%p", omittingEmptySubsequences: false).joined(separator: "\(process)")
        let result = known.withLock { files -> Result<TraceFile, SystemError> in
            let file = files[name].flatMap { $0.owner == process ? $0 : nil } ?? TraceFile(path, name: name)
            let isKnown = files[name] === file
            do throws(SystemError) {
                try file.addUser(continuing: continuing && isKnown)
            } catch {
                return .failure(error)
            }
            files[name] = file
            return .success(file)
        }
        return try result.get()
    }

    private func addUser(continuing: Bool) throws(SystemError) {
        let failure = state.withLock { state -> SystemError? in
            if !state.isOpen {
                let opened: CInt
                do throws(SystemError) {
                    opened = try openSafely()
                } catch {
                    return error
                }
                if let error = continuing ? reopenArray(opened) : beginArray(opened) {
                    Glibc.close(opened)
                    return cannotOpen(error)
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

    private func cannotOpen(_ errno: CInt, _ message: String? = nil) -> SystemError {
        SystemError(errno: errno, operation: "open the trace", object: name, message: message)
    }

    /// Opens or creates the file. Leaves a file that it refuses unchanged.
    private func openSafely() throws(SystemError) -> CInt {
        // Without O_NONBLOCK, opening a FIFO waits for its reader. On a regular file the flag has no effect.
        let opened = Glibc.open(name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0o666)
        if opened < 0 {
            let error = errno
            // For a FIFO without a reader the kernel reports "no such device".
            let message: String? =
                switch error {
                case ELOOP: "ELOOP: it is a symbolic link, which is not followed"
                case ENXIO: "ENXIO: it is not a regular file"
                default: nil
                }
            throw cannotOpen(error, message)
        }
        var status = stat()
        let error = fstat(opened, &status) == 0 ? 0 : errno
        let reason: String? =
            if error != 0 {
                LoopError(errno: error, operation: "fstat").message
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
        throw cannotOpen(error == 0 ? EPERM : error, reason)
    }

    private func beginArray(_ file: CInt) -> CInt? {
        if ftruncate(file, 0) != 0 || lseek(file, 0, SEEK_SET) < 0 { return errno }
        // With this event first, every later event can start with a comma.
        let text = """
            [
            {"ph":"M","pid":\(owner),"tid":0,"name":"process_labels","args":{"labels":"gevent \(version)"}}
            """
        return TraceFile.write(Array(text.utf8), to: file)
    }

    /// Removes the closing bracket, which was written when the file was closed.
    private func reopenArray(_ file: CInt) -> CInt? {
        let size = lseek(file, 0, SEEK_END)
        if size < 0 { return errno }
        // The file was removed, replaced or truncated meanwhile.
        if size <= TraceFile.end.utf8.count { return beginArray(file) }
        let rest = size - TraceFile.end.utf8.count
        if ftruncate(file, rest) != 0 || lseek(file, rest, SEEK_SET) < 0 { return errno }
        return nil
    }

    /// Appends complete events. Returns whether that succeeded, and prints the first failure.
    func write(_ bytes: [UInt8]) -> Bool {
        if getpid() != owner { return false }
        return state.withLock { state in
            guard state.isOpen, !state.hasFailed else { return false }
            guard let error = TraceFile.write(bytes, to: descriptor.load(ordering: .relaxed)) else { return true }
            state.hasFailed = true
            printToStandardError("gevent: \(SystemError(errno: error, operation: "the trace \(name) ends here"))\n")
            return false
        }
    }

    /// Closes the file for one hub. The last close completes the array.
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

    /// Closes the inherited descriptor in a forked child. Takes no lock: a thread of the parent may have held it at the
    /// fork.
    func abandon() {
        let file = descriptor.exchange(-1, ordering: .relaxed)
        if file >= 0 { Glibc.close(file) }
    }

    /// Writes all of `bytes`. Returns nil, or an errno.
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

    /// Completes the files of a process that exits without destroying its hubs. Events that other threads have buffered
    /// are lost.
    private static let completeAtExit: Void = {
        atexit {
            if Hub.exists { Hub.current.stopTrace() }
            let process = getpid()
            let files = TraceFile.known.withLock { Array($0.values) }
            for file in files where file.owner == process { file.state.withLock { file.complete(&$0) } }
        }
    }()
}
