internal import GeventCore
internal import Glibc

/// Why a child process cannot be waited for.
public struct ChildError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of reason. New kinds may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// It is no child of this process, or has been waited for already: by another wait, or by the kernel, which
        /// keeps no status while SIGCHLD is ignored.
        case notAChild
        /// No process has this identifier.
        case noSuchProcess
        /// The number names no single process.
        case invalidIdentifier
        /// The watch was cancelled, or its hub destroyed.
        case cancelled
        /// Another reason; ``ChildError/errno`` says which.
        case system
    }

    /// The kind of reason.
    public let code: Code
    /// The identifier that was asked for.
    public let pid: CInt
    /// The system's error number, 0 if none.
    public let errno: CInt

    init(_ code: Code, pid: CInt, errno: CInt = 0) {
        self.code = code
        self.pid = pid
        self.errno = errno
    }

    init(errno: CInt, pid: CInt) {
        // ECHILD for both; whether there is such a process, kill tells.
        let code: Code =
            switch errno {
            case ECHILD: pid > 0 && kill(pid, 0) != 0 && Glibc.errno == ESRCH ? .noSuchProcess : .notAChild
            case ESRCH: .noSuchProcess
            default: .system
            }
        self.init(code, pid: pid, errno: errno)
    }

    public var description: String {
        switch code {
        case .notAChild: pid > 0 ? "process \(pid) is no child, or has been waited for" : "there are no such children"
        case .noSuchProcess: "there is no process \(pid)"
        case .invalidIdentifier: "\(pid) identifies no single process"
        case .cancelled: "the watch of process \(pid) was cancelled"
        case .system: "waiting for process \(pid) failed with errno \(errno)"
        }
    }
}
