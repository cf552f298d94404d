/// The failure of a system call outside an event loop and outside a socket, such as opening a file to watch or to
/// write.
///
/// A loop throws ``LoopError``, and sockets have an error type of their own.
public struct SystemError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The system's error number, such as `ENOENT`.
    public let errno: CInt

    /// The operation that failed, usually a system call such as "inotify_add_watch".
    public let operation: String

    /// The object of the operation, such as a path; nil if there is none.
    public let object: String?

    /// A description of the failure for people, without the operation and the object.
    public let message: String

    /// Creates the error for a failed system call.
    ///
    /// - Parameters:
    ///   - errno: the error number that the call set.
    ///   - operation: the operation that failed.
    ///   - object: the object of the operation. Control characters in it, such as those of a file's name, are escaped.
    ///   - message: a description of the failure; if nil, it is made from the error number.
    public init(errno: CInt, operation: String, object: String? = nil, message: String? = nil) {
        self.errno = errno
        self.operation = printable(operation)
        self.object = object.map(printable)
        self.message = message.map(printable) ?? LoopError.describe(errno)
    }

    /// The error on one line, such as "inotify_add_watch /etc/x: EACCES (Permission denied)".
    public var description: String { "\(operation)\(object.map { " \($0)" } ?? ""): \(message)" }
}
