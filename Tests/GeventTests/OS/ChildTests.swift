import CGevent
import CGeventSystem
import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

private func errorCode(_ body: () throws -> Void) -> ChildError.Code? {
    do {
        try body()
        return nil
    } catch {
        return (error as? ChildError)?.code
    }
}

/// A child that exits with `code` when asked to.
private final class WaitingChild {
    let pid: pid_t
    private let gate = try? Pipe()

    /// `read` returns at the end of its input, which is the pipe.
    init(_ script: String) throws {
        let gate = try #require(gate)
        let input = dup(STDIN_FILENO)
        defer {
            if input >= 0 {
                dup2(input, STDIN_FILENO)
                close(input)
            } else {
                close(STDIN_FILENO)
            }
        }
        // Close-on-exec: the child must not inherit it, because our close ends the child's input.
        _ = fcntl(gate.writeEnd, F_SETFD, FD_CLOEXEC)
        _ = fcntl(gate.readEnd, F_SETFL, 0)
        dup2(gate.readEnd, STDIN_FILENO)
        pid = try shell("read line; \(script)")
    }

    func end() { gate?.closeWriteEnd() }
}

/// With process descriptors (pidfds) and without, as on older kernels.
private let ways = [true, false]

@Suite("Children")
struct ChildTests {
    @Test("Waiting for a child returns its process ID and raw status", arguments: bothLoops, ways)
    func rawStatus(loop: TestLoop, usesDescriptors: Bool) throws {
        let before = openDescriptorCount()
        try withHub(on: loop) { hub in
            hub.children.usesDescriptors = usesDescriptors
            let child = try WaitingChild("exit 3")
            let others = Log()
            let other = spawn {
                try sleep()
                others.note("ran")
                child.end()
            }
            let (pid, status) = try waitPID(child.pid)
            #expect(pid == child.pid && status.rawValue == 3 << 8)
            #expect(others.entries == ["ran"] && other.isDead)
            #expect(errorCode { _ = try waitPID(child.pid) } == .noSuchProcess)
        }
        #expect(openDescriptorCount() == before)
    }

