/// Runs `body` under a timeout, which is cancelled on every exit.
///
/// When the timeout expires, it, or `error` if given, is thrown where `body` is parked. Scopes nest: each scope has its
/// own timeout, and timeouts with equal deadlines fire in the order of their starts. Nil never fires. Throws
/// ``HubError`` with `.blockedInHub` in a hub callback.
///
/// ```swift
/// try withTimeout(.seconds(5)) { timeout in
///     do {
///         try download()
///     } catch let caught as Timeout where caught === timeout {
///         print("gave up after \(timeout)")
///     }
/// }
/// ```
///
/// Outside the scope the timeout is an ordinary error. To continue with a default value instead, use
/// ``withTimeout(_:timeoutValue:_:)-(_,_,(Timeout)->Value)`` or ``withSilentTimeout(_:_:)-(_,(Timeout)->Value)``, which
/// catch their own timeout and no other.
///
/// gevent: `with Timeout(seconds, exception):`.
@available(*, noasync)
@inlinable
public func withTimeout<Value>(
    _ duration: Duration?, throwing error: (any Error)? = nil, _ body: (Timeout) throws -> Value
) throws -> Value {
    let timeout = Timeout(duration, throwing: error)
    try timeout.startOrThrow()
    defer { timeout.cancel() }
    return try body(timeout)
}

/// Like ``withTimeout(_:throwing:_:)-(_,_,(Timeout)->Value)``, for a `body` without a parameter.
@available(*, noasync)
@inlinable
public func withTimeout<Value>(
    _ duration: Duration?, throwing error: (any Error)? = nil, _ body: () throws -> Value
) throws -> Value {
    try withTimeout(duration, throwing: error) { _ in try body() }
}

/// Runs `body` under a timeout, and returns `timeoutValue` if that timeout expires. Throws the errors of `body`,
/// including other timeouts, and ``HubError`` with `.blockedInHub` in a hub callback.
///
/// gevent: `gevent.with_timeout(seconds, function, timeout_value=…)`.
@available(*, noasync)
@inlinable
public func withTimeout<Value>(
    _ duration: Duration?, timeoutValue: @autoclosure () throws -> Value, _ body: (Timeout) throws -> Value
) throws -> Value {
    let timeout = Timeout(duration)
    try timeout.startOrThrow()
    defer { timeout.cancel() }
    do {
        return try body(timeout)
    } catch let caught as Timeout where caught === timeout {
        return try timeoutValue()
    }
}

/// Like ``withTimeout(_:timeoutValue:_:)-(_,_,(Timeout)->Value)``, for a `body` without a parameter.
@available(*, noasync)
@inlinable
public func withTimeout<Value>(
    _ duration: Duration?, timeoutValue: @autoclosure () throws -> Value, _ body: () throws -> Value
) throws -> Value {
    try withTimeout(duration, timeoutValue: try timeoutValue()) { _ in try body() }
}

/// Runs `body` under a timeout, and returns nil if that timeout expires. Throws the errors of `body`, including other
/// timeouts, and ``HubError`` with `.blockedInHub` in a hub callback.
///
/// gevent: `with Timeout(seconds, False):`.
@available(*, noasync)
public func withSilentTimeout<Value>(_ duration: Duration?, _ body: (Timeout) throws -> Value) throws -> Value? {
    let timeout = Timeout(silent: duration)
    try timeout.startOrThrow()
    defer { timeout.cancel() }
    do {
        return try body(timeout)
    } catch let caught as Timeout where caught === timeout {
        return nil
    }
}

/// Like ``withSilentTimeout(_:_:)-(_,(Timeout)->Value)``, for a `body` without a parameter.
@available(*, noasync)
public func withSilentTimeout<Value>(_ duration: Duration?, _ body: () throws -> Value) throws -> Value? {
    try withSilentTimeout(duration) { _ in try body() }
}
