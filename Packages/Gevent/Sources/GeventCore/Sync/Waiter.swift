public import CGevent

/// A slot for one value or error and one waiting greenlet. It turns a callback of another library into a wait.
///
/// ```swift
/// let waiter = Waiter<Reply>()
/// client.send(request) { reply in waiter.resume(returning: reply) }
/// return try waiter.get()
/// ```
///
/// A value or error may be stored before ``get()``, and stays until ``clear()``. Belongs to the thread that first uses
/// the slot.
///
/// gevent: `gevent.hub.Waiter`.
public final class Waiter<Value>: CustomStringConvertible {
    @usableFromInline @exclusivity(unchecked) var hubBinding: HubBinding
    @usableFromInline @exclusivity(unchecked) var stored: Result<Value, any Error>?
    @usableFromInline @exclusivity(unchecked) var getter: UnsafeMutablePointer<gevent_context>?

    /// Creates an empty slot.
    @inlinable
    public init() {
        hubBinding = HubBinding()
        stored = nil
        getter = nil
    }

    /// The value or error that was stored last; nil once it is cleared.
    @inlinable
    public var result: Result<Value, any Error>? { stored }

    /// Whether there is a value or an error.
    ///
    /// gevent: `Waiter.ready()`.
    @inlinable
    public var isReady: Bool { stored != nil }

    /// Stores a value and makes the waiting greenlet ready. A second value replaces the first. Never parks; works in a
    /// hub callback. Traps on a foreign thread.
    ///
    /// gevent: `Waiter.switch(value)`.
    @inlinable
    @available(*, noasync)
    public func resume(returning value: Value) { resume(with: .success(value)) }

    /// Stores an error, which ``get()`` throws; otherwise like ``resume(returning:)``.
    ///
    /// gevent: `Waiter.throw(error)`.
    @inlinable
    @available(*, noasync)
    public func resume(throwing error: any Error) { resume(with: .failure(error)) }

    /// Stores a value or an error; otherwise like ``resume(returning:)``.
    @inlinable
    @available(*, noasync)
    public func resume(with result: Result<Value, any Error>) {
        _ = hubBinding.requireHub()
        stored = result
        // Has no effect if the getter's wait has ended in another way and the getter has not run yet.
        if let getter { gevent_wait_end(getter, UInt8(GEVENT_WAIT_WOKEN)) }
    }

    /// Parks until there is a value or an error, and returns or throws it. Does not park if there is one already.
    ///
    /// Throws ``HubError`` with `.concurrentUse` if another greenlet already waits, and an error delivered to the
    /// greenlet meanwhile.
    ///
    /// gevent: `Waiter.get()`.
    @inlinable
    @available(*, noasync)
    public func get() throws -> Value {
        let hub = try hubBinding.hub()
        if let stored { return try stored.get() }
        if getter != nil { throw secondGetter() }
        getter = hub.pointee.current
        defer { getter = nil }
        try parkGetter(for: self, hub)
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
        _ = hubBinding.requireHub()
        stored = nil
    }

    /// "<Waiter empty>", "<Waiter empty, 1 waiting>" or "<Waiter ready>".
    public var description: String {
        "<Waiter \(isReady ? "ready" : "empty")\(getter == nil ? "" : ", 1 waiting")>"
    }
}

@available(*, unavailable)
extension Waiter: Sendable {}

/// Parks the getter of a ``Waiter``, which has stored the current context and ends its wait. Does not depend on
/// `Value`.
@usableFromInline
func parkGetter(for waiter: AnyObject, _ hub: UnsafeMutablePointer<gevent_hub>) throws {
    try checkPending(hub)
    _ = try wait(hub, .waiter, waiter)
}
