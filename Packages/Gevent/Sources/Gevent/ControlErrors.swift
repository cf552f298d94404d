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
    /// The plain exit.
    public init() {}

    public var description: String { "GreenletExit" }
}

/// Throws `error` again if it is a kill or a timeout, and returns otherwise.
///
/// For the first line of a `catch { }` around code that parks. Never parks.
public func rethrowControl(_ error: any Error) throws {
    if error is any ControlError { throw error }
}
