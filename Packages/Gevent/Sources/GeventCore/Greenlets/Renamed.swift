// Unavailable declarations for names from gevent and other names that users may guess. The compiler error states the
// replacement.

// swift-format-ignore-file: AlwaysUseLowerCamelCase

@available(*, unavailable, renamed: "spawn(after:_:)")
public func spawn_later<Output>(_ seconds: Double, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
    fatalError("unavailable")
}

@available(*, unavailable, renamed: "spawn(after:_:)")
public func spawnLater<Output>(_ seconds: Double, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
    fatalError("unavailable")
}

@available(*, unavailable, renamed: "spawnRaw(_:)")
public func spawn_raw(_ body: @escaping () throws -> Void) -> RawGreenlet { fatalError("unavailable") }

@available(*, unavailable, message: "use spawnLinked { }")
public func spawn_link<Output>(_ body: @escaping () throws -> Output) -> Greenlet<Output> { fatalError("unavailable") }

@available(*, unavailable, message: "use spawnLinked(on: .value) { }")
public func spawn_link_value<Output>(_ body: @escaping () throws -> Output) -> Greenlet<Output> {
    fatalError("unavailable")
}

@available(*, unavailable, message: "use spawnLinked(on: .error) { }")
public func spawn_link_exception<Output>(_ body: @escaping () throws -> Output) -> Greenlet<Output> {
    fatalError("unavailable")
}

@available(*, unavailable, renamed: "joinAll(_:timeout:throwingErrors:count:)")
public func joinall(_ greenlets: [JoinableGreenlet]) throws { fatalError("unavailable") }

@available(*, unavailable, renamed: "killAll(_:throwing:blocking:timeout:sticky:)")
public func killall(_ greenlets: [AnyGreenlet]) throws { fatalError("unavailable") }

@available(*, unavailable, renamed: "withTimeout(_:timeoutValue:_:)")
public func with_timeout<Value>(_ seconds: Double, _ body: () throws -> Value) throws -> Value {
    fatalError("unavailable")
}

@available(*, unavailable, renamed: "AnyGreenlet.current")
public func getcurrent() -> AnyGreenlet { fatalError("unavailable") }

@available(*, unavailable, message: "use Hub.current")
public func get_hub() -> Hub { fatalError("unavailable") }

@available(*, unavailable, renamed: "onSignal(_:referenced:_:)")
public func signal_handler(_ number: CInt, _ handler: @escaping () throws -> Void) { fatalError("unavailable") }

@available(*, unavailable, message: "use Hub.current.onSwitch { }")
public func settrace(_ callback: Any) { fatalError("unavailable") }

@available(*, unavailable, message: "use Hub.current.switchInterval")
public func getswitchinterval() -> Double { fatalError("unavailable") }

@available(*, unavailable, message: "use Hub.current.switchInterval")
public func setswitchinterval(_ seconds: Double) { fatalError("unavailable") }

@available(*, unavailable, message: "catch LinkedExited, whose outcome is .completed")
public typealias LinkedCompleted = LinkedExited

@available(*, unavailable, message: "catch LinkedExited, whose outcome is .killed")
public typealias LinkedKilled = LinkedExited

@available(*, unavailable, message: "catch LinkedExited, whose outcome is .failed")
public typealias LinkedFailed = LinkedExited

@available(*, unavailable, renamed: "QueueError.empty")
public typealias QueueEmpty = QueueError

@available(*, unavailable, renamed: "QueueError.full")
public typealias QueueFull = QueueError

@available(*, unavailable, renamed: "QueueError.shutDown")
public typealias QueueShutDown = QueueError

// Names that users may guess. An available type of the same name in another module takes precedence over an unavailable
// one, so these do not conflict with other libraries.

@available(*, unavailable, message: "use withGroup { }, with a Semaphore to limit how many run at a time")
public typealias Pool = Semaphore

@available(*, unavailable, message: "use Semaphore(1) and withPermit { }")
public typealias Lock = Semaphore

@available(*, unavailable, message: "use joinAll(_:) and get(), or withGroup { }")
public func gather(_ greenlets: [JoinableGreenlet]) { fatalError("unavailable") }

extension AnyGreenlet {
    @available(*, unavailable, renamed: "minimalID")
    public var minimal_ident: Int { fatalError("unavailable") }

    @available(*, unavailable, renamed: "isDead")
    public var dead: Bool { fatalError("unavailable") }

    @available(*, unavailable, renamed: "spawnTreeLocals")
    public var spawn_tree_locals: SpawnTreeLocals? { fatalError("unavailable") }

    @available(*, unavailable, renamed: "spawningGreenlet")
    public var spawning_greenlet: AnyGreenlet? { fatalError("unavailable") }

    @available(*, unavailable, renamed: "spawningStack")
    public var spawning_stack: SpawningStack? { fatalError("unavailable") }

    @available(*, unavailable, renamed: "addSpawnCallback(_:)")
    public static func add_spawn_callback(_ callback: (JoinableGreenlet) -> Void) { fatalError("unavailable") }

    @available(*, unavailable, message: "call cancel() of what addSpawnCallback(_:) returned")
    public static func remove_spawn_callback(_ callback: Any) { fatalError("unavailable") }

