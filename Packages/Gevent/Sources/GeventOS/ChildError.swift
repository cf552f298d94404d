internal import GeventCore
internal import Glibc

/// The error of a wait for a child process that cannot succeed.
public struct ChildError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of reason. New kinds may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// The process is not a child of this process, or its status has been taken already: by another wait, or by the
        /// kernel, which keeps no status while SIGCHLD is ignored.
        case notAChild
        /// There is no process with this ID.
        case noSuchProcess
        /// The ID is not positive, so it does not identify a single process.
        case invalidIdentifier
        /// The watch was cancelled, or its hub was destroyed.
        case cancelled
    }

    /// The kind of reason.
    public let code: Code
    /// The requested process ID.
    public let pid: CInt
    init(_ code: Code, pid: CInt) {
        self.code = code
        self.pid = pid
    }

    /// Makes the error for a failed `waitpid`.
    static func make(errno: CInt, pid: CInt) -> any Error {
        switch errno {
        case ESRCH: return ChildError(.noSuchProcess, pid: pid)
        case ECHILD:
            // waitpid also fails with ECHILD if there is no such process.
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