    @Test(
        "A child can be waited for together with greenlets, events, results and semaphores", arguments: bothLoops)
    func togetherWithOthers(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let child = try WaitingChild("exit 0")
            let watch = try ChildWatch(pid: child.pid)
            let event = Event()
            let result = AsyncResult<Int>()
            let semaphore = Semaphore(0)
            let greenlet = spawn {
                semaphore.release()
                try sleep()
                result.set(1)
                child.end()
                while !watch.isReady { try sleep(for: .milliseconds(1)) }
                event.set()
            }
            let all: [any Waitable] = [greenlet, event, result, semaphore, watch]
            let ready = try wait(all)
            #expect(ready.map { object in all.firstIndex { $0 === object } } == [3, 2, 4, 1, 0])
            #expect(watch.status?.exitCode == 0 && watch.linkCount == 0)
            // The watch is already ready. Ask again.
            #expect(try wait([watch, watch]).count == 2)
        }
    }

    @Test("A status distinguishes exit, signal, stop and continue")
    func statuses() {
        func facts(_ raw: CInt) -> [String] {
            let status = ChildStatus(rawValue: raw)
            let parts: [CInt?] = [status.exitCode, status.terminatingSignal, status.stoppingSignal]
            return parts.map { $0.map(String.init) ?? "-" } + [
                status.isContinued ? "continued" : "-", status.dumpedCore ? "core" : "-",
                status.isSuccess ? "success" : "-", "\(status)",
            ]
        }
        #expect(facts(0) == ["0", "-", "-", "-", "-", "success", "exit code 0"])
        #expect(facts(0xff00) == ["255", "-", "-", "-", "-", "-", "exit code 255"])
        #expect(facts(9) == ["-", "9", "-", "-", "-", "-", "killed by signal 9"])
        #expect(facts(11 | 0x80) == ["-", "11", "-", "-", "core", "-", "killed by signal 11, core dumped"])
        #expect(facts(0x137f) == ["-", "-", "19", "-", "-", "-", "stopped by signal 19"])
        #expect(facts(0xffff) == ["-", "-", "-", "continued", "-", "-", "continued"])
    }

    @Test("Wait for a child ended by a signal, and for one that ended before the wait", arguments: bothLoops, ways)
    func signalled(loop: TestLoop, usesDescriptors: Bool) throws {
        try withHub(on: loop) { hub in
            hub.children.usesDescriptors = usesDescriptors
            let killed = try WaitingChild("exit 1")
            kill(killed.pid, SIGKILL)
            #expect(try waitPID(killed.pid).status.terminatingSignal == SIGKILL)
            let ended = try shell("exit 5")
            while gevent_child_has_ended(ended) == 0 { Glibc.usleep(1000) }
            #expect(try waitPID(ended).status.exitCode == 5)
        }
    }

    @Test("A no-hang wait does not park; it returns process 0 while no child has ended", arguments: ways)
    func noHang(usesDescriptors: Bool) throws {
        try withHub { hub in
            hub.children.usesDescriptors = usesDescriptors
            let child = try WaitingChild("exit 2")
            let switches = hub.statistics.switchCount
            for pid in [child.pid, -1] {
                let (none, status) = try waitPID(pid, options: .noHang)
                #expect(none == 0 && status.rawValue == 0)
            }
            #expect(hub.statistics.switchCount == switches)
            child.end()
            while gevent_child_has_ended(child.pid) == 0 { Glibc.usleep(1000) }
            let (pid, status) = try waitPID(child.pid, options: .noHang)
            #expect(pid == child.pid && status.exitCode == 2)
        }
    }

    @Test("A wait for any child returns the one that ends during the wait; without children it throws")
    func anyChild() async {
        // Runs in its own process, so that it has no other children.
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                if errorCode({ _ = try waitPID(-1) }) != .notAChild { exit(1) }
                let first = try WaitingChild("exit 1")
                let second = try WaitingChild("exit 2")
                let third = try WaitingChild("exit 3")
                var order: [CInt] = []
                let waiting = spawn {
                    for _ in 0..<3 {
                        let (pid, status) = try waitPID(-1)
                        guard let code = status.exitCode, pid == [first, second, third][Int(code) - 1].pid else {
                            exit(2)
                        }
                        order.append(code)
                    }
                }
                for (index, child) in [second, third, first].enumerated() {
                    try sleep(for: .milliseconds(1))
                    child.end()
                    while order.count <= index { try sleep(for: .milliseconds(1)) }
                }
                try waiting.get()
                exit(order == [2, 3, 1] ? 0 : 3)
            }
        }
    }

    @Test("A wait for any child returns each ended child once, then throws")
    func anyOfTheEnded() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                let codes: [CInt] = [1, 2, 3]
                let children = try codes.map { try shell("exit \($0)") }
                for child in children { while gevent_child_has_ended(child) == 0 { Glibc.usleep(1000) } }
                var given: [CInt: pid_t] = [:]
                for _ in codes {
                    let (pid, status) = try waitPID(-1)
                    guard let code = status.exitCode, given.updateValue(pid, forKey: code) == nil else { exit(1) }
                }
                if codes.map({ given[$0] }) != children { exit(2) }
                exit(errorCode { _ = try waitPID(-1) } == .notAChild ? 0 : 3)
            }
        }
    }

    @Test("Stops and continuations are reported on request", arguments: bothLoops)
    func stops(loop: TestLoop) throws {
        try withHub(on: loop) { _ in
            let child = try WaitingChild("exit 0")
            spawnRaw { kill(child.pid, SIGSTOP) }
            #expect(try waitPID(child.pid, options: .stopped).status.stoppingSignal == SIGSTOP)
            spawnRaw { kill(child.pid, SIGCONT) }
            #expect(try waitPID(child.pid, options: .continued).status.isContinued)
            spawnRaw { child.end() }
            #expect(try waitPID(child.pid, options: [.stopped, .continued]).status.isSuccess)
        }
    }

    @Test("Waiting for a process that is not a child throws a typed error and does not park")
    func notOurs() throws {
        try withHub { _ in
            #expect(errorCode { _ = try waitPID(getpid()) } == .notAChild)
            #expect(errorCode { _ = try waitPID(pid_t.max) } == .noSuchProcess)
            #expect(errorCode { _ = try ChildWatch(pid: 1) } == .notAChild)
            #expect(errorCode { _ = try ChildWatch(pid: pid_t.max) } == .noSuchProcess)
            #expect(errorCode { _ = try ChildWatch(pid: 0) } == .invalidIdentifier)
            #expect(errorCode { _ = try ChildWatch(pid: -1) } == .invalidIdentifier)
        }
    }

    @Test("A wait that is killed or times out leaves the status to the next wait", arguments: bothLoops, ways)
    func interrupted(loop: TestLoop, usesDescriptors: Bool) throws {
        let before = openDescriptorCount()
        try withHub(on: loop) { hub in
            hub.children.usesDescriptors = usesDescriptors
            let child = try WaitingChild("exit 6")
            let waiting = spawn { try waitPID(child.pid) }
            try sleep()
            try waiting.kill()
            #expect(waiting.isDead)
            #expect(try withSilentTimeout(.milliseconds(2)) { try waitPID(child.pid) } == nil)
            child.end()
            #expect(try waitPID(child.pid).status.exitCode == 6)
        }
        #expect(openDescriptorCount() == before)
    }

    @Test("A parked wait for a child keeps the hub waiting and appears in reports", arguments: ways)
    func reports(usesDescriptors: Bool) throws {
        try withHub(on: .configured) { hub in
            hub.children.usesDescriptors = usesDescriptors
            let child = try WaitingChild("exit 0")
            let watch = try ChildWatch(pid: child.pid)
            let waiting = spawn { try watch.wait() }
            try sleep()
            #expect(hub.deadlockReport().contains("a wait for the end of child process \(child.pid)"))
            child.end()
            #expect(try waiting.get()?.isSuccess == true)
        }
    }

    // MARK: ChildWatch

    @Test("A watch becomes ready once, for all waiters, and keeps the status", arguments: bothLoops, ways)
    func watch(loop: TestLoop, usesDescriptors: Bool) throws {
        let before = openDescriptorCount()
        try withHub(on: loop) { hub in
            hub.children.usesDescriptors = usesDescriptors
            let child = try WaitingChild("exit 7")
            let watch = try ChildWatch(pid: child.pid)
            #expect(!watch.isReady && watch.status == nil && watch.pid == child.pid)
            #expect(try watch.wait(timeout: .zero) == nil)
            #expect(try watch.poll() == nil)
            let waiting =
                (0..<3).map { _ in spawn { try watch.wait() } } + [
                    spawn { () -> ChildStatus? in try waitPID(child.pid).status }
                ]
            let killed = spawn { try watch.wait() }
            try sleep()
            try killed.kill()
            #expect(try watch.wait(timeout: .milliseconds(1)) == nil)
            child.end()
            try joinAll(waiting)
            #expect(waiting.allSatisfy { $0.value??.exitCode == 7 })
            #expect(watch.isReady && watch.status?.exitCode == 7 && watch.error == nil)
            #expect(try watch.wait()?.exitCode == 7)
            try watch.cancel()
            #expect(try watch.poll()?.exitCode == 7)
            #expect("\(watch)" == "<ChildWatch of \(child.pid): exit code 7>")
        }
        #expect(openDescriptorCount() == before)
    }

    @Test("A watch of an ended child is ready at once; a second watch of a child gets its status too")
    func late() throws {
        try withHub(on: .configured) { _ in
            let child = try shell("exit 8")
            while gevent_child_has_ended(child) == 0 { Glibc.usleep(1000) }
            let watch = try ChildWatch(pid: child)
            #expect(watch.status?.exitCode == 8)
            let waiting = try WaitingChild("exit 9")
            let watches = [try ChildWatch(pid: waiting.pid), try ChildWatch(pid: waiting.pid)]
            waiting.end()
            for watch in watches { #expect(try watch.wait()?.exitCode == 9) }
        }
    }

    @Test(
        "A watch keeps the hub waiting unless unreferenced, and reaps the child even if nothing holds the watch",
        arguments: ways)
    func references(usesDescriptors: Bool) throws {
        try withHub(on: .configured) { hub in
            hub.children.usesDescriptors = usesDescriptors
            let quiet = try WaitingChild("exit 0")
            let watch = try ChildWatch(pid: quiet.pid, referenced: false)
            #expect(!watch.isReferenced)
            #expect(try hub.join())
            let child = try WaitingChild("exit 0")
            let pid = child.pid
            _ = try ChildWatch(pid: pid)
            spawn(after: .milliseconds(2)) { child.end() }
            #expect(try hub.join())
            #expect(gevent_child_has_ended(pid) == -ECHILD)
            // A parked waiter keeps the hub waiting anyway.
            spawn { try watch.wait() }
            spawn(after: .milliseconds(2)) { quiet.end() }
            #expect(try hub.join())
            #expect(watch.isReady)
        }
    }

    @Test("Cancelling a watch, or destroying its hub, does not affect the child", arguments: ways)
    func cancelled(usesDescriptors: Bool) throws {
        let before = openDescriptorCount()
        // Runs on two threads, one after the other.
        let smuggled = Smuggled(try WaitingChild("exit 4"))
        try withHub(on: .configured) { hub in
            let child = smuggled.value
            hub.children.usesDescriptors = usesDescriptors
            let watch = try ChildWatch(pid: child.pid)
            let waiting = spawn { try watch.wait() }
            try sleep()
            try watch.cancel()
            try watch.cancel()
            #expect(errorCode { _ = try waiting.get() } == .cancelled)
            #expect(errorCode { _ = try watch.wait() } == .cancelled)
            _ = try ChildWatch(pid: child.pid)
        }
        smuggled.value.end()
        let status = try withHub { _ in try waitPID(smuggled.value.pid).status }
        #expect(status.exitCode == 4)
        // Our end of the child's pipe is still open.
        #expect(openDescriptorCount() <= before + 1)
    }

    @Test("If another caller reaped the status, the waiter gets an error", arguments: ways)
    func reapedByAnotherCaller(usesDescriptors: Bool) throws {
        try withHub(on: .configured) { hub in
            hub.children.usesDescriptors = usesDescriptors
            let child = try WaitingChild("exit 0")
            let watch = try ChildWatch(pid: child.pid)
            child.end()
            var raw: CInt = 0
            #expect(Glibc.waitpid(child.pid, &raw, 0) == child.pid)
            #expect(errorCode { _ = try watch.wait() } == .noSuchProcess)
            #expect(watch.isReady && watch.status == nil)
        }
    }

    @Test("A forked child cannot wait for its parent's children")
    func inForkedChild() async {
        await #expect(processExitsWith: .success) {
            try withHub(on: .configured) { _ in
                let child = try WaitingChild("exit 5")
                let watch = try ChildWatch(pid: child.pid)
                let waiting = spawn { try watch.wait() }
                try sleep()
                let code = try inChild {
                    errorCode { _ = try waiting.get() } == .notAChild
                        && errorCode { _ = try waitPID(child.pid) } == .notAChild ? 0 : 1
                }
                if code != 0 { exit(1) }
                child.end()
                exit(try waiting.get()?.exitCode == 5 ? 0 : 2)
            }
        }
    }

    @Test("A hundred waiters each get their child's status, in any order of exit")
    func many() throws {
        let before = openDescriptorCount()
        try withHub(on: .configured) { _ in
            let waiting = try (0..<100).map { number in
                let child = try shell("exit \(number)")
                return spawn { try waitPID(child).status.exitCode }
            }
            #expect(try waiting.map { try $0.get() } == (0..<100).map { CInt($0) })
        }
        #expect(openDescriptorCount() == before)
    }
}
