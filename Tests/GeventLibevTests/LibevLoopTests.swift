import CLibev
import Gevent
import GeventLibev
import GeventLoop
import GeventTesting
import Glibc
import Testing

@Suite("The loop on libev")
struct LibevLoopTests {
    @Test("The name, the version and the backend are reported")
    func facts() throws {
        let loop = try LibevLoop()
        defer { loop.close() }
        #expect(LibevLoop.backendName == "libev")
        #expect(loop.features["libev"]?.hasPrefix("4.") == true)
        #expect(loop.features["backend"] == loop.backend?.rawValue)
        #expect(loop.features["adopted"] == "no")
        #expect(loop.timerResolution == .nanoseconds(1))
    }

    @Test("Linking the module registers the loop")
    func registration() throws {
        #expect(LoopBackend.linked.contains { $0.name == "libev" })
        let (loop, _) = try Configuration(environment: ["GEVENT_LOOP": "libev"]).resolve().makeLoop()
        defer { loop.close() }
        #expect(loop is LibevLoop)
    }

    // MARK: Backends

    @Test("The requested backend is used", arguments: [LibevLoop.Backend.epoll, .poll, .select])
    func backends(backend: LibevLoop.Backend) throws {
        let loop = try LibevLoop(backends: [backend])
        defer { loop.close() }
        #expect(loop.backend == backend)
        #expect(LibevLoop.Backend.supported.contains(backend))
    }

    @Test("The first of several backends that works is used")
    func backendList() throws {
        let loop = try LibevLoop(backends: [.poll, .epoll])
        defer { loop.close() }
        #expect(loop.backend == .poll)
    }

