internal import Glibc
internal import Synchronization

/// Interrupts the thread that created it every 100 microseconds, until `stop()` is called.
///
/// The signal is SIGURG, which is ignored by default, so a late one is harmless.
final class SignalStorm {
    private let former: sigaction
    private let stopping = Flag()
    private var thread: CheckThread?

    private final class Flag: Sendable {
        let isSet = Atomic<Bool>(false)
    }

    init() throws {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in SignalStorm.arrived.wrappingAdd(1, ordering: .relaxed) }
        var former = sigaction()
        // Without SA_RESTART, so that system calls end with EINTR.
        try expectEqual(sigaction(SIGURG, &action, &former), 0, "sigaction")
        self.former = former
        // The worker threads of libdispatch, which create the threads of checks, block every signal.
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGURG)
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        Self.arrived.store(0, ordering: .relaxed)
        let target = pthread_self()
        let stopping = stopping
        thread = CheckThread {
            while !stopping.isSet.load(ordering: .relaxed) {
                pthread_kill(target, SIGURG)
                usleep(100)
            }
        }
    }

    /// The number of signals that have arrived.
    var count: Int { Self.arrived.load(ordering: .relaxed) }

    func stop() {
        stopping.isSet.store(true, ordering: .relaxed)
        thread?.join()
        thread = nil
        var former = former
        sigaction(SIGURG, &former, nil)
    }

    /// The count of signals, accessed before the first one so that no handler initialises it.
    private static let arrived = Atomic<Int>(0)
}
