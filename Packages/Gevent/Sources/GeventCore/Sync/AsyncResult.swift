/// A value or an error that is not there yet, for any number of greenlets to wait for.
///
/// ```swift
/// let answer = AsyncResult<Int>()
/// spawn { answer.set(try compute()) }
/// print(try answer.get())
/// ```
///
/// It stays ready once it is. Setting it again replaces the outcome as a whole. May be made before any hub exists;
/// belongs to the thread that first uses it. Nothing to do with Swift's `async`.
///
/// gevent: `gevent.event.AsyncResult`.
public final class AsyncResult<Value>: _WaitableObject, CustomStringConvertible {
    @usableFromInline @exclusivity(unchecked) var stored: Result<Value, any Error>?

    /// A result that is not there yet.
    @inlinable
    public override init() {
        stored = nil
        super.init()
    }

    /// The outcome once there is one; an exit is its failure case.
    @inlinable
    public var result: Result<Value, any Error>? { stored }

    /// Whether there is an outcome; a value that is itself nil counts.
    ///
    /// gevent: `AsyncResult.ready()`.
    @inlinable
    public override var isReady: Bool { stored != nil }

    /// Whether there is a value or an exit; false as long as there is nothing, and after an error.
    ///
    /// gevent: `AsyncResult.successful()`.
    public var isSuccessful: Bool { isReady && error == nil }

    /// The value; nil before there is one and after an error or an exit.
    ///
    /// gevent: `AsyncResult.value`.
    public var value: Value? {
        if case .success(let value) = result { value } else { nil }
    }

    /// The error; nil before there is one, and if the outcome is a value or an exit.
    ///
    /// gevent: `AsyncResult.exception`.
    public var error: (any Error)? {
        if case .failure(let error) = result, !isExit(error) { error } else { nil }
    }

    /// The exit of a greenlet that this result was linked to.
    public var exit: (any GreenletExitError)? {
        if case .failure(let error) = result { error as? any GreenletExitError } else { nil }
    }

    /// Stores a value and makes everyone who waits ready, in the order in which they came. Never parks; works in a hub
    /// callback. Traps on a foreign thread.
    ///
    /// gevent: `AsyncResult.set(value)`.
    @inlinable
    @available(*, noasync)
    public func set(_ value: Value) { set(.success(value)) }

    /// Stores an error, which ``get(blocking:timeout:)`` throws to everyone from now on; otherwise like
    /// ``set(_:)-(Value)``.
    ///
    /// gevent: `AsyncResult.set_exception(exception)`.
    @inlinable
    @available(*, noasync)
    public func setError(_ error: any Error) { set(.failure(error)) }

    /// Stores a whole outcome; otherwise like ``set(_:)-(Value)``.
    @inlinable
    @available(*, noasync)
    public func set(_ result: Result<Value, any Error>) {
        _ = home.requireHub()
        let isFirst = stored == nil
        stored = result
        didBecomeReady(isFirst: isFirst)
    }

    /// Waits for the outcome, for at most `timeout`, and returns the value or throws the error; every call does the
    /// same.
    ///
    /// Parks unless there is an outcome. Throws a ``Timeout`` when the time is up, and at once for a timeout of zero or
    /// less or `blocking: false` if there is none; and what ``Event/wait(timeout:)`` throws.
    ///
    /// gevent: `AsyncResult.get(block=True, timeout=None)`.
    @inlinable
    @available(*, noasync)
    public func get(blocking: Bool = true, timeout: Duration? = nil) throws -> Value {
        _ = try home.hub()
        if stored == nil {
            let limit: Duration? = blocking ? timeout : .zero
            guard try waitForResult(limit) else { throw Timeout(limit) }
        }
        return try outcome()
    }

    /// The same under the caller's own timeout: it is started unless it is pending, and that very object, or the error
    /// it carries, is thrown. Whichever way the wait ends, the timeout is cancelled then; without a wait it is not
    /// touched.
    @available(*, noasync)
    public func get(timeout: Timeout) throws -> Value {
        _ = try home.hub()
        if stored == nil {
            try timeout.around { _ = try waitForResult(nil) }
        }
        return try outcome()
    }

    /// The value, or the error, or a ``Timeout`` if there is no outcome. Never parks.
    ///
    /// gevent: `AsyncResult.get_nowait()`.
    public func getNowait() throws -> Value {
        _ = try home.hub()
        guard let stored else { throw Timeout(.zero) }
        return try stored.get()
    }

    /// Parks until there is an outcome, or for at most `timeout`, and returns the value; nil for an error or an exit,
    /// and when the time is up.
    ///
    /// If there is an outcome it comes after those who had to wait and have not run yet. Throws neither the stored
    /// error nor a timeout of its own, but what ``Event/wait(timeout:)`` throws.
    ///
    /// gevent: `AsyncResult.wait(timeout=None)`.
    @available(*, noasync)
    @discardableResult
    public func wait(timeout: Duration? = nil) throws -> Value? {
        let hub = try home.hub()
        if stored != nil {
            yieldToEarlierWaiters(hub, timeout)
        } else {
            _ = try waitForResult(timeout)
        }
        return value
    }

    @inlinable
    func outcome() throws -> Value {
        // Once there is an outcome there always is one.
        guard let stored else { preconditionFailure("a result told of an outcome it does not have") }
        return try stored.get()
    }

    /// "<AsyncResult unset>", "<AsyncResult value>", "<AsyncResult error: …>" or "<AsyncResult exit>", and how many
    /// wait.
    public var description: String {
        let state =
            switch result {
            case nil: "unset"
            case .success: "value"
            case .failure(let error): isExit(error) ? "exit" : "error: \(error)"
            }
        return "<AsyncResult \(state)\(line.waitingText)>"
    }
}

extension Greenlet {
    /// Copies this greenlet's outcome to `result` when it is over: value, error or exit.
    ///
    /// Happens on the hub, in turn with the other links. On a greenlet that is over it happens as soon as the caller
    /// parks or yields. Repeatable. Traps on a foreign thread.
    ///
    /// gevent: `Greenlet.link(result)`.
    @discardableResult
    public final func link(to result: AsyncResult<Output>) -> Registration {
        rawLink { (greenlet: Greenlet<Output>) in
            if let outcome = greenlet.result { result.set(outcome) }
        }
    }
}
