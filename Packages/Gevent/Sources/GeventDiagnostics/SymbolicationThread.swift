internal import CGevent
internal import GeventCore
internal import Glibc

/// A thread that symbolicates addresses for reports while the hub keeps running.
///
/// Swift's `Runtime` caches a program's debug information per thread. In a large program the first lookup takes a few
/// hundred milliseconds, and later ones up to some tens. So one thread serves all hubs of the process. It starts with
/// the first request. A fork waits until its step ends, as for a monitor's thread, and a forked child starts its own.
final class SymbolicationThread: Sendable {
    private struct Request {
        let addresses: [UnsafeRawPointer]
        let completion: @Sendable () -> Void
    }

    private struct State {
        var requests: [Request] = []
        /// The ID of the process in which the thread runs.
        var process: CInt = 0
    }

    private static let shared = SymbolicationThread()

    private let state = ForkableMutex(State())
    /// Wakes the thread. `nonisolated(unsafe)`: any thread may ring the bell, and it exists as long as the process.
    nonisolated(unsafe) private let bell = gevent_bell_create()

    /// Parks until the frames at `addresses` are cached, so that ``symbolicatedFrames(at:)`` returns at once. If no
    /// thread can be started, that function does the lookup itself. It also does so in virtual time, in which no thread
    /// could keep up.
    static func lookUpParked(_ addresses: [UInt]) throws {
        let pointers = addresses.compactMap { UnsafeRawPointer(bitPattern: $0) }
        let hub = Hub.current
        while true {
            let unknown = pointers.filter { !hasSymbolicatedFrames(at: $0) }
            if unknown.isEmpty || hub.hasVirtualTime { return }
            let completed = Completion()
            // Weak, so that a destroyed hub's waker does not keep its descriptor until the lookup is done.
            let request = Request(addresses: unknown) { [weak handle = hub.handle] in
                _ = handle?.post { completed.event.set() }
            }
            if !shared.request(request) { return }
            // A forked child has to request again, since the answer comes to its parent.
            let process = getpid()
            while try !completed.event.wait(timeout: .seconds(1)) && process == getpid() {}
        }
    }

    /// Unchecked, because only the hub's thread accesses the event; the other thread only passes the object on.
    private final class Completion: @unchecked Sendable {
        let event = Event()
    }

    /// Adds a request and starts the thread if necessary. Returns false if the thread cannot be started.
    private func request(_ request: Request) -> Bool {
        let isStarted = state.withLock { state in
            if state.process != getpid() {
                if !start() { return false }
                // The parent's thread serves the parent's requests.
                state = State(process: getpid())
            }
            state.requests.append(request)
            return true
        }
        if isStarted { gevent_bell_ring(bell) }
        return isStarted
    }

    private func start() -> Bool {
        let functions = gevent_monitor_functions(
            step: { owner in
                Unmanaged<SymbolicationThread>.fromOpaque(owner!).takeUnretainedValue().step()
                return GEVENT_STEP_WHEN_RUNG
            },
            end: { _ in })
        var thread = pthread_t()
        let owner = Unmanaged.passUnretained(self).toOpaque()
        if gevent_monitor_thread_start(&thread, bell, owner, functions) != 0 { return false }
        pthread_detach(thread)
        return true
    }

    private func step() {
        let requests = state.withLock { state in
            defer { state.requests = [] }
            return state.requests
        }
        for request in requests {
            for address in request.addresses { _ = symbolicatedFrames(at: address) }
            request.completion()
        }
    }
}
