internal import GeventCore
internal import Glibc

/// Why a signal cannot be watched.
public struct SignalError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of reason. New kinds may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// No signal has this number, or the C library keeps it for itself.
        case noSuchSignal
        /// The kernel never hands it to a program: SIGKILL and SIGSTOP.
        case cannotBeCaught
        /// It tells of a fault in the very instruction that runs, to which the program cannot return: SIGSEGV, SIGBUS,
        /// SIGFPE, SIGILL, SIGTRAP, SIGSYS and SIGABRT.
        case synchronous
        /// Another reason; ``SignalError/errno`` says which.
        case system
    }

    /// The kind of reason.
    public let code: Code
    /// The number that was asked for.
    public let signal: CInt
    /// The system's error number, 0 if none.
    public let errno: CInt

    init(_ code: Code, signal: CInt, errno: CInt = 0) {
        self.code = code
        self.signal = signal
        self.errno = errno
    }

    public var description: String {
        switch code {
        case .noSuchSignal: "signal \(signal): there is no such signal, or the C library keeps it for itself"
        case .cannotBeCaught: "signal \(signal): the kernel lets no program catch it"
        case .synchronous: "signal \(signal): it tells of a fault in the instruction that runs, not of an event"
        case .system: "signal \(signal): sigaction failed with errno \(errno)"
        }
    }

    /// Throws unless a number is one that a program can be told of.
    static func check(_ signal: CInt) throws(SignalError) {
        switch signal {
        case SIGKILL, SIGSTOP: throw SignalError(.cannotBeCaught, signal: signal)
        case SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT: throw SignalError(.synchronous, signal: signal)
        case 1...64: return
        default: throw SignalError(.noSuchSignal, signal: signal)
        }
    }
}
