import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A virtual loop that loses or refuses registrations on request.
private final class ForgetfulLoop: Loop {
    static var backendName: String { "forgetful" }

    private let base: VirtualLoop
    /// The error that every registration throws while it is not nil.
    var refusal: CInt?
    /// The descriptors to report as lost at the next poll.
    var lost: [CInt: UInt32] = [:]
    private(set) var registrations: [CInt: UInt32] = [:]

    init() throws(LoopError) { base = try VirtualLoop() }

    var now: LoopInstant { base.now }
    var timerResolution: Duration { base.timerResolution }
    var waker: any LoopWaker { base.waker }

    func setInterest(_ interest: Readiness, for fileDescriptor: CInt, generation: UInt32) throws(LoopError) {
        registrations[fileDescriptor] = nil
        try base.setInterest([], for: fileDescriptor, generation: generation)
        if interest.isEmpty { return }
        if let refusal { throw LoopError(errno: refusal, operation: "register", fileDescriptor: fileDescriptor) }
        try base.setInterest(interest, for: fileDescriptor, generation: generation)
        registrations[fileDescriptor] = generation
    }

    /// Drops all registrations, as if the kernel had refused them late.
    func loseAll() {
        lost = registrations
        registrations = [:]
    }

    func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        for (number, generation) in lost {
            try base.setInterest([], for: number, generation: generation)
            events.append(ReadyEvent(fileDescriptor: number, generation: generation, readiness: []))
        }
        let mayBlock = lost.isEmpty
        lost = [:]
        try base.poll(until: mayBlock ? deadline : .distantPast, into: &events)
    }

    func recoverAfterFork() throws(LoopError) {
        registrations = [:]
        try base.recoverAfterFork()
    }

    func close() { base.close() }
}

@available(*, unavailable)
extension ForgetfulLoop: Sendable {}

