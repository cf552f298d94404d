internal import Synchronization

/// One row of the table of settings: what `gevent-info`, the errors and the documentation say about a variable.
///
/// Two rows are equal if they have the same name.
public struct Setting: Sendable, Hashable {
    /// The environment variable, such as "GEVENT_STACK_SIZE".
    public let name: String

    /// What its value looks like, such as "yes or no".
    public let type: String

    /// The value when neither the code nor the environment says anything.
    public let defaultText: String

    /// One sentence that says what it does.
    public let summary: String

    /// The value of a text, or nil if the text is not one.
    let parse: @Sendable (String) -> (any Sendable)?

    /// Every setting of the modules that are linked into this program, by name. Any thread may ask.
    public static var all: [Setting] {
        LinkedModule.runRegistrars()
        return registered.withLock { $0.sorted { $0.name < $1.name } }
    }

    /// Adds settings to the table, in place of those of the same names. Any thread may call it.
    ///
    /// The settings of a module that is only linked, and not called, are registered by ``LinkedModule/register(_:)``.
    /// Parsing, errors, documentation and `gevent-info` follow.
    public static func register(_ settings: Setting...) {
        registered.withLock { table in
            for setting in settings { table.update(with: setting) }
        }
    }

    private static let registered = Mutex<Set<Setting>>([])

    public static func == (left: Setting, right: Setting) -> Bool { left.name == right.name }

    public func hash(into hasher: inout Hasher) { hasher.combine(name) }
}
