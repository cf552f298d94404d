internal import CGevent

/// A slot for one value or error, and for one greenlet that waits for it: what callbacks of other libraries are turned into
/// waits with.
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
    @exclusivity(unchecked) private var home = Home()
    /// What was given last, until it is cleared.
    @exclusivity(unchecked) public private(set) var result: Result<Value, any Error>?
    @exclusivity(unchecked) private var getter: UnsafeMutablePointer<gevent_context>?

    /// An empty slot.
    public init() {}

    /// Whether there is a value or an error.
    ///
    /// gevent: `Waiter.ready()`.
    public var isReady: Bool { result != nil }

    /// Gives a value: whoever waits for it becomes ready. A second one replaces it. Never parks; works in a hub callback.
    /// Traps on a foreign thread.
    ///
    /// gevent: `Waiter.switch(value)`.
    public func resume(returning value: Value) { resume(with: .success(value)) }

    /// Gives an error, which ``get()`` throws; otherwise like ``resume(returning:)``.
    ///
    /// gevent: `Waiter.throw(error)`.
    public func resume(throwing error: any Error) { resume(with: .failure(error)) }

    /// Gives either; otherwise like ``resume(returning:)``.
    public func resume(with result: Result<Value, any Error>) {
        _ = home.requireHub()
        self.result = result
        // One whose wait was ended otherwise, and who has not run yet, is not woken again.
        if let getter { gevent_wait_end(getter, UInt8(GEVENT_WAIT_WOKEN)) }
    }

    /// Parks until there is a value or an error, and returns or throws it; at once if there is.
    ///
    /// Throws ``HubError`` with `.concurrentUse` if another greenlet waits already, and what is thrown into the greenlet
    /// meanwhile.
    ///
    /// gevent: `Waiter.get()`.
    @available(*, noasync)
    public func get() throws -> Value {
        let hub = try home.hub()
        if let result { return try result.get() }
        if getter != nil { throw HubError(.concurrentUse, "another greenlet waits already: \(self)") }
        try attend(hub)
        getter = hub.pointee.current
        defer { getter = nil }
        _ = try wait(hub, .waiter, self)
        guard let result else { throw HubError(.invalidSwitch, "cleared before its waiter ran: \(self)") }
        return try result.get()
    }

    /// Empties the slot.
    ///
    /// gevent: `Waiter.clear()`.
    public func clear() {
        _ = home.requireHub()
        result = nil
    }

    /// "<Waiter empty>", "<Waiter empty, 1 waiting>" or "<Waiter ready>".
    public var description: String {
        "<Waiter \(isReady ? "ready" : "empty")\(getter == nil ? "" : ", 1 waiting")>"
    }
}

@available(*, unavailable)
extension Waiter: Sendable {}
