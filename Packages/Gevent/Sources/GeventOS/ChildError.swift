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
    }

    /// The kind of reason.
    public let code: Code
    /// The identifier that was asked for.
    public let pid: CInt
    init(_ code: Code, pid: CInt) {
        self.code = code
        self.pid = pid
    }

    /// The error for a failed `waitpid`.
    static func make(errno: CInt, pid: CInt) -> any Error {
        switch errno {
        case ESRCH: return ChildError(.noSuchProcess, pid: pid)
        case ECHILD:
            // Also if there is no such process.
            let isMissing = pid > 0 && kill(pid, 0) != 0 && Glibc.errno == ESRCH
            return ChildError(isMissing ? .noSuchProcess : .notAChild, pid: pid)
        default: return SystemError(errno: errno, operation: "wait for process", object: "\(pid)")
        }
    }

    public var description: String {
        switch code {
        case .notAChild: pid > 0 ? "process \(pid) is no child, or has been waited for" : "there are no such children"
        case .noSuchProcess: "there is no process \(pid)"
        case .invalidIdentifier: "\(pid) identifies no single process"
        case .cancelled: "the watch of process \(pid) was cancelled"
        }
    }
}
