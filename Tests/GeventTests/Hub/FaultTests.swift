import Gevent
import GeventEpoll
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// The library that `ci/faults/run` preloads. It makes system calls of loops fail on request.
private enum Faults {
    /// Whether the library is loaded.
    static let areInjectable = address(of: "gevent_faults_arm") != nil

    /// Makes calls of a kind fail: the first `skipping` succeed, the next `times` fail. libuv's internal calls are
    /// exempt.
    static func arm(_ fault: CallFault, skipping: Int, times: Int, alsoInLibuv: Bool? = nil) {
        typealias Function =
            @convention(c) (UnsafePointer<CChar>, CInt, CLong, CLong, UnsafePointer<CChar>) -> Void
        guard let address = address(of: "gevent_faults_arm") else { return }
        // The function's type in ci/faults/inject.c.
        let function = unsafeBitCast(address, to: Function.self)
        // libuv makes the wait itself, and the wait may be interrupted.
        let spares = !(alsoInLibuv ?? (fault.call == .wait))
        function(fault.call.rawValue, fault.error, skipping, times, spares ? "libuv" : "")
    }

    /// Makes all calls succeed again. Returns how many have failed.
    @discardableResult
    static func disarm() -> Int {
        guard let address = address(of: "gevent_faults_disarm") else { return 0 }
        // The function's type in ci/faults/inject.c.
        return unsafeBitCast(address, to: (@convention(c) () -> CLong).self)()
    }

    private static func address(of symbol: String) -> UnsafeMutableRawPointer? { dlsym(nil, symbol) }
}

/// System calls of loops, named as in ci/faults/inject.c.
private enum Call: String, CaseIterable, CustomTestStringConvertible {
    case create = "epoll_create1"
    case add = "epoll_ctl(ADD)"
    case modify = "epoll_ctl(MOD)"
    case remove = "epoll_ctl(DEL)"
    case wait = "epoll_wait"
    case makeEvent = "eventfd"
    case makeTimer = "timerfd_create"
    case setTimer = "timerfd_settime"
    case replace = "dup3"
    case readEvent = "read(eventfd)"
    case writeEvent = "write(eventfd)"

    var testDescription: String { rawValue }

    /// The errors to inject.
    var errors: [CInt] {
        switch self {
        // An eventfd has no other errors, and a wake that the kernel rejects cannot be retried.
        case .writeEvent: [EINTR]
        // libuv aborts on every other error: see `libuvAborts`.
        case .wait where chosenLoop == "libuv": [EINTR]
        default: [ENOMEM, ENOSPC, EMFILE, EINTR, EIO]
        }
    }

    /// How many times in a row: once, and until the fault is lifted.
    func repetitions(of error: CInt) -> [Int] {
        // No real signal interrupts every call forever. And libev ends a process that can never get an epoll
        // descriptor.
        error == EINTR || self == .create ? [1, 3] : self == .writeEvent ? [1] : [1, 1_000_000]
    }
}

private struct CallFault: CustomStringConvertible {
    let call: Call
    let error: CInt

    var description: String { "\(call.rawValue) fails with \(LoopError(errno: error, operation: "").message)" }
}

private let chosenLoop = getenv("GEVENT_LOOP").map { String(cString: $0) } ?? "epoll"

/// The result of a program that ran while calls failed.
private struct FaultOutcome {
    /// Errors thrown into main, which then waited again.
    var inMain: [any Error] = []
    /// Errors that ended greenlets, and errors reported by the hub's own watches.
    var inGreenlets: [any Error] = []
    /// Greenlets that have not ended within seconds.
    var hanging = 0
    var polls = 0

    /// A description of what is wrong if only this error is allowed to occur.
    func complaint(_ error: CInt?) -> String? {
        if hanging > 0 { return "\(hanging) greenlets hang" }
        if polls > 5_000 { return "the hub spins: \(polls) polls" }
        for thrown in inMain + inGreenlets where (thrown as? LoopError)?.errno != error || error == nil {
            return "\(thrown)"
        }
        return nil
    }
}

