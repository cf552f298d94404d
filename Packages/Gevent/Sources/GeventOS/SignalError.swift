internal import GeventCore
internal import Glibc

/// The error of a signal that cannot be watched.
public struct SignalError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of reason. New kinds may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// There is no signal with this number, or the C library reserves it.
        case noSuchSignal
        /// A program cannot catch the signal: SIGKILL and SIGSTOP.
        case cannotBeCaught
        /// The signal reports a fault of the current instruction, to which the program cannot return: SIGSEGV, SIGBUS,
        /// SIGFPE, SIGILL, SIGTRAP, SIGSYS and SIGABRT.
        case synchronous
    }

    /// The kind of reason.
    public let code: Code
    /// The requested signal number.
    public let signal: CInt

    init(_ code: Code, signal: CInt) {
        self.code = code
        self.signal = signal
    }

    public var description: String {
        switch code {
        case .noSuchSignal: "signal \(signal): there is no such signal, or the C library reserves it"
        case .cannotBeCaught: "signal \(signal): a program cannot catch it"
        case .synchronous: "signal \(signal): it reports a fault of the current instruction, not an event"
        }
    }

    /// Throws if a program cannot watch the signal.
    static func check(_ signal: CInt) throws(SignalError) {
        switch signal {
        case SIGKILL, SIGSTOP: throw SignalError(.cannotBeCaught, signal: signal)
        case SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT: throw SignalError(.synchronous, signal: signal)
        case 1...64: return
        default: throw SignalError(.noSuchSignal, signal: signal)
        }
    }
}
