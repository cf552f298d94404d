import CLibuv
import Gevent
import GeventLibuv
import GeventLoop
import GeventTesting
import Glibc
import Testing

@Suite("The loop on libuv")
struct LibuvLoopTests {
    @Test("The name and the version are reported")
    func facts() throws {
        let loop = try LibuvLoop()
        defer { loop.close() }
        #expect(LibuvLoop.backendName == "libuv")
        #expect(loop.features == ["libuv": String(cString: uv_version_string()), "adopted": "no"])
        #expect(loop.timerResolution == .nanoseconds(1))
    }

    @Test("Linking the module registers the loop")
    func registration() throws {
        #expect(LoopBackend.linked.contains { $0.name == "libuv" })
        let (loop, _) = try Configuration(environment: ["GEVENT_LOOP": "libuv"]).resolve().makeLoop()
        defer { loop.close() }
        #expect(loop is LibuvLoop)
    }

    // MARK: Adopting

    @Test("A C timer and a C watcher on an adopted loop fire while greenlets run")
    func adopted() throws {
        try onFreshThread {
            let host = try CHost()
            let hub = try Hub.start(on: LibuvLoop(adopting: host.loop))
            #expect(hub.loopName == "libuv")
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
        let loop = try LibuvLoop(adopting: host.loop)
        #expect(loop.features["adopted"] == "yes")
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { Glibc.close(end) } }
        try loop.setInterest(.write, for: ends[1], generation: 1)
        loop.close()
        host.write()
        while host.counts.pointee.reads == 0 { uv_run(host.loop, UV_RUN_ONCE) }
    }

    @Test("No event or wake is lost while other code runs the adopted loop")
    func runByOthers() throws {
        let host = try CHost(hasTimer: false)
        defer { host.end() }
        let loop = try LibuvLoop(adopting: host.loop)
        defer { loop.close() }
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { Glibc.close(end) } }
        try loop.setInterest(.write, for: ends[1], generation: 1)
        loop.waker.wake()
        for _ in 0..<3 { uv_run(host.loop, UV_RUN_NOWAIT) }
        var events = ReadyEvents()
        try loop.poll(until: nil, into: &events)
        #expect(events.count == 1)
        try loop.setInterest([], for: ends[1], generation: 1)
        loop.waker.wake()
        for _ in 0..<3 { uv_run(host.loop, UV_RUN_NOWAIT) }
        events.removeAll()
        // Without the wake this would not return.
        try loop.poll(until: nil, into: &events)
        #expect(events.count == 0)
    }

    @Test("A descriptor that the C library watches on the adopted loop is an error")
    func watchedByOthers() throws {
        let host = try CHost()
        defer { host.end() }
        let loop = try LibuvLoop(adopting: host.loop)
        defer { loop.close() }
        let error = try #require(throws: LoopError.self) {
            try loop.setInterest(.read, for: host.readEnd, generation: 1)
        }
        #expect(error.errno == EEXIST)
        #expect(error.fileDescriptor == host.readEnd)
        #expect(error.message == "another handle on the adopted loop watches it already, and libuv allows one")
        var events = ReadyEvents()
        host.write()
        while host.counts.pointee.reads == 0 { try loop.poll(until: nil, into: &events) }
        #expect(events.count == 0)
    }

    // MARK: Misuse

    @Test("A descriptor closed while watched, with a remaining duplicate, takes no processor time")
    func orphan() throws {
        let loop = try LibuvLoop()
        defer { loop.close() }
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { Glibc.close(end) } }
        // A private number, so that no other thread's descriptor is affected.
        let number: CInt = 700
        for _ in 0..<2 {
            try #require(dup2(ends[1], number) == number)
            try loop.setInterest(.write, for: number, generation: 1)
            var events = ReadyEvents()
            try loop.poll(until: nil, into: &events)
            #expect(events.count == 1)
            Glibc.close(number)
            try loop.setInterest([], for: number, generation: 1)
            events.removeAll()
            let start = processorTime()
            let deadline = loop.now.advanced(by: .milliseconds(100))
            while loop.now < deadline { try loop.poll(until: deadline, into: &events) }
            let spent = processorTime() - start
            #expect(events.count == 0)
            #expect(spent < .milliseconds(50))
        }
    }

    private func processorTime() -> Duration {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
    }

    #if DEBUG
        @Test("In a debug build, use after close traps and names the call")
        func afterClose() async throws {
            let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
                let loop = try LibuvLoop()
                loop.close()
                loop.close()
                try loop.setInterest(.read, for: 0, generation: 1)
            }
            let text = String(decoding: result.standardErrorContent, as: UTF8.self)
            #expect(text.contains("LibuvLoop.setInterest(_:for:generation:) was called after close()"))
        }
    #else
        @Test("In a release build, use after close is an error")
        func afterClose() throws {
            let loop = try LibuvLoop()
            loop.close()
            let error = #expect(throws: LoopError.self) { try loop.setInterest(.read, for: 0, generation: 1) }
            #expect(error?.code == .closed)
        }
    #endif
}

/// A stand-in for a C library on a libuv loop: a timer and a watched pipe, with callbacks in C.
private final class CHost {
    struct Counts {
        var timer = 0
        var reads = 0
        var readEnd: CInt
    }

    let loop = UnsafeMutablePointer<uv_loop_t>.allocate(capacity: 1)
    let counts = UnsafeMutablePointer<Counts>.allocate(capacity: 1)
    private let timer = UnsafeMutablePointer<uv_timer_t>.allocate(capacity: 1)
    private let watcher = UnsafeMutablePointer<uv_poll_t>.allocate(capacity: 1)
    private var ends: [CInt] = [-1, -1]

    var readEnd: CInt { ends[0] }

    init(hasTimer: Bool = true) throws {
        try #require(pipe(&ends) == 0)
        try #require(uv_loop_init(loop) == 0)
        counts.initialize(to: Counts(readEnd: ends[0]))
        try #require(uv_timer_init(loop, timer) == 0)
        timer.pointee.data = UnsafeMutableRawPointer(counts)
        if hasTimer {
            uv_timer_start(
                timer, { timer in timer?.pointee.data.assumingMemoryBound(to: Counts.self).pointee.timer += 1 }, 2, 2)
        }
        try #require(uv_poll_init(loop, watcher, ends[0]) == 0)
        watcher.pointee.data = UnsafeMutableRawPointer(counts)
        uv_poll_start(watcher, CInt(UV_READABLE.rawValue)) { watcher, _, _ in
            guard let counts = watcher?.pointee.data.assumingMemoryBound(to: Counts.self) else { return }
            var byte: UInt8 = 0
            let count = read(counts.pointee.readEnd, &byte, 1)
            counts.pointee.reads += max(count, 0)
        }
    }

    func write() {
        var byte: UInt8 = 1
        _ = Glibc.write(ends[1], &byte, 1)
    }

    /// Destroys the loop. Fails if other handles remain on it.
    func end() {
        for handle in [UnsafeMutableRawPointer(timer), UnsafeMutableRawPointer(watcher)] {
            uv_close(handle.assumingMemoryBound(to: uv_handle_t.self)) { handle in
                UnsafeMutableRawPointer(handle)?.deallocate()
            }
        }
        uv_run(loop, UV_RUN_DEFAULT)
        precondition(uv_loop_close(loop) == 0)
        loop.deallocate()
        counts.deallocate()
        for end in ends { Glibc.close(end) }
    }
}