/// Waits in every way that uses a loop: for descriptors in both directions, for timers, for another thread, for one of
/// the library's own watches, and next to a descriptor that was closed without the hub's knowledge.
private func useLoop(_ hub: Hub) throws -> FaultOutcome {
    var outcome = FaultOutcome()
    hub.errorHandler = { error, _ in outcome.inGreenlets.append(error) }
    let pollsBefore = hub.statistics.pollCount
    let pipe = try Pipe()
    var ends: [CInt] = [-1, -1]
    try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, &ends) == 0)
    let (near, far) = (ends[0], ends[1])
    defer { for end in [near, far] { close(end) } }
    let posted = Event()
    let handle = hub.handle
    let hold = hub.hold()
    let carrier = Smuggled(posted)
    let poster = TestThread {
        Glibc.usleep(1500)
        handle.post { carrier.value.set() }
    }
    let orphaned = try Pipe()
    let watched = try Pipe()
    let bodies: [() throws -> Void] = [
        {
            try waitRead(pipe.readEnd)
            pipe.read()
        },
        {
            try sleep(for: .milliseconds(1))
            pipe.write()
        },
        {
            let bytes = [UInt8](repeating: 7, count: 4096)
            while write(near, bytes, bytes.count) > 0 {}
            try waitWrite(near)
        },
        { try waitRead(near) },
        {
            try sleep(for: .milliseconds(1))
            var bytes = [UInt8](repeating: 7, count: 1 << 16)
            _ = write(far, bytes, 1)
            while read(far, &bytes, bytes.count) > 0 {}
        },
        { try posted.wait() },
        {
            let number = dup(orphaned.readEnd)
            let descriptor = try WatchedDescriptor(number)
            defer { _ = Result { try descriptor.detach() } }  // control: detach() does not park
            orphaned.write()
            do {
                while try !descriptor.waitReadable() {}
            } catch {
                close(number)
                throw error
            }
            close(number)
            try sleep(for: .milliseconds(1))
        },
        {
            let seen = Event()
            let watch = try DescriptorWatch(watched.readEnd, on: hub, referenced: false) {
                watched.read()
                seen.set()
            }
            defer { watch.close() }
            try sleep(for: .microseconds(500))
            watched.write()
            try seen.wait()
        },
    ]
    var ended = 0
    let greenlets = bodies.map { body in
        spawn {
            do { try body() } catch { outcome.inGreenlets.append(error) }
            ended += 1
        }
    }
    for round in 0..<60 where ended < greenlets.count {
        do {
            try joinAll(greenlets, timeout: .milliseconds(50))
        } catch {
            outcome.inMain.append(error)
        }
        // Main has reacted. Lift the fault.
        if round == 3 { Faults.disarm() }
    }
    Faults.disarm()
    poster.join()
    hold.cancel()
    outcome.hanging = greenlets.count - ended
    outcome.polls = Int(hub.statistics.pollCount - pollsBefore)
    hub.errorHandler = nil
    return outcome
}

/// Makes a hub and uses it while calls fail, and again once they succeed. Returns how many failed.
private func run(_ fault: CallFault, skipping: Int, times: Int) throws -> Int {
    let place = "call \(skipping + 1), \(times) times: \(fault)"
    let before = openDescriptorCount()
    let count = try onFreshThread {
        Faults.arm(fault, skipping: skipping, times: times)
        let hub: Hub
        do {
            hub = try Hub.start()
        } catch {
            #expect(error is LoopError || (error as? ConfigurationError)?.code == .loopFailed, "\(error)")
            #expect("\(error)".contains(LoopError(errno: fault.error, operation: "").message), "\(error)")
            return Faults.disarm()
        }
        let disturbed = try useLoop(hub)
        let count = Faults.disarm()
        #expect(disturbed.complaint(fault.error) == nil, "\(place)")
        let undisturbed = try useLoop(hub)
        #expect(undisturbed.complaint(nil) == nil, "afterwards; \(place)")
        hub.destroy()
        return count
    }
    // The hub is destroyed, and with it its loop and the loop's waker.
    #expect(openDescriptorCount() == before, "\(place)")
    return count
}

/// `ci/faults/run` runs these tests. Without its preloaded library they are skipped.
@Suite("Faults of system calls", .enabled(if: Faults.areInjectable, "ci/faults/run runs these"))
struct FaultTests {
    @Test("The injector makes a call fail with the given error, and the call works afterwards")
    func selfTest() throws {
        for call in [Call.makeEvent, .makeTimer, .create] {
            Faults.arm(CallFault(call: call, error: EMFILE), skipping: 1, times: 1)
            let attempts = (0..<3).map { _ in
                do throws(LoopError) {
                    try make(call)
                    return CInt(0)
                } catch {
                    return error.errno
                }
            }
            #expect(Faults.disarm() == 1)
            #expect(attempts == [0, EMFILE, 0])
        }
    }

