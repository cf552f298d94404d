/// Runs `body` under a timeout, which is cancelled on every way out.
///
/// When the time is up, the timeout, or `error` if given, is thrown where `body` waits. Scopes nest: each sees only its
/// own expiry, and equal deadlines fire in the order started. Nil never fires. Throws ``HubError`` with `.blockedInHub`
/// in a hub callback.
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
/// Outside the scope the timeout is an ordinary error. To go on with a value of your own instead, use
/// ``withTimeout(_:timeoutValue:_:)`` or ``withSilentTimeout(_:_:)``, which recognise their own expiry.
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

/// Runs `body` under a timeout whose expiry, and no other, gives `timeoutValue`. Throws what `body` throws, timeouts of
/// others among it; and ``HubError`` with `.blockedInHub` in a hub callback.
///
/// gevent: `gevent.with_timeout(seconds, function, timeout_value=…)`.
@available(*, noasync)
@inlinable
public func withTimeout<Value>(
    _ duration: Duration?, timeoutValue: @autoclosure () throws -> Value, _ body: () throws -> Value
) throws -> Value {
    let timeout = Timeout(duration)
    try timeout.startOrThrow()
    defer { timeout.cancel() }
    do {
        return try body()
    } catch let caught as Timeout where caught === timeout {
        return try timeoutValue()
    }
}

/// Runs `body` under a timeout whose expiry, and no other, gives nil. Throws what `body` throws, timeouts of others
/// among it; and ``HubError`` with `.blockedInHub` in a hub callback.
///
/// gevent: `with Timeout(seconds, False):`.
@available(*, noasync)
public func withSilentTimeout<Value>(_ duration: Duration?, _ body: () throws -> Value) throws -> Value? {
    let timeout = Timeout(silent: duration)
    try timeout.startOrThrow()
    defer { timeout.cancel() }
    do {
        return try body()
    } catch let caught as Timeout where caught === timeout {
        return nil
    }
}
