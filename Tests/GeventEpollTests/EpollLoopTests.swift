import GeventEpoll
import GeventLoop
import Glibc
import Testing

@Suite("The epoll loop")
struct EpollLoopTests {
    @Test("The name and the available system call are reported")
    func facts() throws {
        let loop = try EpollLoop()
        defer { loop.close() }
        #expect(EpollLoop.backendName == "epoll")
        let hasNanoseconds = loop.features["epoll_pwait2"] == "yes"
        #expect(loop.timerResolution == (hasNanoseconds ? .nanoseconds(1) : .milliseconds(1)))
    }

    @Test("Without epoll_pwait2 the loop waits in whole milliseconds")
    func fallback() throws {
        let loop = try EpollLoop(allowingNanoseconds: false)
        defer { loop.close() }
        #expect(loop.features == ["epoll_pwait2": "no (switched off)"])
        #expect(loop.timerResolution == .milliseconds(1))
    }

    @Test("If more is ready than one poll reports, the next polls report the others in rotation")
    func portions() throws {
        let loop = try EpollLoop()
        defer { loop.close() }
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        var duplicates: [CInt] = []
        defer { for descriptor in ends + duplicates { close(descriptor) } }
        for _ in 0..<600 { duplicates.append(dup(ends[1])) }
        for descriptor in duplicates { try loop.setInterest(.write, for: descriptor, generation: 0) }
        var events = ReadyEvents()
        var reported: Set<CInt> = []
        for round in 1...5 {
            events.removeAll()
            try loop.poll(until: .distantPast, into: &events)
            #expect(events.count == 128)
            for index in 0..<events.count { reported.insert(events[index].fileDescriptor) }
            #expect(reported.count == min(128 * round, 600))
        }
    }

    @Test("A signal ends a poll early and is not an error")
    func signals() async {
        // In a separate process, because signal handlers belong to the whole process.
        await #expect(processExitsWith: .success) {
            let loop = try EpollLoop()
            signal(SIGUSR1) { _ in }
            // The worker threads of libdispatch, on which tests run, block every signal.
            var signals = sigset_t()
            sigemptyset(&signals)
            sigaddset(&signals, SIGUSR1)
            pthread_sigmask(SIG_UNBLOCK, &signals, nil)
            var sender = pthread_t()
            // The argument is the number of the thread to interrupt; several times, as one may come before the poll.
            pthread_create(
                &sender, nil,
                { target in
                    for _ in 0..<100 {
                        Glibc.usleep(10_000)
                        pthread_kill(pthread_t(UInt(bitPattern: target)), SIGUSR1)
                    }
                    return nil
                }, UnsafeMutableRawPointer(bitPattern: UInt(pthread_self())))
            var events = ReadyEvents()
            let deadline = loop.now.advanced(by: .seconds(60))
            try loop.poll(until: deadline, into: &events)
            if loop.now >= deadline { exit(1) }
        }
    }

    #if DEBUG
        @Test("In a debug build, use after close traps and names the call")
        func afterClose() async throws {
            let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
                let loop = try EpollLoop()
                loop.close()
                loop.close()
                try loop.setInterest(.read, for: 0, generation: 1)
            }
            let text = String(decoding: result.standardErrorContent, as: UTF8.self)
            #expect(text.contains("EpollLoop.setInterest(_:for:generation:) was called after close()"))
        }
    #else
        @Test("In a release build, use after close is an error")
        func afterClose() throws {
            let loop = try EpollLoop()
            loop.close()
            let error = #expect(throws: LoopError.self) { try loop.setInterest(.read, for: 0, generation: 1) }
            #expect(error?.code == .closed)
        }
    #endif
}
