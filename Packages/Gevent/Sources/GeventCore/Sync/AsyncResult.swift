/// A future value or error that any number of greenlets can wait for.
///
/// ```swift
/// let answer = AsyncResult<Int>()
/// spawn { answer.set(try compute()) }
/// print(try answer.get())
/// ```
///
/// Once it is ready it stays ready. Setting it again replaces the whole outcome. It may be created before any hub
/// exists, and belongs to the thread that first uses it. It is unrelated to Swift's `async`.
///
/// gevent: `gevent.event.AsyncResult`.
public final class AsyncResult<Value>: _WaitableObject, CustomStringConvertible {
    @usableFromInline @exclusivity(unchecked) var stored: Result<Value, any Error>?

    /// Creates a result without an outcome.
    @inlinable
    public override init() {
        stored = nil
        super.init()
    }

    /// The outcome; nil before there is one. An exit is a failure.
    @inlinable
    public var result: Result<Value, any Error>? { stored }

    /// Whether there is an outcome; a value that is itself nil counts.
    ///
    /// gevent: `AsyncResult.ready()`.
    @inlinable
    public override var isReady: Bool { stored != nil }

    /// Whether there is a value or an exit; false before there is an outcome, and after an error.
    ///
    /// gevent: `AsyncResult.successful()`.
    public var isSuccessful: Bool { isReady && error == nil }

    /// The value; nil before there is an outcome, and after an error or an exit.
    ///
    /// gevent: `AsyncResult.value`.
    public var value: Value? {
        if case .success(let value) = result { value } else { nil }
    }

    /// The error; nil before there is an outcome, and after a value or an exit.
    ///
    /// gevent: `AsyncResult.exception`.
    public var error: (any Error)? {
        if case .failure(let error) = result, !isExit(error) { error } else { nil }
    }

    /// The exit of the greenlet that was linked to this result; nil for any other outcome.
    public var exit: (any GreenletExitError)? {
        if case .failure(let error) = result { error as? any GreenletExitError } else { nil }
    }

    /// Stores a value and makes all waiters ready, in the order of their arrival. Never parks; works in a hub callback.
    /// Traps on a foreign thread.
    ///
    /// gevent: `AsyncResult.set(value)`.
    @inlinable
    @available(*, noasync)
    public func set(_ value: Value) { set(.success(value)) }

    /// Stores an error, which every call to ``get(blocking:timeout:)`` throws from now on; otherwise like
    /// ``set(_:)-(Value)``.
    ///
    /// gevent: `AsyncResult.set_exception(exception)`.
    @inlinable
    @available(*, noasync)
    public func setError(_ error: any Error) { set(.failure(error)) }

    /// Stores a value or an error; otherwise like ``set(_:)-(Value)``.
    @inlinable
    @available(*, noasync)
    public func set(_ result: Result<Value, any Error>) {
        _ = hubBinding.requireHub()
        let isFirst = stored == nil
        stored = result
        didBecomeReady(isFirst: isFirst)
    }

    /// Parks until there is an outcome, or for at most `timeout`. Returns the value or throws the error, in every call.
    ///
    /// Does not park if there is an outcome. Throws a ``Timeout`` when `timeout` expires; with `blocking: false` or a
    /// timeout of zero or less, a result without an outcome throws it at once. Also throws the errors of
    /// ``Event/wait(timeout:)``.
    ///
    /// gevent: `AsyncResult.get(block=True, timeout=None)`.
    @inlinable
    @available(*, noasync)
    public func get(blocking: Bool = true, timeout: Duration? = nil) throws -> Value {
        _ = try hubBinding.hub()
        if stored == nil {
            let limit: Duration? = blocking ? timeout : .zero
            guard try waitForResult(limit) else { throw Timeout(limit) }
        }
        return try outcome()
    }

    /// Waits like ``get(blocking:timeout:)``, but under the given timeout, which it starts unless it is pending. When
    /// the timeout expires, that object, or the error it carries, is thrown. The timeout is cancelled when the wait
    /// ends in any way, and unchanged if there is no wait.
    @available(*, noasync)
    public func get(timeout: Timeout) throws -> Value {
        _ = try hubBinding.hub()
        if stored == nil {
            try timeout.around { _ = try waitForResult(nil) }
        }
        return try outcome()
    }

    /// Returns the value or throws the error; throws a ``Timeout`` if there is no outcome. Never parks.
    ///
    /// gevent: `AsyncResult.get_nowait()`.
    public func getNowait() throws -> Value {
        _ = try hubBinding.hub()
        guard let stored else { throw Timeout(.zero) }
        return try stored.get()
    }

    /// Parks until there is an outcome, or for at most `timeout`. Returns the value, or nil for an error or an exit,
    /// and when `timeout` expires.
    ///
    /// If there is already an outcome, waiters that were woken for it and have not run yet run first. Throws the errors
    /// of ``Event/wait(timeout:)``, but neither the stored error nor a timeout of its own.
    ///
    /// gevent: `AsyncResult.wait(timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public func wait(timeout: Duration? = nil) throws -> Value? {
        let hub = try hubBinding.hub()
        if stored != nil {
            yieldToEarlierWaiters(hub, timeout)
        } else {
            _ = try waitForResult(timeout)
        }
        return value
    }

    @inlinable
    func outcome() throws -> Value {
        // An outcome is never removed.
        guard let stored else { preconditionFailure("an AsyncResult without an outcome was notified") }
        return try stored.get()
    }

    /// "<AsyncResult unset>", "<AsyncResult value>", "<AsyncResult error: …>" or "<AsyncResult exit>", with the
    /// number of waiters.
    public var description: String {
        let state =
            switch result {
            case nil: "unset"
            case .success: "value"
            case .failure(let error): isExit(error) ? "exit" : "error: \(error)"
            }
        return "<AsyncResult \(state)\(waiters.waitingText)>"
    }
}

extension Greenlet {
    /// Copies this greenlet's outcome, which is a value, an error or an exit, to `result` when the greenlet ends.
    ///
    /// The hub copies it in the order of the greenlet's links. If the greenlet has already ended, the hub copies it as
    /// soon as the caller parks or yields. Repeatable. Traps on a foreign thread.
    ///
    /// gevent: `Greenlet.link(result)`.
    @discardableResult
    public final func link(to result: AsyncResult<Output>) -> Registration {
        rawLink { (greenlet: Greenlet<Output>) in
            if let outcome = greenlet.result { result.set(outcome) }
        }
    }
}
