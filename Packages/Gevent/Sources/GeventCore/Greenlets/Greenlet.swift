internal import CGevent

/// A cooperatively scheduled unit of work with an outcome.
///
/// A greenlet runs on its own stack, on the thread that made it, and switches only where it parks. Making a greenlet
/// schedules nothing; ``JoinableGreenlet/start()`` or ``spawn(_:)`` does.
///
/// ```swift
/// let greenlet = Greenlet { try fetch("a") }
/// greenlet.start()
/// print(try greenlet.get())
/// ```
///
/// The closure may capture any value, Sendable or not, because it stays on its thread. It is released as soon as it
/// returns, or when the greenlet is killed before its start.
///
/// gevent: `gevent.Greenlet`.
open class Greenlet<Output>: JoinableGreenlet {
    /// The closure to run. Nil once the greenlet runs, and in a subclass that overrides `run()`.
    @usableFromInline @exclusivity(unchecked) final var body: (() throws -> Output)?

    /// Makes a greenlet that will run `body`.
    ///
    /// Ends the program with a message if the thread has no hub yet and none can be made, for example because
    /// `GEVENT_LOOP` names no loop. To get an error instead, call ``Hub/start()`` first.
    @inlinable
    @available(*, noasync)
    public init(_ body: @escaping () throws -> Output) {
        self.body = body
        super.init(hub: requireHub())
    }

    /// Makes a greenlet of a subclass that overrides ``run()``.
    @available(*, noasync)
    public init() {
        super.init(hub: requireHub())
    }

    /// Makes a greenlet that will run `body` on a stack of at least `stackSize` bytes; see
    /// ``Gevent/spawn(stackSize:_:)``.
    ///
    /// Traps like ``init(_:)``, and if the size is below 16 KiB or above 64 MiB.
    @inlinable
    public init(stackSize: Int, _ body: @escaping () throws -> Output) {
        self.body = body
        super.init(hub: requireHub())
        useStack(ofSize: stackSize)
    }

    /// As ``init(stackSize:_:)``, for subclasses that override ``run()``.
    public init(stackSize: Int) {
        super.init(hub: requireHub())
        useStack(ofSize: stackSize)
    }

    deinit {
        if hasValue { destroyValue(as: Output.self) }
    }

    /// The body of a subclass. The library records the outcome, notifies links and reports errors around it.
    ///
    /// Inside a subclass, members hide the global functions of the same name. Write `Gevent.spawn { }`,
    /// `Gevent.spawnLinked { }` and `Gevent.kill(other)` there.
    ///
    /// ```swift
    /// final class Fetcher: Greenlet<String> {
    ///     let path: String
    ///
    ///     init(_ path: String) {
    ///         self.path = path
    ///         super.init()
    ///     }
    ///
    ///     override func run() throws -> String {
    ///         let header = Gevent.spawn { try fetch("header") }
    ///         return try header.get() + fetch(path)
    ///     }
    /// }
    /// ```
    ///
    /// gevent: `Greenlet._run()`.
    open func run() throws -> Output {
        fatalError("\(type(of: self)) was made without a body and does not override run()")
    }

    final override func runAndStore() throws {
        guard let body else { return storeValue(try run()) }
        self.body = nil
        storeValue(try body())
    }

    final override func dropBody() { body = nil }

    /// The value that the body returned; nil before the end, after an error and after a silent death.
    @inlinable
    public final var value: Output? {
        phase == .ended ? loadValue(as: Output.self) : nil
    }

    /// The outcome, nil before the end; an exit is its failure case.
    public final var result: Result<Output, any Error>? {
        guard phase == .ended else { return nil }
        if let outcomeError { return .failure(outcomeError) }
        return loadValue(as: Output.self).map { .success($0) }
    }

    /// Waits for the end, for at most `timeout`, and returns the value or throws the error. Every call gives the same
    /// outcome.
    ///
    /// Parks unless the greenlet has ended. Throws a ``Timeout`` when the time expires, and at once for a zero timeout
    /// or `blocking: false` on a greenlet that has not ended. Throws the exit of a killed greenlet. Also throws what
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

    /// As ``get(blocking:timeout:)``, with a ``Timeout`` that the caller made. It is started unless it is pending
    /// already; when it expires, this call throws that object, or the error it carries. However the wait ends, it
    /// cancels the timeout. A call that does not wait leaves the timeout alone.
    @available(*, noasync)
    public final func get(timeout: Timeout) throws -> Output {
        _ = try ownHub()
        if phase != .ended {
            try timeout.around { _ = try waitForEnd(timeout: nil) }
        }
        return try outcome()
    }

    @inlinable
    final func outcome() throws -> Output {
        if let outcomeError { throw outcomeError }
        guard let value = loadValue(as: Output.self) else { preconditionFailure("a greenlet ended without an outcome") }
        return value
    }
}

// MARK: Spawning

extension Greenlet {
    /// Makes a greenlet and starts it. Returns before the body runs; never parks, and works in a hub callback.
    ///
    /// Ends the program with a message if the thread has no hub and none can be made; see ``Hub/start()``.
    ///
    /// gevent: `Greenlet.spawn(function, *args)`.
    @inlinable
    @discardableResult
    @available(*, noasync)
    public static func spawn(_ body: @escaping () throws -> Output) -> Greenlet<Output> {
        let greenlet = Greenlet(body)
        greenlet.start()
        return greenlet
    }

    /// Makes a greenlet and starts it `delay` from now. Never parks, and works in a hub callback.
    ///
    /// Ends the program with a message if the thread has no hub and none can be made; see ``Hub/start()``.
    ///
    /// gevent: `Greenlet.spawn_later(seconds, function, *args)`.
    @inlinable
    @discardableResult
    @available(*, noasync)
    public static func spawn(after delay: Duration, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
        let greenlet = Greenlet(body)
        greenlet.start(after: delay)
        return greenlet
    }
}

/// Makes a greenlet that runs `body`, and starts it. Returns before the body runs; never parks, and works in a hub
/// callback.
///
/// Ends the program with a message if the thread has no hub and none can be made; see ``Hub/start()``.
///
/// gevent: `gevent.spawn(function, *args)`.
@inlinable
@discardableResult
@available(*, noasync)
public func spawn<Output>(_ body: @escaping () throws -> Output) -> Greenlet<Output> {
    let greenlet = Greenlet(body)
    greenlet.start()
    return greenlet
}

/// Makes a greenlet that runs `function` with the arguments that follow, and starts it; otherwise like ``spawn(_:)``.
///
/// ```swift
/// let sum = spawn(add, 1, 2)
/// ```
///
/// gevent: `gevent.spawn(function, *args)`.
@inlinable
@discardableResult
@available(*, noasync)
public func spawn<First, each Rest, Output>(
    _ function: @escaping (First, repeat each Rest) throws -> Output, _ first: First, _ rest: repeat each Rest
) -> Greenlet<Output> {
    let greenlet = Greenlet { try function(first, repeat each rest) }
    greenlet.start()
    return greenlet
}

/// Makes a greenlet that runs `body`, and starts it `delay` from now. Never parks, and works in a hub callback.
///
/// Ends the program with a message if the thread has no hub and none can be made; see ``Hub/start()``.
///
/// gevent: `gevent.spawn_later(seconds, function, *args)`.
@inlinable
@discardableResult
@available(*, noasync)
public func spawn<Output>(after delay: Duration, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
    let greenlet = Greenlet(body)
    greenlet.start(after: delay)
    return greenlet
}
