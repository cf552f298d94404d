internal import GeventCore

/// The status of a child process as `waitpid` reports it: how it ended, or that it was stopped or continued.
public struct ChildStatus: Sendable, Hashable, CustomStringConvertible {
    /// The raw status from `waitpid`.
    public let rawValue: CInt

    /// Creates a status from a raw status of `waitpid`.
    public init(rawValue: CInt) { self.rawValue = rawValue }

    /// The exit code; nil if the process did not exit by itself.
    public var exitCode: CInt? { rawValue & 0x7f == 0 ? (rawValue >> 8) & 0xff : nil }

    /// The signal that killed the process; nil if none did.
    public var terminatingSignal: CInt? {
        let signal = rawValue & 0x7f
        return signal == 0 || signal == 0x7f ? nil : signal
    }

    /// Whether the kernel wrote a core dump when a signal killed the process.
    public var dumpedCore: Bool { terminatingSignal != nil && rawValue & 0x80 != 0 }

    /// The signal that stopped the process; nil if it is not stopped.
    public var stoppingSignal: CInt? { rawValue & 0xff == 0x7f ? (rawValue >> 8) & 0xff : nil }

    /// Whether the process was stopped and has been continued.
    public var isContinued: Bool { rawValue == 0xffff }

    /// Whether the process ended with exit code 0.
    public var isSuccess: Bool { rawValue == 0 }

    /// The status as text: "exit code 3", "killed by signal 9", "stopped by signal 19", "continued".
    public var description: String {
        if isContinued { return "continued" }
        if let exitCode { return "exit code \(exitCode)" }
        if let stoppingSignal { return "stopped by signal \(stoppingSignal)" }
        return "killed by signal \(rawValue & 0x7f)\(dumpedCore ? ", core dumped" : "")"
    }
}
