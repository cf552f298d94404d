public import CGevent

/// A slot for one value or error, and for one greenlet that waits for it: what callbacks of other libraries are turned
/// into waits with.
///
/// ```swift
/// let waiter = Waiter<Reply>()
/// client.send(request) { reply in waiter.resume(returning: reply) }
/// return try waiter.get()
/// ```
///
/// What is given before ``get()`` is kept, and it stays until ``clear()``. Belongs to the thread that first uses it.
///
/// gevent: `gevent.hub.Waiter`.
public final class Waiter<Value>: CustomStringConvertible {
    @usableFromInline @exclusivity(unchecked) var home: HubBinding
    @usableFromInline @exclusivity(unchecked) var stored: Result<Value, any Error>?
    @usableFromInline @exclusivity(unchecked) var getter: UnsafeMutablePointer<gevent_context>?

    /// An empty slot.
    @inlinable
    public init() {
        home = HubBinding()
        stored = nil
        getter = nil
    }

    /// What was given last, until it is cleared.
    @inlinable
    public var result: Result<Value, any Error>? { stored }

    /// Whether there is a value or an error.
    ///
    /// gevent: `Waiter.ready()`.
    @inlinable
    public var isReady: Bool { stored != nil }

    /// Gives a value: whoever waits for it becomes ready. A second one replaces it. Never parks; works in a hub
    /// callback. Traps on a foreign thread.
    ///
    /// gevent: `Waiter.switch(value)`.
    @inlinable
    @available(*, noasync)
    public func resume(returning value: Value) { resume(with: .success(value)) }

    /// Gives an error, which ``get()`` throws; otherwise like ``resume(returning:)``.
    ///
    /// gevent: `Waiter.throw(error)`.
    @inlinable
    @available(*, noasync)
    public func resume(throwing error: any Error) { resume(with: .failure(error)) }

    /// Gives either; otherwise like ``resume(returning:)``.
    @inlinable
    @available(*, noasync)
    public func resume(with result: Result<Value, any Error>) {
        _ = home.requireHub()
        stored = result
        // One whose wait was ended otherwise, and who has not run yet, is not woken again.
        if let getter { gevent_wait_end(getter, UInt8(GEVENT_WAIT_WOKEN)) }
    }

    /// Parks until there is a value or an error, and returns or throws it; at once if there is.
    ///
    /// Throws ``HubError`` with `.concurrentUse` if another greenlet waits already, and what is thrown into the
    /// greenlet meanwhile.
    ///
    /// gevent: `Waiter.get()`.
    @inlinable
    @available(*, noasync)
    public func get() throws -> Value {
        let hub = try home.hub()
        if let stored { return try stored.get() }
        if getter != nil { throw secondGetter() }
        getter = hub.pointee.current
        defer { getter = nil }
        try parkAlone(for: self, hub)
        guard let stored else { throw clearedTooEarly() }
        return try stored.get()
    }

    @usableFromInline
    func secondGetter() -> HubError { HubError(.concurrentUse, "another greenlet waits already: \(self)") }

    @usableFromInline
    func clearedTooEarly() -> HubError { HubError(.invalidSwitch, "cleared before its getter ran: \(self)") }

    /// Empties the slot.
    ///
    /// gevent: `Waiter.clear()`.
    public func clear() {
        _ = home.requireHub()
        stored = nil
    }

    /// "<Waiter empty>", "<Waiter empty, 1 waiting>" or "<Waiter ready>".
    public var description: String {
        "<Waiter \(isReady ? "ready" : "empty")\(getter == nil ? "" : ", 1 waiting")>"
    }
}

@available(*, unavailable)
extension Waiter: Sendable {}

/// The part of a ``Waiter`` that does not depend on its value. Somebody knows the current context, and ends its wait.
@usableFromInline
func parkAlone(for waiter: AnyObject, _ hub: UnsafeMutablePointer<gevent_hub>) throws {
    try checkPending(hub)
    _ = try wait(hub, .waiter, waiter)
}
