internal import CGevent

/// A cooperatively scheduled unit of work with an outcome.
///
/// A greenlet runs on a stack of its own, on the thread that made it, and switches only where it waits. Making one
/// schedules nothing; ``JoinableGreenlet/start()`` or ``spawn(_:)`` does.
///
/// ```swift
/// let greenlet = Greenlet { try fetch("a") }
/// greenlet.start()
/// print(try greenlet.get())
/// ```
///
/// The closure may capture anything, Sendable or not: it stays on its thread. It is released as soon as it has
/// returned, or when the greenlet is killed unstarted.
///
/// gevent: `gevent.Greenlet`.
open class Greenlet<Output>: JoinableGreenlet {
    @usableFromInline @exclusivity(unchecked) final var storedValue: Output?

    /// A greenlet that will run `body`.
    ///
    /// Traps if the thread has no hub yet and none can be made, for example because `GEVENT_LOOP` names no loop; call
    /// ``Hub/start()`` first where that has to be an error.
    @inlinable
    public init(_ body: @escaping () throws -> Output) {
        super.init(
            hub: requireHub(),
            body: { greenlet in
                // Only this initialiser stores such a closure, into a greenlet of this very type.
                let greenlet = unsafeDowncast(greenlet, to: Greenlet<Output>.self)
                greenlet.storedValue = try body()
            })
    }

    /// For subclasses that override ``run()``.
    public init() {
        super.init(hub: requireHub(), body: nil)
    }

    /// The body of a subclass. Recording the outcome, links and the error report happen around it.
    ///
    /// gevent: `Greenlet._run()`.
    open func run() throws -> Output {
        fatalError("\(type(of: self)) was made without a body and does not override run()")
    }

    @usableFromInline
    final override func runAndStore() throws {
        storedValue = try run()
    }

    /// What the body returned; nil before the end, after an error and after a silent death.
    @inlinable
    public final var value: Output? {
        phase == .ended && outcomeError == nil ? storedValue : nil
    }

    /// The whole outcome once there is one; an exit is its failure case.
    public final var result: Result<Output, any Error>? {
        guard phase == .ended else { return nil }
        if let outcomeError { return .failure(outcomeError) }
        return storedValue.map { .success($0) }
    }

    /// Waits for the end, for at most `timeout`, and returns the value or throws the error; every call does the same.
    ///
    /// Parks unless the greenlet is over. Throws a ``Timeout`` when the time is up, and at once for a zero timeout or
    /// `blocking: false` on a greenlet that is alive; the exit of a killed greenlet; and what
    /// ``JoinableGreenlet/join(timeout:)`` throws.
    ///
    /// gevent: `Greenlet.get(block=True, timeout=None)`, which returns the exit instead of throwing it.
    @inlinable
    @available(*, noasync)
    public final func get(blocking: Bool = true, timeout: Duration? = nil) throws -> Output {
        let limit: Duration? = blocking ? timeout : .zero
        guard try waitForEnd(timeout: limit) else { throw Timeout(limit) }
        return try outcome()
    }

    /// The same under the caller's own timeout: it is started unless it is pending, and that very object, or the error
    /// it carries, is thrown.
    @available(*, noasync)
    public final func get(timeout: Timeout) throws -> Output {
        _ = try ownHub()
        if phase != .ended {
            let started = Timeout.startNew(timeout)
            defer { started.cancel() }
            _ = try waitForEnd(timeout: nil)
        }
        return try outcome()
    }

    @usableFromInline
    final func outcome() throws -> Output {
        if let outcomeError { throw outcomeError }
        guard let storedValue else { preconditionFailure("a greenlet ended without an outcome") }
        return storedValue
    }
}

// MARK: Spawning

extension Greenlet {
    /// Makes a greenlet and starts it. Returns before the body runs; never parks, and works in a hub callback.
    ///
    /// Traps if the thread has no hub and none can be made; see ``Hub/start()``.
    ///
    /// gevent: `Greenlet.spawn(function, *args)`.
    @inlinable
    @discardableResult
    public static func spawn(_ body: @escaping () throws -> Output) -> Greenlet<Output> {
        let greenlet = Greenlet(body)
        greenlet.start()
        return greenlet
    }

    /// Makes a greenlet and starts it `delay` from now. Never parks, and works in a hub callback.
    ///
    /// Traps if the thread has no hub and none can be made; see ``Hub/start()``.
    ///
    /// gevent: `Greenlet.spawn_later(seconds, function, *args)`.
    @inlinable
    @discardableResult
    public static func spawn(after delay: Duration, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
        let greenlet = Greenlet(body)
        greenlet.start(after: delay)
        return greenlet
    }
}

/// Makes a greenlet that runs `body`, and starts it. Returns before the body runs; never parks, and works in a hub
/// callback.
///
/// Traps if the thread has no hub and none can be made; see ``Hub/start()``.
///
/// gevent: `gevent.spawn(function, *args)`.
@inlinable
@discardableResult
public func spawn<Output>(_ body: @escaping () throws -> Output) -> Greenlet<Output> {
    let greenlet = Greenlet(body)
    greenlet.start()
    return greenlet
}

/// Makes a greenlet that runs `function` with `arguments`, and starts it.
///
/// ```swift
/// let sum = spawn(add, 1, 2)
/// ```
///
/// gevent: `gevent.spawn(function, *args)`.
@inlinable
@discardableResult
public func spawn<First, each Rest, Output>(
    _ function: @escaping (First, repeat each Rest) throws -> Output, _ first: First, _ rest: repeat each Rest
) -> Greenlet<Output> {
    let greenlet = Greenlet { try function(first, repeat each rest) }
    greenlet.start()
    return greenlet
}

/// Makes a greenlet that runs `body`, and starts it `delay` from now. Never parks, and works in a hub callback.
///
/// Traps if the thread has no hub and none can be made; see ``Hub/start()``.
///
/// gevent: `gevent.spawn_later(seconds, function, *args)`.
@inlinable
@discardableResult
public func spawn<Output>(after delay: Duration, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
    let greenlet = Greenlet(body)
    greenlet.start(after: delay)
    return greenlet
}
