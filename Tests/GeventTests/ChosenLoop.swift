import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// `ci/test` runs this target once for each loop, and looks for what the first test prints: that the environment and
/// the hub mean the same loop is then known from the hub itself.
@Suite("The loop that was asked for")
struct ChosenLoopTests {
    @Test("The tests run on the loop that GEVENT_LOOP names, and say so")
    func saysSo() throws {
        let name = try withHub(on: .configured) { hub in
            try sleep(for: .microseconds(1))
            return hub.loopName
        }
        print("these tests ran on the loop \(name)")
    }

    @Test("A hub on another loop than the environment names is an error, and no hub is left")
    func wrongLoop() async {
        await #expect(processExitsWith: .success) {
            setenv("GEVENT_LOOP", "epoll", 1)
            // Whoever registers a name again replaces what was linked.
            LoopBackend.register(LoopBackend(name: "epoll") { () throws(LoopError) in try VirtualLoop() })
            do {
                try withHub(on: .configured) { _ in exit(1) }
            } catch let error as WrongLoop {
                exit(error.asked == "epoll" && error.got == "virtual" ? 0 : 2)
            }
        }
    }

    @Test("Of a list any may run", arguments: ["nonsense,epoll", " , ", ""])
    func list(value: String) async {
        await #expect(processExitsWith: .success) { [value] in
            setenv("GEVENT_LOOP", value, 1)
            try withHub(on: .configured) { _ in }
        }
    }
}
