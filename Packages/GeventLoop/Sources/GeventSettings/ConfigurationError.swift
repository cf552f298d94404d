/// A setting that cannot be used: names the variable, its value, and what would be right.
public struct ConfigurationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of failure. New kinds may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// The value is not one of those the setting takes.
        case invalidValue
        /// The settings have been read already, so a change would have no effect.
        case tooLate
        /// `GEVENT_LOOP` names only loops that are not linked into this program.
        case noSuchLoop
        /// No loop is linked into this program at all.
        case noLoopLinked
        /// Loops are linked, but none of those that were tried could start.
        case loopFailed
    }

    /// The kind of failure.
    public let code: Code

    /// The variable it is about, such as "GEVENT_LOOP".
    public let setting: String

    /// The whole message, on one line.
    public let message: String

    /// An error with these parts. Control characters in the message, such as those of a variable's value, are escaped.
    public init(_ code: Code, setting: String, message: String) {
        self.code = code
        self.setting = setting
        self.message = printable(message)
    }

    /// The message.
    public var description: String { message }
}