    @available(*, unavailable, message: "call cancel() of what addSpawnCallback(_:) returned")
    public static func removeSpawnCallback(_ callback: Any) { fatalError("unavailable") }

    @available(*, unavailable, renamed: "spawningStackLimit")
    public static var spawning_stack_limit: Int { fatalError("unavailable") }

    @available(*, unavailable, renamed: "isStarted")
    public var started: Bool { fatalError("unavailable") }

    @available(*, unavailable, renamed: "hub")
    public var parent: Hub? { fatalError("unavailable") }

    @available(*, unavailable, renamed: "switchTo()")
    public func `switch`() throws { fatalError("unavailable") }

    @available(*, unavailable, renamed: "throwInto(_:)")
    public func `throw`(_ error: any Error) throws { fatalError("unavailable") }
}

extension JoinableGreenlet {
    @available(*, unavailable, renamed: "isReady")
    public func ready() -> Bool { fatalError("unavailable") }

    @available(*, unavailable, renamed: "isSuccessful")
    public func successful() -> Bool { fatalError("unavailable") }

    @available(*, unavailable, renamed: "error")
    public var exception: (any Error)? { fatalError("unavailable") }

    @available(*, unavailable, renamed: "start(after:)")
    public func start_later(_ seconds: Double) { fatalError("unavailable") }

    @available(*, unavailable, renamed: "hasLinks")
    public func has_links() -> Bool { fatalError("unavailable") }

    @available(*, unavailable, renamed: "unlinkAll()")
    public func unlink_all() { fatalError("unavailable") }

    @available(*, unavailable, message: "call cancel() of what link returned")
    public func unlink(_ callback: Any) { fatalError("unavailable") }

    // No hint for `wait()`: a member of that name would hide the function `wait` in subclasses.

    @available(*, unavailable, renamed: "kill(throwing:blocking:timeout:sticky:)")
    public func cancel() throws { fatalError("unavailable") }
}

extension Greenlet {
    @available(*, unavailable, renamed: "spawn(after:_:)")
    public static func spawn_later(_ seconds: Double, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
        fatalError("unavailable")
    }

    @available(*, unavailable, renamed: "rawLink(_:)")
    public func rawlink(_ callback: (Greenlet<Output>) throws -> Void) { fatalError("unavailable") }

    @available(*, unavailable, renamed: "linkValue(_:)")
    public func link_value(_ callback: (Greenlet<Output>) throws -> Void) { fatalError("unavailable") }

    @available(*, unavailable, renamed: "linkError(_:)")
    public func link_exception(_ callback: (Greenlet<Output>) throws -> Void) { fatalError("unavailable") }

    @available(*, unavailable, renamed: "link(to:on:)")
    public func link(_ receiver: AnyGreenlet) { fatalError("unavailable") }

    @available(*, unavailable, renamed: "link(to:)")
    public func link(_ result: AsyncResult<Output>) { fatalError("unavailable") }
}

extension Timeout {
    @available(*, unavailable, renamed: "startNew(_:throwing:)")
    public static func start_new(_ seconds: Double?) -> Timeout { fatalError("unavailable") }

    @available(*, unavailable, renamed: "isPending")
    public var pending: Bool { fatalError("unavailable") }
}

extension Event {
    @available(*, unavailable, renamed: "isSet")
    public func is_set() -> Bool { fatalError("unavailable") }
}

extension SimpleQueue {
    @available(*, unavailable, renamed: "putNowait(_:)")
    public func put_nowait(_ element: Element) throws { fatalError("unavailable") }

    @available(*, unavailable, renamed: "getNowait()")
    public func get_nowait() throws -> Element { fatalError("unavailable") }
}

extension Hub {
    @available(*, unavailable, renamed: "errorHandler")
    public var handle_error: Any { fatalError("unavailable") }

    @available(*, unavailable, renamed: "quietErrors")
    public var NOT_ERROR: [any Error.Type] { fatalError("unavailable") }

    @available(*, unavailable, renamed: "systemErrors")
    public var SYSTEM_ERROR: [any Error.Type] { fatalError("unavailable") }

    @available(*, unavailable, renamed: "errorOutput")
    public var exception_stream: Any { fatalError("unavailable") }

    @available(*, unavailable, renamed: "minimalID")
    public var minimal_ident: Int { fatalError("unavailable") }

    @available(*, unavailable, renamed: "runCallback(_:)")
    public func run_callback(_ body: @escaping () throws -> Void) { fatalError("unavailable") }

    @available(*, unavailable, renamed: "startMonitor()")
    public func start_periodic_monitoring_thread() -> Any { fatalError("unavailable") }

    @available(*, unavailable, renamed: "onSwitch(_:)")
    public var switchHook: Any { fatalError("unavailable") }

    @available(*, unavailable, renamed: "Gevent.installSIGINTHandler()")
    public static func installSIGINTHandler() { fatalError("unavailable") }

    @available(*, unavailable, message: "call cancel() of what installSIGINTHandler() returned")
    public static func removeSIGINTHandler() { fatalError("unavailable") }
}
