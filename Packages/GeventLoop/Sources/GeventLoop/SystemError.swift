/// A system call that failed, outside an event loop and outside a socket: such as opening a file to watch or to write.
///
/// A loop throws ``LoopError``, and a socket an error of its own.
public struct SystemError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The system's error number, such as `ENOENT`.
    public let errno: CInt

    /// What was being done: most often the system call, such as "inotify_add_watch".
    public let operation: String

    /// What it was done to, such as a path; nil if there is no such thing.
    public let object: String?

    /// What went wrong, for people; without the operation and the object.
    public let message: String

    /// The error for a failed system call.
    ///
    /// - Parameters:
    ///   - errno: the error number the call left behind.
    ///   - operation: what was being done.
    ///   - object: what it was done to. Control characters in it, such as those of a file's name, are escaped.
    ///   - message: what went wrong; if nil, made from the error number.
    public init(errno: CInt, operation: String, object: String? = nil, message: String? = nil) {
        self.errno = errno
        self.operation = printable(operation)
        self.object = object.map(printable)
        self.message = message.map(printable) ?? LoopError.describe(errno)
    }

    /// One line, such as "inotify_add_watch /etc/x: EACCES (Permission denied)".
    public var description: String { "\(operation)\(object.map { " \($0)" } ?? ""): \(message)" }
}
