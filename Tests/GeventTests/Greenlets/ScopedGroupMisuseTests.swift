import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Misuse of scoped groups")
struct ScopedGroupMisuseTests {
    @Test("Spawning into a group after its scope stops the program with a message that says so")
    func spawnAfterwards() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let group = try withGroup { $0 }
                group.spawn {}
            }
        }
        #expect(text(result.standardErrorContent).contains("this group's scope is over"))
    }

    @Test("Spawning into a group on another thread stops the program with a message that says so")
    func spawnElsewhere() async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                try withGroup { group in
                    let group = Smuggled(group)
                    try onFreshThread {
                        try sleep()
                        group.value.spawn {}
                    }
                }
            }
        }
        #expect(text(result.standardErrorContent).contains("wrongThread"))
    }

    @Test("In a hub callback a scope throws blockedInHub, and its body does not run")
    func inTheHub() throws {
        try withHub { hub in
            var code: HubError.Code?
            hub.runCallback {
                code = hubErrorCode { try withGroup { _ in _ = Issue.record("the body ran") } }
            }
            try sleep()
            #expect(code == .blockedInHub)
        }
    }
}
