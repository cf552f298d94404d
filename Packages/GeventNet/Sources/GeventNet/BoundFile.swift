internal import CGeventSystem
internal import Glibc

/// The file of a Unix socket that this process has bound, so that the same file can be removed later.
///
/// Meanwhile the process may have changed its working directory, or have been forked, and the path may lead to the file
/// of a successor.
struct BoundFile {
    /// Absolute.
    private let path: String
    private let file: gevent_net_file
    private let process: pid_t

    /// The file at `path`, which the caller has just bound. Nil if it is gone already.
    init?(_ path: String) {
        if path.hasPrefix("/") {
            self.path = path
        } else {
            // Null asks for a buffer of the right size.
            guard let directory = getcwd(nil, 0) else { return nil }
            self.path = "\(String(cString: directory))/\(path)"
            free(directory)
        }
        var found = gevent_net_file()
        guard gevent_net_find_file(self.path, &found) else { return nil }
        file = found
        process = getpid()
    }

    /// Removes the file if this process bound it and it is still there. A forked child removes nothing: the parent goes
    /// on listening.
    func remove() {
        var found = gevent_net_file()
        guard process == getpid(), gevent_net_find_file(path, &found), found.device == file.device,
            found.inode == file.inode, found.birth_seconds == file.birth_seconds,
            found.birth_nanoseconds == file.birth_nanoseconds
        else { return }
        unlink(path)
    }
}
