internal import CGeventSystem
internal import GeventSettings
internal import Glibc

/// An error of an event loop, with a code that other code can act on.
///
/// A bad descriptor causes this error on every backend, and never an abort.
public struct LoopError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of failure. New kinds may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// The descriptor is not open in this process (`EBADF`).
        case badDescriptor
        /// The descriptor is open, but the kernel cannot poll it: a regular file or a directory.
        case notPollable
        /// The loop has been closed.
        case closed
        /// The kernel has run out of memory, descriptors or watches.
        case outOfResources
        /// This kernel or this backend does not support the operation.
        case unsupported
        /// Another system call failed; ``LoopError/errno`` has its error number.
        case system
    }

    /// The kind of failure.
    public let code: Code

    /// The system's error number, or 0 if no system call failed.
    public let errno: CInt

    /// The operation that failed, such as "epoll_ctl(ADD)".
    public let operation: String

    /// The descriptor that the operation was called on, if any.
    public let fileDescriptor: CInt?

    /// A description of the failure for people, without the operation and the descriptor.
    public let message: String

    /// Creates an error from its parts.
    ///
    /// - Parameters:
    ///   - code: the kind of failure.
    ///   - errno: the system's error number, 0 if none.
    ///   - operation: the operation that failed. Control characters in it and in the message, such as those of a file's
    ///     name, are escaped.
    ///   - fileDescriptor: the descriptor that the operation was called on.
    ///   - message: a description of the failure; if nil, it is made from the code and the error number.
    // Never inlined, like the other one: inlined, its temporaries would enlarge the stack frames of calls that register
    // a descriptor. These run on greenlets' stacks, so each idle connection would keep a second page.
    @inline(never)
    public init(
        _ code: Code, errno: CInt = 0, operation: String, fileDescriptor: CInt? = nil, message: String? = nil
    ) {
        self.code = code
        self.errno = errno
        self.operation = printable(operation)
        self.fileDescriptor = fileDescriptor
        self.message = message.map(printable) ?? Self.text(for: code, errno: errno)
    }

    /// Creates the error for a failed system call; its code follows from the error number.
    ///
    /// - Parameters:
    ///   - errno: the error number that the call set.
    ///   - operation: the call, such as "epoll_ctl(ADD)".
    ///   - fileDescriptor: the descriptor it was called on.
    @inline(never)
    public init(errno: CInt, operation: String, fileDescriptor: CInt? = nil) {
        let code: Code =
            switch errno {
            case EBADF: .badDescriptor
            // `epoll_ctl` reports this for a file that has no poll operation.
            case EPERM: .notPollable
            case ENOMEM, ENOSPC, EMFILE, ENFILE: .outOfResources
            case ENOSYS, EOPNOTSUPP: .unsupported
            default: .system
            }
        self.init(code, errno: errno, operation: operation, fileDescriptor: fileDescriptor)
    }

    /// Returns the result of a system call, or throws if the result is a negated error number.
    @_spi(GeventInternals)
    @discardableResult
    public static func check(_ result: CInt, _ operation: String) throws(LoopError) -> CInt {
        if result < 0 { throw LoopError(errno: -result, operation: operation) }
        return result
    }

    /// The complete error on one line, such as
    /// "epoll_ctl(ADD) on descriptor 7: the descriptor is not open: EBADF (Bad file descriptor)".
    public var description: String {
        if let fileDescriptor {
            "\(operation) on descriptor \(fileDescriptor): \(message)"
        } else {
            "\(operation): \(message)"
        }
    }

    private static func text(for code: Code, errno: CInt) -> String {
        let meaning: String? =
            switch code {
            case .badDescriptor: "the descriptor is not open"
            case .notPollable: "the kernel cannot poll this kind of file"
            case .closed: "the loop has been closed"
            case .outOfResources: "the system has run out of resources"
            case .unsupported: "not supported here"
            case .system: nil
            }
        if errno == 0 { return meaning ?? "failed" }
        let reason = describe(errno)
        return meaning.map { "\($0): \(reason)" } ?? reason
    }

    static func describe(_ errno: CInt) -> String {
        guard let name = gevent_errno_name(errno), let text = gevent_errno_text(errno) else { return "errno \(errno)" }
        return "\(String(cString: name)) (\(String(cString: text)))"
    }
}
