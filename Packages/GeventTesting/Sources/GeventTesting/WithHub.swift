public import Gevent
internal import Glibc
internal import Synchronization

/// Which loop ``withHub(on:allowingLeftovers:_:)`` gives its hub.
public enum TestLoop: Sendable {
    /// Virtual time, which starts at zero and jumps when nothing is ready.
    case virtual
    /// What `GEVENT_LOOP` chooses, as in production. If the environment names exactly one loop and the hub has another,
    /// ``WrongLoop`` is thrown: a suite that is run once for each loop must not pass on the same one twice.
    case configured
    /// A loop of the test's own, made on the hub's thread.
    case custom(@Sendable () throws -> any Loop)
}

/// The hub did not get the one loop that the environment names.
public struct WrongLoop: Error, Sendable, Hashable, CustomStringConvertible {
    /// The name in `GEVENT_LOOP`.
    public let asked: String
    /// The name of the hub's loop.
    public let got: String
    /// Why the hub has that one.
    public let reason: String

    public var description: String {
        "GEVENT_LOOP=\"\(asked)\", and the hub runs on \(got), which was \(reason)"
    }
}

/// What a body left behind in its hub.
public struct HubLeftovers: Error, Sendable, Hashable, CustomStringConvertible {
    /// Greenlets that still have a stack.
    public let greenlets: Int
    /// Pending sleeps, timeouts and delayed starts.
    public let timers: Int
    /// Greenlets that wait for a descriptor.
    public let descriptorWaiters: Int
    /// Entries of the ready queue.
    public let ready: Int

    public var description: String {
        "left behind: \(greenlets) greenlets, \(timers) timers, \(descriptorWaiters) descriptor waiters, \(ready) ready"
    }
}

/// Runs `body` as the main greenlet of a hub of its own, on a fresh thread, and returns or throws what it does.
///
/// When `body` has returned, everything it started has to be over: otherwise ``HubLeftovers`` is thrown, unless
/// `allowingLeftovers` is true. The hub is destroyed either way. Blocks the calling thread, so call it from a plain
/// one.
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
///   - loop: what the hub runs on; virtual time unless told otherwise.
///   - allowingLeftovers: whether what `body` leaves behind is no error.
///   - body: the test, which gets the hub.
public func withHub<Value: Sendable>(
    on loop: TestLoop = .virtual, allowingLeftovers: Bool = false, _ body: @escaping @Sendable (Hub) throws -> Value
) throws -> Value {
    try onFreshThread {
        let hub = try startHub(on: loop)
        let result = Result { try body(hub) }  // control: main of a test's own hub; the error is thrown on below
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
    // The environment itself, and not the settings: those are what is in doubt.
    let value = getenv(SettingKey.loop.setting.name).map { String(cString: $0) } ?? ""
    let names = value.split { $0 == "," || $0.isWhitespace }
    if names.count == 1, names[0].lowercased() != hub.loopName.lowercased() {
        let error = WrongLoop(asked: String(names[0]), got: hub.loopName, reason: hub.loopReason)
        hub.destroy()
        throw error
    }
    return hub
}

/// Lets what is ready end, and counts what does not.
private func settle(_ hub: Hub) throws -> HubLeftovers? {
    for _ in 0..<10 where hub.statistics.readyCount > 0 || hub.statistics.liveGreenlets > 0 { try sleep() }
    let statistics = hub.statistics
    let leftovers = HubLeftovers(
        greenlets: statistics.liveGreenlets, timers: statistics.pendingTimers,
        descriptorWaiters: statistics.descriptorWaiters, ready: statistics.readyCount)
    return leftovers == HubLeftovers(greenlets: 0, timers: 0, descriptorWaiters: 0, ready: 0) ? nil : leftovers
}

/// Runs `body` on a new thread and returns or throws what it does. Blocks the calling thread.
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

/// A class, and not generic, so that a C function can call it.
private class AnyJob {
    func run() {}
}

private final class Job<Value: Sendable>: AnyJob {
    private let body: @Sendable () throws -> Value
    let result = Mutex<Result<Value, any Error>?>(nil)

    init(_ body: @escaping @Sendable () throws -> Value) { self.body = body }

    override func run() {
        let outcome = Result { try body() }  // control: the thread's outermost frame; whoever waits gets the error
        result.withLock { $0 = outcome }
    }
}