    private func make(_ call: Call) throws(LoopError) {
        switch call {
        case .makeEvent: _ = try EventWaker()
        case .makeTimer: _ = try DeadlineTimer()
        default: try EpollLoop().close()
        }
    }

    @Test("Every call that the chosen loop makes is reached")
    func reached() throws {
        // Exceptions: epoll has no timer descriptor and does not read its waker; the other loops replace their epoll
        // descriptors without dup3.
        let missing: Set<Call> = chosenLoop == "epoll" ? [.makeTimer, .setTimer, .readEvent] : [.replace]
        for call in Call.allCases {
            let count = try run(CallFault(call: call, error: call.errors[0]), skipping: 0, times: 1)
            #expect((count > 0) == !missing.contains(call), "\(call.rawValue): \(count)")
        }
    }

    @Test(
        "Whichever call fails, nothing hangs, spins or is lost, and the error is thrown at the waiter",
        arguments: Call.allCases)
    fileprivate func anyCall(call: Call) throws {
        var total = 0
        for error in call.errors {
            for times in call.repetitions(of: error) {
                for skipping in 0..<100 {
                    let count = try run(CallFault(call: call, error: error), skipping: skipping, times: times)
                    total += count
                    if count == 0 { break }
                }
            }
        }
        print("faults: \(chosenLoop): \(total) calls of \(call.rawValue) failed")
    }

    @Test(
        "Calls may also fail in a forked child while its loop is repaired",
        arguments: [Call.create, .add, .makeEvent, .makeTimer, .replace])
    fileprivate func inForkedChild(call: Call) async {
        await #expect(processExitsWith: .success) { [name = call.rawValue as String] in
            let call = try #require(Call(rawValue: name))
            try withHub(on: .configured) { hub in
                let pipe = try Pipe()
                let reader = spawn { try waitRead(pipe.readEnd) }
                try sleep(for: .microseconds(1))
                for error in call.errors {
                    for skipping in 0..<12 {
                        let code = try inRawChild {
                            let fault = CallFault(call: call, error: error)
                            Faults.arm(fault, skipping: skipping, times: 1)
                            let disturbed = try useLoop(hub)
                            let undisturbed = try useLoop(hub)
                            for complaint in [disturbed.complaint(error), undisturbed.complaint(nil)] {
                                guard let complaint else { continue }
                                printToStandardError("call \(skipping + 1): \(fault): \(complaint)\n")
                                return 1
                            }
                            return 0
                        }
                        if code != 0 { exit(1) }
                    }
                }
                pipe.write()
                try reader.get()
            }
            exit(0)
        }
    }

    @Test("If a library cannot make its own objects, starting the hub throws", arguments: [Call.create, .makeEvent])
    fileprivate func start(call: Call) throws {
        for error in call.errors {
            for skipping in 0..<6 {
                let before = openDescriptorCount()
                let fault = CallFault(call: call, error: error)
                try onFreshThread {
                    Faults.arm(fault, skipping: skipping, times: 1, alsoInLibuv: true)
                    do {
                        try Hub.start().destroy()
                    } catch {
                        #expect((error as? ConfigurationError)?.code == .loopFailed, "\(fault): \(error)")
                    }
                    Faults.disarm()
                }
                // libuv itself leaks its epoll descriptor when it fails to make the rest.
                if chosenLoop != "libuv" {
                    #expect(openDescriptorCount() == before, "call \(skipping + 1): \(fault)")
                }
            }
        }
    }

    @Test(
        "Documented limit: libuv aborts when its wait fails, where the other loops throw",
        .enabled(if: chosenLoop == "libuv"))
    func libuvAborts() async {
        await #expect(processExitsWith: .signal(SIGABRT)) {
            dieQuietly()
            try withHub(on: .configured) { _ in
                Faults.arm(CallFault(call: .wait, error: EIO), skipping: 0, times: 1, alsoInLibuv: true)
                try sleep(for: .milliseconds(1))
            }
        }
    }
}
