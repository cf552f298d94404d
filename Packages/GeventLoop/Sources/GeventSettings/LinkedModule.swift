internal import CGeventSystem
internal import Synchronization

/// The modules of a program that register their contents, such as a loop or settings, by being linked.
///
/// The program needs neither an import nor a call for that. The module places a function among the program's
/// constructors:
///
/// ```swift
/// @section(".init_array") @used
/// private let isLinked: @convention(c) () -> Void = {
///     LinkedModule.register {
///         LoopBackend.register(LoopBackend(name: "mine") { (_) throws(LoopError) in try MyLoop() })
///     }
/// }
/// ```
public enum LinkedModule {
    /// Stores a function that registers the contents of the module. It is called once, when the loops or the settings
    /// of the program are first needed, or next needed after a library was loaded.
    ///
    /// Intended for a constructor. Only the pointer is stored, which is safe before `main` and on any thread.
    public static func register(_ registrar: @convention(c) () -> Void) {
        gevent_module_linked(registrar)
    }

    /// Calls the functions that were stored since the last call.
    @_spi(GeventInternals)
    public static func runRegistrars() {
        // A registrar may call this function itself; its thread already holds the lock.
        if gevent_is_running_registrars() { return }
        lock.withLock { _ in gevent_run_registrars() }
    }

    /// A lock held while registrars run, so that a second thread cannot see incomplete lists.
    private static let lock = Mutex(())
}
