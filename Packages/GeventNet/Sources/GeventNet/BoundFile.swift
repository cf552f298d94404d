internal import CGeventSystem
internal import Glibc

/// The file of a Unix socket that this process bound. It is identified so that only the same file is removed later.
///
/// By then the process may have changed its working directory or forked, or the path may name the file of a successor.
struct BoundFile {
    /// The absolute path.
    private let path: String
    private let file: gevent_net_file
    private let process: pid_t

    /// Records the file at `path`, which the caller has just bound. Returns nil if the file no longer exists.
    init?(_ path: String) {
        if path.hasPrefix("/") {
            self.path = path
        } else {
            // A null buffer makes getcwd allocate one of the right size.
            guard let directory = getcwd(nil, 0) else { return nil }
            self.path = "\(String(cString: directory))/\(path)"
            free(directory)
        }
        var found = gevent_net_file()
        guard gevent_net_find_file(self.path, &found) else { return nil }
        file = found
        process = getpid()
    }

    /// Removes the file if this process bound it and the path still names it. A forked child removes nothing, because
    /// the parent still listens.
    func remove() {
        var found = gevent_net_file()
        guard process == getpid(), gevent_net_find_file(path, &found), found.device == file.device,
            found.inode == file.inode, found.birth_seconds == file.birth_seconds,
            found.birth_nanoseconds == file.birth_nanoseconds
        else { return }
        unlink(path)
    }
}
