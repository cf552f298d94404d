internal import CGeventSystem
internal import Synchronization

/// The modules of a program that announce what they have, such as a loop or settings, because they are linked.
///
/// A module needs neither an import nor a call of the program for that. It places a function among the program's
/// constructors:
///
/// ```swift
/// @section(".init_array") @used
/// private let isLinked: @convention(c) () -> Void = {
///     LinkedModule.register { LoopBackend.register(LoopBackend(name: "mine") { _ in try MyLoop() }) }
/// }
/// ```
public enum LinkedModule {
    /// Stores a function that registers what the module has. It is called once, when the loops or the settings of the
    /// program are first needed, or needed again after a library was loaded.
    ///
    /// Meant for a constructor. Only the pointer is stored, which is safe before `main` and on any thread.
    public static func register(_ registrar: @convention(c) () -> Void) {
        gevent_module_linked(registrar)
    }

    /// Calls the functions that were stored since the last time.
    @_spi(GeventInternals)
    public static func runRegistrars() {
        // A registrar's own calls end up here: its thread holds the lock already.
        if gevent_is_running_registrars() { return }
        lock.withLock { _ in gevent_run_registrars() }
    }

    /// Held while registrars run, so that a second thread cannot see their lists before they have finished.
    private static let lock = Mutex(())
}
