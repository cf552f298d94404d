import Gevent
import GeventTesting
import Glibc
import Testing

@Suite("The report on SIGUSR2")
struct ReportOnSignalTests {
    @Test("With GEVENT_REPORT_ON_SIGUSR2 the signal prints every greenlet's wait, and the program continues")
    func printed() async {
        await #expect(processExitsWith: .success) {
            setenv("GEVENT_REPORT_ON_SIGUSR2", "yes", 1)
            try withHub(on: .configured) { hub in
                var text = ""
                hub.errorOutput = { text += $0 }
                let event = Event()
                let sleeper = spawn { try event.wait() }
                sleeper.name = "the waiter"
                try sleep()
                raise(SIGUSR2)
                while text.isEmpty { try sleep(for: .milliseconds(1)) }
                event.set()
                _ = try sleeper.get()
                let isComplete =
                    text.contains("SIGUSR2") && text.contains("\"the waiter\"> parked for")
                    && text.contains("<Event clear, 1 waiting>") && text.contains("printed")
                exit(isComplete && text.hasSuffix("\n") ? 0 : 1)
            }
        }
    }

    @Test("Without the setting the signal has its default action")
    func off() async {
        await #expect(processExitsWith: .signal(SIGUSR2)) {
            setenv("SWIFT_BACKTRACE", "enable=no", 1)
            try withHub(on: .configured) { _ in
                try sleep()
                // Threads of a dispatch queue block most signals, and their child processes inherit that.
                var signals = sigset_t()
                sigemptyset(&signals)
                sigaddset(&signals, SIGUSR2)
                pthread_sigmask(SIG_UNBLOCK, &signals, nil)
                raise(SIGUSR2)
                exit(0)
            }
        }
    }
}
