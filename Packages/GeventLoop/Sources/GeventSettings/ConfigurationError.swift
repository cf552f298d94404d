/// An error about a setting that cannot be used. It names the variable and its value, and states how to correct it.
public struct ConfigurationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of failure. New kinds may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// The setting does not accept the value.
        case invalidValue
        /// The settings have already been read, so a change would have no effect.
        case tooLate
        /// `GEVENT_LOOP` names only loops that are not linked into this program.
        case noSuchLoop
        /// No loop is linked into this program.
        case noLoopLinked
        /// Loops are linked, but none of the candidates could be started.
        case loopFailed
    }

    /// The kind of failure.
    public let code: Code

    /// The variable that has the error, such as "GEVENT_LOOP".
    public let setting: String

    /// The complete message, on one line.
    public let message: String

    /// Creates an error from its parts. Control characters in the message, such as those of a variable's value, are
    /// escaped.
    public init(_ code: Code, setting: String, message: String) {
        self.code = code
        self.setting = setting
        self.message = printable(message)
    }

    /// The message.
    public var description: String { message }
}
