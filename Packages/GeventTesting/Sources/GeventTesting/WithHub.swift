public import Gevent
internal import Glibc
internal import Synchronization

/// The loop of the hub that ``withHub(on:allowingLeftovers:_:)`` creates.
public enum TestLoop: Sendable {
    /// Virtual time, which starts at zero and jumps when nothing is ready.
    case virtual
    /// The loop that `GEVENT_LOOP` selects, as in production. If the environment names exactly one loop and the hub has
    /// another, ``WrongLoop`` is thrown, so that a suite that runs once for each loop cannot pass on the same one
    /// twice.
    case configured
    /// A loop that the test creates, on the hub's thread.
    case custom(@Sendable () throws -> any Loop)
}

/// The error thrown when the hub does not run on the one loop that the environment names.
public struct WrongLoop: Error, Sendable, Hashable, CustomStringConvertible {
    /// The name in `GEVENT_LOOP`.
    public let asked: String
    /// The name of the hub's loop.
    public let got: String
    /// The reason why the hub has that loop.
    public let reason: String

    public var description: String {
        "GEVENT_LOOP=\"\(asked)\", but the hub runs on \(got) (\(reason))"
    }
}

/// The error thrown when a body leaves greenlets, timers or waiters behind in its hub.
public struct HubLeftovers: Error, Sendable, Hashable, CustomStringConvertible {
    /// The number of greenlets that still have a stack.
    public let greenlets: Int
    /// The number of pending sleeps, timeouts and delayed starts.
    public let timers: Int
    /// The number of greenlets that wait for a descriptor.
    public let descriptorWaiters: Int
    /// The number of entries in the ready queue.
    public let ready: Int

    public var description: String {
        "left behind: \(greenlets) greenlets, \(timers) timers, \(descriptorWaiters) descriptor waiters, \(ready) ready"
    }
}

/// Runs `body` as the main greenlet of a new hub on a new thread, and returns its result or throws its error.
///
/// When `body` has returned and ready greenlets have run, no greenlet or timer that it started may remain: otherwise
/// ``HubLeftovers`` is thrown, unless `allowingLeftovers` is true. The hub is destroyed either way. The calling thread
/// blocks, so call this from a plain thread.
///
/// ```swift
/// @Test func sleepersWakeInOrder() throws {
///     try withHub { hub in
///         …
///     }
/// }
/// ```
///
/// - Parameters:
///   - loop: the loop of the hub; virtual time by default.
///   - allowingLeftovers: whether `body` may leave greenlets and timers behind.
///   - body: the test, which receives the hub.
public func withHub<Value: Sendable>(
    on loop: TestLoop = .virtual, allowingLeftovers: Bool = false, _ body: @escaping @Sendable (Hub) throws -> Value
) throws -> Value {
    try onFreshThread {
        let hub = try startHub(on: loop)
        let result = Result { try body(hub) }  // control: main of a test's own hub; the error is rethrown below
        let leftovers = try settle(hub)
        hub.destroy()
        let value = try result.get()
        if let leftovers, !allowingLeftovers { throw leftovers }
        return value
    }
}

private func startHub(on loop: TestLoop) throws -> Hub {
    switch loop {
    case .virtual: try Hub.start(on: VirtualLoop(), reason: "virtual time for a test")
    case .configured: try startConfigured()
    case .custom(let make): try Hub.start(on: make(), reason: "made by the test")
    }
}

private func startConfigured() throws -> Hub {
    let hub = try Hub.start()
    // Reads the environment itself, because the resolved settings are what this check verifies.
    let value = getenv(SettingKey.loop.setting.name).map { String(cString: $0) } ?? ""
    let names = value.split { $0 == "," || $0.isWhitespace }
    if names.count == 1, names[0].lowercased() != hub.loopName.lowercased() {
        let error = WrongLoop(asked: String(names[0]), got: hub.loopName, reason: hub.loopReason)
        hub.destroy()
        throw error
    }
    return hub
}

/// Lets ready greenlets end, and returns the leftovers, or nil if there are none.
private func settle(_ hub: Hub) throws -> HubLeftovers? {
    for _ in 0..<10 where hub.statistics.readyCount > 0 || hub.statistics.liveGreenlets > 0 { try sleep() }
    let statistics = hub.statistics
    let leftovers = HubLeftovers(
        greenlets: statistics.liveGreenlets, timers: statistics.pendingTimers,
        descriptorWaiters: statistics.descriptorWaiters, ready: statistics.readyCount)
    return leftovers == HubLeftovers(greenlets: 0, timers: 0, descriptorWaiters: 0, ready: 0) ? nil : leftovers
}

/// Runs `body` on a new thread and returns its result or throws its error. Blocks the calling thread.
public func onFreshThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) throws -> Value {
    let job = Job(body)
    var thread = pthread_t()
    let error = pthread_create(
        &thread, nil,
        { argument in
            Unmanaged<AnyJob>.fromOpaque(argument!).takeRetainedValue().run()
            return nil
        }, Unmanaged<AnyJob>.passRetained(job).toOpaque())
    precondition(error == 0, "no thread for a test: error \(error)")
    pthread_join(thread, nil)
    guard let result = job.result.withLock({ $0 }) else { preconditionFailure("the thread ended without a result") }
    return try result.get()
}

/// A class that is not generic, so that a C function can call it.
private class AnyJob {
    func run() {}
}

private final class Job<Value: Sendable>: AnyJob {
    private let body: @Sendable () throws -> Value
    let result = Mutex<Result<Value, any Error>?>(nil)

    init(_ body: @escaping @Sendable () throws -> Value) { self.body = body }

    override func run() {
        let outcome = Result { try body() }  // control: the thread's outermost frame; the joining thread gets the error
        result.withLock { $0 = outcome }
    }
}
