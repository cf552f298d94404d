import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// `ci/test` runs this target once for each loop and searches the output for the line of the first test. That line
/// shows that the hub itself runs on the loop that the environment names.
@Suite("The configured loop")
struct ChosenLoopTests {
    @Test("The tests run on the loop named by GEVENT_LOOP, and print its name")
    func printsItsLoop() throws {
        let name = try withHub(on: .configured) { hub in
            try sleep(for: .microseconds(1))
            return hub.loopName
        }
        print("these tests ran on the loop \(name)")
    }

    @Test("A hub on a loop other than the one in the environment throws, and no hub remains")
    func wrongLoop() async {
        await #expect(processExitsWith: .success) {
            setenv("GEVENT_LOOP", "epoll", 1)
            // Registering a name again replaces the linked loop.
            LoopBackend.register(LoopBackend(name: "epoll") { (_) throws(LoopError) in try VirtualLoop() })
            do {
                try withHub(on: .configured) { _ in exit(1) }
            } catch let error as WrongLoop {
                exit(error.asked == "epoll" && error.got == "virtual" ? 0 : 2)
            }
        }
    }

    @Test("Any loop in a list may be used", arguments: ["nonsense,epoll", " , ", ""])
    func list(value: String) async {
        await #expect(processExitsWith: .success) { [value] in
            setenv("GEVENT_LOOP", value, 1)
            try withHub(on: .configured) { _ in }
        }
    }
}
