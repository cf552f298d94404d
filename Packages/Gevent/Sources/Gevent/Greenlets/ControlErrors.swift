/// Errors that steer a greenlet from outside: a kill or a timeout, thrown at the call that waits.
///
/// Python keeps its counterparts out of the way of ordinary handlers; Swift has one kind of error, so `catch { }` and
/// `try?` around a call that parks swallow them too. In a catch-all, pass them on:
///
/// ```swift
/// do {
///     try work()
/// } catch {
///     try rethrowControl(error)
///     log(error)
/// }
/// ```
public protocol ControlError: Error {}

/// An error that ends a greenlet silently: nothing is printed and the greenlet counts as successful.
///
/// Conform where one would subclass gevent's `GreenletExit`.
public protocol GreenletExitError: ControlError {}

/// What a kill throws unless told otherwise.
///
/// gevent: `gevent.GreenletExit`.
public struct GreenletExit: GreenletExitError, Sendable, Hashable, CustomStringConvertible {
    /// The group that threw it into its greenlets, which has to know its own exits again when `get` throws them.
    private let group: ObjectIdentifier?

    /// The plain exit.
    public init() { group = nil }

    init(from group: GreenletGroup) { self.group = ObjectIdentifier(group) }

    func isFrom(_ group: GreenletGroup) -> Bool { self.group == ObjectIdentifier(group) }

    /// All are equal, whoever threw them.
    public static func == (_: GreenletExit, _: GreenletExit) -> Bool { true }

    public func hash(into hasher: inout Hasher) {}

    public var description: String { "GreenletExit" }
}

/// Whether `error` ends a greenlet silently. Most exits are the plain one, which is found without the search for a
/// conformance.
func isExit(_ error: any Error) -> Bool { type(of: error) == GreenletExit.self || error is any GreenletExitError }

/// Throws `error` again if it is a kill or a timeout, and returns otherwise.
///
/// For the first line of a `catch { }` around code that parks. Never parks.
public func rethrowControl(_ error: any Error) throws {
    if error is any ControlError { throw error }
}