    @Test("GEVENT_BACKEND chooses the backend")
    func backendVariable() async {
        await #expect(processExitsWith: .success) {
            setenv("GEVENT_BACKEND", " Select, poll", 1)
            setenv("GEVENT_LOOP", "libev", 1)
            let (loop, _) = try Configuration.shared.resolve().makeLoop()
            exit(loop.features["backend"] == "select" ? 0 : 1)
        }
    }

    @Test("The configuration that creates the loop determines its backend, and the process's stays unresolved")
    func backendOfAnotherConfiguration() async {
        await #expect(processExitsWith: .success) {
            setenv("GEVENT_BACKEND", "poll", 1)
            let environment = ["GEVENT_LOOP": "libev", "GEVENT_BACKEND": "select"]
            let (loop, _) = try Configuration(environment: environment).resolve().makeLoop()
            #expect(loop.features["backend"] == "select")
            // Throws if the process's settings have been read.
            try Configuration.shared.set(.libevBackend, to: "epoll")
            #expect(try Configuration.shared.resolve()[.libevBackend] == "epoll")
            exit(0)
        }
    }

    @Test("An unknown GEVENT_BACKEND is rejected, and the error lists the backends")
    func badBackendVariable() async {
        await #expect(processExitsWith: .success) {
            let environment = ["GEVENT_LOOP": "libev", "GEVENT_BACKEND": "epoll, kqueue"]
            let error = try #require(throws: ConfigurationError.self) {
                try Configuration(environment: environment).resolve().makeLoop()
            }
            #expect(
                error.message.contains(
                    "GEVENT_BACKEND=\"epoll, kqueue\": libev has no backend \"kqueue\"; it has epoll, poll, select"))
        }
    }

    @Test("io_uring is rejected with the reason, however it is requested")
    func ring() async {
        await #expect(processExitsWith: .success) {
            let environment = ["GEVENT_LOOP": "libev", "GEVENT_BACKEND": "iouring"]
            let error = try #require(throws: ConfigurationError.self) {
                try Configuration(environment: environment).resolve().makeLoop()
            }
            #expect(error.message.contains("GEVENT_BACKEND=\"iouring\": libev's io_uring backend is not used"))
            #expect(error.message.contains("it submits requests that Linux refuses since 5.13, and then aborts"))
        }
        // If the kernel or a sandbox refuses io_uring, libev cannot create such a loop.
        guard let ring = ev_loop_new(CUnsignedInt(EVBACKEND_IOURING) | CUnsignedInt(EVFLAG_NOENV)) else { return }
        let error = #expect(throws: LoopError.self) { _ = try LibevLoop(adopting: ring) }
        #expect(error?.code == .unsupported)
        ev_loop_destroy(ring)
        await #expect(processExitsWith: .success) {
            setenv("LIBEV_FLAGS", "128", 1)
            let error = try #require(throws: LoopError.self) { _ = try LibevLoop() }
            #expect(error.code == .unsupported)
            #expect(error.description.hasPrefix("LIBEV_FLAGS=\"128\": libev's io_uring backend is not used"))
        }
    }

    @Test("LIBEV_FLAGS chooses the backend")
    func flags() async {
        await #expect(processExitsWith: .success) {
            setenv("LIBEV_FLAGS", "2", 1)
            exit(try LibevLoop().backend == .poll ? 0 : 1)
        }
    }

    @Test("LIBEV_FLAGS that libev does not understand or cannot satisfy are rejected", arguments: ["junk", "8", "-1"])
    func badFlags(flags: String) async {
        await #expect(processExitsWith: .success) { [flags] in
            setenv("LIBEV_FLAGS", flags, 1)
            let error = try #require(throws: LoopError.self) { _ = try LibevLoop() }
            #expect(error.code == .unsupported)
            #expect(error.description.hasPrefix("LIBEV_FLAGS=\"\(flags)\": "))
            #expect(error.message.contains("4 for epoll, 2 for poll, 1 for select"))
        }
    }

    @Test("A backend requested in code takes precedence over LIBEV_FLAGS")
    func codeBeforeFlags() async {
        await #expect(processExitsWith: .success) {
            setenv("LIBEV_FLAGS", "2", 1)
            exit(try LibevLoop(backends: [.select]).backend == .select ? 0 : 1)
        }
    }

    // MARK: Adopting

    @Test("A C timer and a C watcher on an adopted loop fire while greenlets run")
    func adopted() throws {
        try onFreshThread {
            let host = try CHost()
            let hub = try Hub.start(on: LibevLoop(adopting: host.loop))
            #expect(hub.loopName == "libev")
            var slept = 0
            let sleeper = spawn {
                for _ in 0..<50 {
                    try sleep(for: .milliseconds(1))
                    slept += 1
                }
            }
            let writer = spawn {
                for _ in 0..<5 {
                    try sleep(for: .milliseconds(5))
                    host.write()
                }
            }
            try joinAll([sleeper, writer])
            // The timer is due every 2 ms and the sleeper took 50.
            #expect(slept == 50)
            #expect(host.counts.pointee.timer >= 5)
            #expect(host.counts.pointee.reads == 5)
            hub.destroy()
            host.end()
        }
    }

    @Test("Closing leaves an adopted loop usable")
    func adoptedLoopAfterClose() throws {
        let host = try CHost()
        defer { host.end() }
        let loop = try LibevLoop(adopting: host.loop)
        #expect(loop.features["adopted"] == "yes")
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { Glibc.close(end) } }
        try loop.setInterest(.write, for: ends[1], generation: 1)
        loop.close()
        host.write()
        let before = ev_iteration(host.loop)
        while host.counts.pointee.reads == 0 { _ = ev_run(host.loop, CInt(EVRUN_ONCE)) }
        #expect(ev_iteration(host.loop) > before)
    }

    @Test("No event or wake is lost while other code runs the adopted loop")
    func runByOthers() throws {
        let host = try CHost(hasTimer: false)
        defer { host.end() }
        let loop = try LibevLoop(adopting: host.loop)
        defer { loop.close() }
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { Glibc.close(end) } }
        try loop.setInterest(.write, for: ends[1], generation: 1)
        loop.waker.wake()
        for _ in 0..<3 { _ = ev_run(host.loop, CInt(EVRUN_NOWAIT)) }
        var events = ReadyEvents()
        try loop.poll(until: nil, into: &events)
        #expect(events.count == 1)
        try loop.setInterest([], for: ends[1], generation: 1)
        loop.waker.wake()
        for _ in 0..<3 { _ = ev_run(host.loop, CInt(EVRUN_NOWAIT)) }
        events.removeAll()
        // Without the wake this would not return.
        try loop.poll(until: nil, into: &events)
        #expect(events.count == 0)
    }

    // MARK: Misuse

    @Test("Descriptors closed without notice do no harm when libev registers all again")
    func reregistering() throws {
        let loop = try LibevLoop()
        defer { loop.close() }
        var events = ReadyEvents()
        // Duplicates on private numbers, so that no other thread's descriptor is affected.
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { Glibc.close(end) } }
        let (orphan, closed) = (CInt(700), CInt(701))
        for number in [orphan, closed] {
            try #require(dup2(ends[1], number) == number)
            try loop.setInterest(.write, for: number, generation: 1)
        }
        try loop.poll(until: .distantPast, into: &events)
        #expect(events.count == 2)
        Glibc.close(orphan)
        Glibc.close(closed)
        // libev now gets events that it cannot stop, so it creates a new epoll descriptor.
        try loop.setInterest([], for: orphan, generation: 1)
        for _ in 0..<5 { try loop.poll(until: loop.now.advanced(by: .milliseconds(2)), into: &events) }
    }

    #if DEBUG
        @Test("In a debug build, use after close traps and names the call")
        func afterClose() async throws {
            let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
                let loop = try LibevLoop()
                loop.close()
                loop.close()
                try loop.setInterest(.read, for: 0, generation: 1)
            }
            let text = String(decoding: result.standardErrorContent, as: UTF8.self)
            #expect(text.contains("LibevLoop.setInterest(_:for:generation:) was called after close()"))
        }
    #else
        @Test("In a release build, use after close is an error")
        func afterClose() throws {
            let loop = try LibevLoop()
            loop.close()
            let error = #expect(throws: LoopError.self) { try loop.setInterest(.read, for: 0, generation: 1) }
            #expect(error?.code == .closed)
        }
    #endif
}

