import CGevent
import CGeventSystem
import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

private struct ErrorWithWitness: Error { let witness: Smuggled<Witness> }

@Suite("A forked child that destroys its hub leaves inherited objects alone")
struct ForkedChildrenLeaveAlone {
    @Test("A child does not release values of inherited greenlets or their pending errors")
    func valuesStay() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                var released: [String] = []
                let local = GreenletLocal<Witness?>("l") { nil }
                let inherited = GreenletLocal<Witness?>("i", inheriting: true) { nil }
                inherited.value = Witness { released.append("inherited") }
                let delayed = spawn(after: .milliseconds(200)) {}
                let parked = spawn {
                    local.value = Witness { released.append("local") }
                    Timeout.startNew(
                        .seconds(9),
                        throwing: ErrorWithWitness(witness: Smuggled(Witness { released.append("timeout") })))
                    try sleep(for: .seconds(9))
                }
                try sleep()
                let queued = spawn {}
                inherited.value = nil
                parked.deliver(ErrorWithWitness(witness: Smuggled(Witness { released.append("error") })))
                let code = try inChild {
                    released = []
                    local.value = Witness { released.append("own") }
                    hub.destroy()
                    guard parked.isDead, queued.isDead, delayed.isDead else { return 1 }
                    return released == ["own"] ? 0 : 2
                }
                require(code == 0, 1)
                hub.errorHandler = { _, _ in }
                try joinAll([queued, delayed, parked])
                try sleep()
                require(Set(released) == ["local", "timeout", "inherited"], 2)
            }
            exit(0)
        }
    }

    @Test("No inherited greenlet runs in the child, even if a release parks there")
    func nothingRuns() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                var ran = 0
                let pipe = try Pipe()
                let local = GreenletLocal<Witness?>("l") { nil }
                let first = spawn {
                    local.value = Witness { try? sleep(for: .milliseconds(100)) }
                    try waitRead(pipe.readEnd)
                }
                let second = spawn {
                    try sleep(for: .milliseconds(10))
                    ran += 1
                }
                try sleep()
                let code = try inChild {
                    local.value = Witness { try? sleep(for: .milliseconds(100)) }
                    do {
                        let posted = Smuggled(Witness { try? sleep(for: .milliseconds(100)) })
                        hub.handle.post { withExtendedLifetime(posted) {} }
                    }
                    hub.destroy()
                    return ran == 0 ? 0 : 1
                }
                require(code == 0, 1)
                pipe.write()
                try joinAll([first, second])
                require(ran == 1, 2)
            }
            exit(0)
        }
    }

    @Test(
        "In the child, the scope of a group that forked ends without the inherited members",
        .disabled(
            if: isSanitized,
            "ThreadSanitizer loses its fibers in the child of a greenlet that forks, and takes them for threads"))
    func scopeEnds() async {
        await #expect(processExitsWith: .success) {
            let parent = getpid()
            try withHub(on: .configured) { hub in
                let event = Event()
                var child: pid_t = 0
                var count = -1
                var unwound = 0
                let owner = spawn {
                    defer { unwound += 1 }
                    try withGroup { group in
                        group.spawn { try event.wait() }
                        group.spawn(after: .seconds(9)) {}
                        try sleep()
                        child = gevent_fork()
                        if child != 0 { return try group.killAll(blocking: false) }
                        try reinit()
                        do { try sleep(for: .seconds(9)) } catch {
                            count = group.count
                            throw error
                        }
                    }
                }
                for _ in 0..<5 { try sleep() }
                if getpid() != parent {
                    alarm(20)
                    hub.destroy()
                    _exit(unwound == 1 && count == 0 && owner.isDead && owner.exit != nil ? 0 : 1)
                }
                try owner.get()
                var status: CInt = 0
                while Glibc.waitpid(child, &status, 0) < 0 && errno == EINTR {}
                require(status == 0, 1)
                require(unwound == 1, 2)
            }
            exit(0)
        }
    }

    @Test("Objects that a child makes before its loop can be repaired belong to the child")
    func repairedLater() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { hub in
                let code = try inChild {
                    // The fork is noticed, but the loop is not repaired yet.
                    hub.pointer.pointee.is_forked = true
                    var ended = 0
                    let own = spawn {
                        defer { ended += 1 }
                        try sleep(for: .seconds(9))
                    }
                    try sleep()
                    hub.pointer.pointee.is_forked = true
                    hub.destroy()
                    return own.isDead && ended == 1 ? 0 : 1
                }
                require(code == 0, 1)
            }
            exit(0)
        }
    }
}
