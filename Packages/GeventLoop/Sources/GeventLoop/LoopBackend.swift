internal import CGeventLoop
internal import Synchronization

/// A kind of loop that this program can use: a name and a way to make one.
///
/// A backend registers itself by being linked: its C shim has a constructor that hands `gevent_loop_backend_linked` a
/// function, and that function calls ``register(_:)`` when the list is first needed. No import and no call is
/// necessary. A loop of your own, or one in a static archive whose constructor the linker dropped, calls
/// ``register(_:)`` itself before the first hub is made.
public struct LoopBackend: Sendable {
    /// The name `GEVENT_LOOP` selects it by; compared without regard to case.
    public let name: String

    private let make: @Sendable () throws(LoopError) -> any Loop

    /// A backend.
    ///
    /// - Parameters:
    ///   - name: what `GEVENT_LOOP` selects it by: no commas or spaces; case does not matter.
    ///   - make: makes a loop, on the thread that will use it, or says why this system cannot.
    public init(name: String, make: @escaping @Sendable () throws(LoopError) -> any Loop) {
        self.name = name
        self.make = make
    }

    /// Makes a loop that belongs to the calling thread.
    ///
    /// - Throws: the ``LoopError`` that says why it cannot run on this system.
    public func makeLoop() throws(LoopError) -> any Loop {
        try make()
    }

    /// Adds a backend, or replaces the one of the same name. Any thread may call it.
    ///
    /// What was linked counts as older than what is registered in code, so a program can replace a linked backend.
    public static func register(_ backend: LoopBackend) {
        collectLinked()
        registered.withLock { backends in
            backends.removeAll { $0.isNamed(backend.name) }
            backends.append(backend)
        }
    }

    /// Every backend that is linked or was registered, in the order in which they were. Any thread may ask.
    ///
    /// A library that was loaded since the last call is found too.
    public static var linked: [LoopBackend] {
        collectLinked()
        return registered.withLock { $0 }
    }

    func isNamed(_ other: String) -> Bool {
        name.lowercased() == other.lowercased()
    }

    private static let registered = Mutex<[LoopBackend]>([])

    /// Held while registrars run, so that a second thread cannot see the list before they have finished.
    private static let collection = Mutex(())

    private static func collectLinked() {
        // A registrar's own call of `register` ends up here: its thread holds the lock already.
        if gevent_loop_is_collecting() { return }
        collection.withLock { _ in gevent_loop_run_registrars() }
    }
}
