// GeventEpoll is a dependency of this test target and is deliberately not imported: linking it must be enough.
import GeventLoop
import Glibc
import Testing

/// A loop that does nothing, for tests of the selection.
final class StubLoop: Loop {
    final class Waker: LoopWaker {
        func wake() {}
    }

    static var backendName: String { "stub" }
    let label: String
    let waker: any LoopWaker = Waker()
    var now: LoopInstant { LoopInstant(nanoseconds: 0) }
    var timerResolution: Duration { .nanoseconds(1) }

    init(_ label: String = "stub") { self.label = label }

    func setInterest(_ interest: Readiness, for fileDescriptor: CInt, generation: UInt32) throws(LoopError) {}
    func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {}
    func recoverAfterFork() throws(LoopError) {}
    func close() {}
}

@Suite("The registry of loops")
struct RegistryTests {
    @Test("A backend that is linked is registered without an import or a call")
    func linked() throws {
        let epoll = try #require(LoopBackend.linked.first { $0.name == "epoll" })
        let loop = try epoll.makeLoop(Configuration(environment: [:]).resolve())
        #expect(type(of: loop).backendName == "epoll")
        #expect(loop.features["epoll_pwait2"] != nil)
        loop.close()
    }

    @Test("Registering a name again, in any case, replaces the backend")
    func replacing() throws {
        LoopBackend.register(LoopBackend(name: "Replaced") { (_) throws(LoopError) in StubLoop("first") })
        LoopBackend.register(LoopBackend(name: "rePLACED") { (_) throws(LoopError) in StubLoop("second") })
        let found = LoopBackend.linked.filter { $0.name.lowercased() == "replaced" }
        #expect(found.count == 1)
        let loop = try #require(try found.first?.makeLoop(Configuration(environment: [:]).resolve()) as? StubLoop)
        #expect(loop.label == "second")
    }

    // ThreadSanitizer does not see that the kernel hands a contended `Mutex` of the standard library to a waiting
    // thread, and reports the thread's next accesses as a race.
    @Test("Any thread may register and list", .enabled(if: dlsym(nil, "__tsan_init") == nil))
    func threads() async {
        await withTaskGroup(of: Void.self) { group in
            for number in 0..<8 {
                group.addTask {
                    LoopBackend.register(
                        LoopBackend(name: "threads\(number)") { (_) throws(LoopError) in StubLoop() })
                    _ = LoopBackend.linked
                }
            }
        }
        #expect(LoopBackend.linked.filter { $0.name.hasPrefix("threads") }.count == 8)
    }
}
