/// An error that controls a greenlet from outside: a kill or a timeout, thrown by the call that parks.
///
/// Python's counterparts bypass ordinary handlers. Swift has one kind of error, so `catch { }` and `try?` around a call
/// that parks catch control errors too. In a catch-all, rethrow them:
///
/// ```swift
/// do {
///     try work()
/// } catch {
///     try rethrowControl(error)
///     log(error)
/// }
/// ```
///
/// A ``Timeout`` counts as one only while it controls the current greenlet; ``rethrowControl(_:)`` checks that.
public protocol ControlError: Error {}

/// An error that ends a greenlet silently: nothing is printed, and the greenlet counts as successful.
///
/// Conform to it where a gevent program would subclass `GreenletExit`.
public protocol GreenletExitError: ControlError {}

/// The default error of a kill.
///
/// gevent: `gevent.GreenletExit`.
public struct GreenletExit: GreenletExitError, Sendable, Hashable, CustomStringConvertible {
    /// The group that delivered it to its greenlets. The group must recognise its own exits when `get` rethrows them.
    private let group: ObjectIdentifier?

    /// The plain exit.
    public init() { group = nil }

    init(from group: GreenletGroup) { self.group = ObjectIdentifier(group) }

    func isFrom(_ group: GreenletGroup) -> Bool { self.group == ObjectIdentifier(group) }

    /// Returns true: all plain exits are equal, whatever their origin.
    public static func == (_: GreenletExit, _: GreenletExit) -> Bool { true }

    public func hash(into hasher: inout Hasher) {}

    public var description: String { "GreenletExit" }
}

/// Returns whether `error` ends a greenlet silently. Most exits are plain ones, which are recognised without a
/// conformance lookup.
package func isExit(_ error: any Error) -> Bool {
    type(of: error) == GreenletExit.self || error is any GreenletExitError
}

/// Rethrows `error` if it is a kill or a timeout of the current greenlet, and returns otherwise.
///
/// Use it as the first line of a `catch { }` around code that parks. A ``Timeout`` is rethrown while it controls the
/// current greenlet: until its scope ends or ``Timeout/cancel()`` is called. Three kinds of timeouts are ordinary
/// errors: one whose scope has ended, one from a call with a time limit, and one that another greenlet failed with.
/// Never parks.
public func rethrowControl(_ error: any Error) throws {
    if isControl(error) { throw error }
}

/// Returns whether `error` controls the current greenlet from outside.
func isControl(_ error: any Error) -> Bool {
    if let timeout = error as? Timeout { return timeout.controlsCurrentGreenlet }
    return error is any ControlError
}

/// Ctrl-C as an error. It is raised in main where main is parked, once `installSIGINTHandler()` has been called.
///
/// A ``ControlError``: like a kill, it should not be swallowed.
///
/// gevent: Python's `KeyboardInterrupt`.
public struct KeyboardInterrupt: ControlError, Sendable, Hashable, CustomStringConvertible {
    /// The interrupt.
    public init() {}

    public var description: String { "KeyboardInterrupt" }
}