@Suite("Registrations refused or lost by the loop")
struct LostRegistrationTests {
    /// Runs `body` on a forgetful loop. Uncaught errors are logged.
    private func forgetful(_ body: @escaping @Sendable (Log, Hub, ForgetfulLoop) throws -> Void) throws -> [String] {
        try logged(on: .custom { try ForgetfulLoop() }) { log, hub in
            try body(log, hub, try #require(hub.loop as? ForgetfulLoop))
        }
    }

    private func name(_ error: any Error) -> String {
        guard let error = error as? LoopError else { return "\(error)" }
        return "\(error.code) \(error.errno == ENOSPC ? "ENOSPC" : "\(error.errno)") on \(error.fileDescriptor ?? -1)"
    }

    @Test("A lost registration that cannot be repeated throws the reason into all its waiters")
    func lost() throws {
        let log = try forgetful { [self] log, _, loop in
            var ends: [CInt] = [-1, -1]
            try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, &ends) == 0)
            let (near, far) = (ends[0], ends[1])
            defer { for end in [near, far] { close(end) } }
            let bytes = [UInt8](repeating: 7, count: 4096)
            while write(near, bytes, bytes.count) > 0 {}
            let waiters = [
                spawn { () throws -> Void in
                    do { try waitRead(near) } catch {
                        log.note("reader: \(name(error) == "outOfResources ENOSPC on \(near)")")
                    }
                },
                spawn { () throws -> Void in
                    do { try waitWrite(near) } catch {
                        log.note("writer: \(name(error) == "outOfResources ENOSPC on \(near)")")
                    }
                },
            ]
            let sleeper = spawn { try sleep(for: .seconds(5)) }
            try sleep()
            loop.refusal = ENOSPC
            loop.loseAll()
            try joinAll(waiters)
            log.note("others carry on: \(sleeper.isActive)")
            // The limit is lifted.
            loop.refusal = nil
            let reader = spawn {
                try waitRead(near)
                log.note("readable")
            }
            try sleep()
            var byte: UInt8 = 1
            _ = write(far, &byte, 1)
            try reader.get()
            try sleeper.get()
        }
        #expect(log == ["reader: true", "writer: true", "others carry on: true", "readable"])
    }

    @Test("A registration lost for a moment is repeated, and no waiter notices")
    func lostForAMoment() throws {
        let log = try forgetful { log, _, loop in
            let pipe = try Pipe()
            let reader = spawn {
                try waitRead(pipe.readEnd)
                log.note("readable")
            }
            try sleep()
            loop.loseAll()
            try sleep(for: .milliseconds(1))
            log.note("waits: \(reader.isActive), registered: \(loop.registrations.keys.contains(pipe.readEnd))")
            pipe.write()
            try reader.get()
        }
        #expect(log == ["waits: true, registered: true", "readable"])
    }

    @Test("A registration refused at once throws into its waiter and into the waiter of the other direction")
    func refused() throws {
        let log = try forgetful { [self] log, _, loop in
            var ends: [CInt] = [-1, -1]
            try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, &ends) == 0)
            let (near, far) = (ends[0], ends[1])
            defer { for end in [near, far] { close(end) } }
            let reader = spawn { () throws -> Void in
                do { try waitRead(near) } catch {
                    log.note("reader: \(name(error) == "outOfResources ENOSPC on \(near)")")
                }
            }
            try sleep()
            loop.refusal = ENOSPC
            do { try waitWrite(near) } catch { log.note("main: \(name(error) == "outOfResources ENOSPC on \(near)")") }
            try reader.get()
            loop.refusal = nil
            try waitWrite(near)
            log.note("writable")
        }
        #expect(log == ["main: true", "reader: true", "writable"])
    }

    @Test("A refusal to drop interest in one direction throws into the waiter of the other")
    func refusedWhenReduced() throws {
        let log = try forgetful { [self] log, hub, loop in
            var ends: [CInt] = [-1, -1]
            try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, &ends) == 0)
            let far = ends[1]
            defer { close(far) }
            let watched = try WatchedDescriptor(ends[0])
            let number = watched.fileDescriptor
            // Interest in writing stays set; an event without a waiter drops it.
            _ = try watched.waitWritable()
            let reader = spawn { () throws -> Void in
                do { _ = try watched.waitReadable() } catch {
                    log.note("reader: \(name(error) == "outOfResources ENOSPC on \(number)")")
                }
            }
            try sleep()
            loop.refusal = ENOSPC
            try reader.join(timeout: .seconds(5))
            log.note("waits: \(reader.isActive)")
            loop.refusal = nil
            try watched.close()
        }
        #expect(log == ["reader: true", "waits: false"])
    }

    @Test("One of the library's own watches reports the error once, and registers again when possible")
    func watch() throws {
        let log = try forgetful { log, hub, loop in
            func milliseconds(_ hub: Hub) -> Int64 { hub.now.nanoseconds / 1_000_000 }
            hub.errorHandler = { error, _ in
                let error = error as? LoopError
                log.note("reported \(error.map { "\($0.code)" } ?? "another error") at \(milliseconds(hub))")
            }
            let pipe = try Pipe()
            let watch = try DescriptorWatch(pipe.readEnd, on: hub, referenced: false) {
                pipe.read()
                log.note("read at \(milliseconds(hub))")
            }
            loop.refusal = ENOSPC
            loop.loseAll()
            pipe.write()
            try sleep(for: .milliseconds(350))
            loop.refusal = nil
            try sleep(for: .milliseconds(150))
            pipe.write()
            try sleep(for: .milliseconds(1))
            watch.close()
            // Closing it during its retries stops them.
            let other = try DescriptorWatch(pipe.readEnd, on: hub, referenced: false) {}
            loop.refusal = ENOSPC
            loop.loseAll()
            try sleep(for: .milliseconds(1))
            other.close()
            log.note("timers: \(hub.statistics.pendingTimers)")
        }
        #expect(
            log == [
                "reported outOfResources at 0", "read at 400", "read at 500", "reported outOfResources at 501",
                "timers: 0",
            ])
    }
}
