internal import Synchronization

/// A setting as `gevent-info`, error messages and the documentation describe it.
///
/// Two settings are equal if they have the same name.
public struct Setting: Sendable, Hashable {
    /// The environment variable, such as "GEVENT_STACK_SIZE".
    public let name: String

    /// A description of the accepted values, such as "yes or no".
    public let type: String

    /// The value if neither code nor the environment sets one.
    public let defaultText: String

    /// One sentence on the effect of the setting.
    public let summary: String

    /// Parses a text and returns the value, or nil if the setting does not accept it.
    let parse: @Sendable (String) -> (any Sendable)?

    /// Every setting of the modules that are linked into this program, sorted by name. Any thread may read it.
    public static var all: [Setting] {
        LinkedModule.runRegistrars()
        return registered.withLock { $0.sorted { $0.name < $1.name } }
    }

    /// Registers settings, replacing those of the same names. Any thread may call it.
    ///
    /// A module that is only linked, and never called, registers its settings by ``LinkedModule/register(_:)``.
    /// Registered settings are parsed, documented, and listed by `gevent-info`.
    public static func register(_ settings: Setting...) {
        registered.withLock { table in
            for setting in settings { table.update(with: setting) }
        }
    }

    private static let registered = Mutex<Set<Setting>>([])

    public static func == (left: Setting, right: Setting) -> Bool { left.name == right.name }

    public func hash(into hasher: inout Hasher) { hasher.combine(name) }
}