/// A stand-in for a C library on a libev loop: a timer and a watched pipe, with callbacks in C.
private final class CHost {
    struct Counts {
        var timer = 0
        var reads = 0
    }

    let loop: OpaquePointer
    let counts = UnsafeMutablePointer<Counts>.allocate(capacity: 1)
    private let timer = UnsafeMutablePointer<ev_timer>.allocate(capacity: 1)
    private let watcher = UnsafeMutablePointer<ev_io>.allocate(capacity: 1)
    private var ends: [CInt] = [-1, -1]

    init(hasTimer: Bool = true) throws {
        loop = try #require(ev_loop_new(0))
        try #require(pipe(&ends) == 0)
        counts.initialize(to: Counts())
        // The effect of the macros ev_timer_init and ev_io_init.
        timer.initialize(to: ev_timer())
        timer.pointee.at = 0.002
        timer.pointee.`repeat` = 0.002
        timer.pointee.data = UnsafeMutableRawPointer(counts)
        timer.pointee.cb = { _, timer, _ in
            timer?.pointee.data.assumingMemoryBound(to: Counts.self).pointee.timer += 1
        }
        if hasTimer { ev_timer_start(loop, timer) }
        watcher.initialize(to: ev_io())
        watcher.pointee.fd = ends[0]
        watcher.pointee.events = CInt(EV_READ) | CInt(EV__IOFDSET)
        watcher.pointee.data = UnsafeMutableRawPointer(counts)
        watcher.pointee.cb = { _, watcher, _ in
            guard let watcher else { return }
            var byte: UInt8 = 0
            let count = read(watcher.pointee.fd, &byte, 1)
            watcher.pointee.data.assumingMemoryBound(to: Counts.self).pointee.reads += count
        }
        ev_io_start(loop, watcher)
    }

    func write() {
        var byte: UInt8 = 1
        _ = Glibc.write(ends[1], &byte, 1)
    }

    func end() {
        ev_timer_stop(loop, timer)
        ev_io_stop(loop, watcher)
        ev_loop_destroy(loop)
        timer.deallocate()
        watcher.deallocate()
        counts.deallocate()
        for end in ends { Glibc.close(end) }
    }
}
