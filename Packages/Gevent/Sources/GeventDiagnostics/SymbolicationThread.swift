internal import CGevent
internal import GeventCore
internal import Glibc

/// A thread that looks up names of functions for reports that are made while the hub goes on.
///
/// Swift's `Runtime` keeps what it has read of a program's debug information for each thread. The first lookup takes a
/// few hundred milliseconds, later ones up to some tens in a large program. So one thread does it for all hubs of the
/// process. It is started with the first request. A fork waits for the end of its step, as for a monitor's, and a
/// forked child starts its own.
final class SymbolicationThread: Sendable {
    private struct Request {
        let addresses: [UnsafeRawPointer]
        let completion: @Sendable () -> Void
    }

    private struct State {
        var requests: [Request] = []
        /// The process in which the thread runs.
        var process: CInt = 0
    }

    private static let shared = SymbolicationThread()

    private let state = ForkableMutex(State())
    private let bell = gevent_bell_create()

    /// Parks until the functions at `addresses` have been looked up, so that ``places(of:)`` returns at once. If that
    /// takes longer than five seconds, or the system has no thread for it, `places(of:)` looks them up itself.
    static func lookUpParked(_ addresses: [UInt]) throws {
        let unknown = addresses.compactMap { UnsafeRawPointer(bitPattern: $0) }.filter { !hasPlaces(of: $0) }
        if unknown.isEmpty { return }
        let completed = Completion()
        let handle = Hub.current.handle
        let isRequested = shared.request(Request(addresses: unknown) { handle.post { completed.event.set() } })
        if isRequested { try completed.event.wait(timeout: .seconds(5)) }
    }

    /// Unchecked, because only the hub's thread touches the event: the other one passes the object on.
    private final class Completion: @unchecked Sendable {
        let event = Event()
    }

    /// Returns false if there is no thread.
    private func request(_ request: Request) -> Bool {
        let isStarted = state.withLock { state in
            if state.process != getpid() {
                if !start() { return false }
                // Requests of the parent are served there.
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
            for address in request.addresses { _ = places(of: address) }
            request.completion()
        }
    }
}
