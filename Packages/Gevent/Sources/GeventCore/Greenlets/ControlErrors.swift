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
///
/// A ``Timeout`` is one of them only as long as it controls the current greenlet, which ``rethrowControl(_:)`` knows.
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
package func isExit(_ error: any Error) -> Bool {
    type(of: error) == GreenletExit.self || error is any GreenletExitError
}

/// Throws `error` again if it is a kill or a timeout of the current greenlet, and returns otherwise.
///
/// For the first line of a `catch { }` around code that parks. A ``Timeout`` is thrown again while it controls the
/// current greenlet: until its scope is left, or ``Timeout/cancel()`` is called. One whose scope has been left, that of
/// a call that was given a limit, or one that another greenlet failed with is an ordinary error. Never parks.
public func rethrowControl(_ error: any Error) throws {
    if isControl(error) { throw error }
}

/// Whether `error` steers the current greenlet from outside.
func isControl(_ error: any Error) -> Bool {
    if let timeout = error as? Timeout { return timeout.controlsCurrentGreenlet }
    return error is any ControlError
}

/// Ctrl-C, as an error: raised in main where it is parked, once ``Hub/installSIGINTHandler()`` was called.
///
/// A ``ControlError``: like a kill, it is meant to get through.
///
/// gevent: Python's `KeyboardInterrupt`.
public struct KeyboardInterrupt: ControlError, Sendable, Hashable, CustomStringConvertible {
    /// The interrupt.
    public init() {}

    public var description: String { "KeyboardInterrupt" }
}
