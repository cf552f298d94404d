internal import GeventCore

/// How a child process ended, or what else became of it: the raw status of `waitpid`, and what it means.
public struct ChildStatus: Sendable, Hashable, CustomStringConvertible {
    /// The number as `waitpid` gives it.
    public let rawValue: CInt

    /// The meaning of a number from `waitpid`.
    public init(rawValue: CInt) { self.rawValue = rawValue }

    /// What it gave to `exit`, if it ended that way.
    public var exitCode: CInt? { rawValue & 0x7f == 0 ? (rawValue >> 8) & 0xff : nil }

    /// The signal that ended it, if one did.
    public var terminatingSignal: CInt? {
        let signal = rawValue & 0x7f
        return signal == 0 || signal == 0x7f ? nil : signal
    }

    /// Whether the kernel wrote its memory to a file when a signal ended it.
    public var dumpedCore: Bool { terminatingSignal != nil && rawValue & 0x80 != 0 }

    /// The signal that has stopped it, if it is stopped and not over.
    public var stoppingSignal: CInt? { rawValue & 0xff == 0x7f ? (rawValue >> 8) & 0xff : nil }

    /// Whether it was stopped and goes on.
    public var isContinued: Bool { rawValue == 0xffff }

    /// Whether it ended by `exit(0)`.
    public var isSuccess: Bool { rawValue == 0 }

    /// "exit code 3", "killed by signal 9", "stopped by signal 19", "continued".
    public var description: String {
        if isContinued { return "continued" }
        if let exitCode { return "exit code \(exitCode)" }
        if let stoppingSignal { return "stopped by signal \(stoppingSignal)" }
        return "killed by signal \(rawValue & 0x7f)\(dumpedCore ? ", core dumped" : "")"
    }
}
