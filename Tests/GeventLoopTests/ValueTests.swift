import GeventLoop
import Testing

@Suite("Instants, batches and errors")
struct ValueTests {
    @Test("Fractions of a nanosecond round up, forwards and backwards")
    func rounding() {
        let start = LoopInstant(nanoseconds: 1000)
        let tenth = Duration(secondsComponent: 0, attosecondsComponent: 100_000_000)
        #expect(start.advanced(by: tenth).nanoseconds == 1001)
        #expect(start.advanced(by: .zero - tenth).nanoseconds == 1000)
        #expect(start.advanced(by: .nanoseconds(5)).nanoseconds == 1005)
        #expect(start.advanced(by: .nanoseconds(-5)).nanoseconds == 995)
        #expect(start.advanced(by: .nanoseconds(-5) - tenth).nanoseconds == 995)
        #expect(start.advanced(by: .seconds(2)).nanoseconds == 2_000_001_000)
    }

    @Test("Results out of range saturate")
    func saturation() {
        let start = LoopInstant(nanoseconds: 1000)
        #expect(start.advanced(by: .seconds(Int64.max)) == .distantFuture)
        #expect(start.advanced(by: .seconds(Int64.min)) == .distantPast)
        #expect(start.advanced(by: .nanoseconds(Int64.max)) == .distantFuture)
        #expect(LoopInstant(nanoseconds: -1000).advanced(by: .nanoseconds(Int64.min)) == .distantPast)
        #expect(LoopInstant(nanoseconds: .max).advanced(by: .nanoseconds(1)) == .distantFuture)
    }

    @Test("A duration between any two instants is exact")
    func durations() {
        let early = LoopInstant(nanoseconds: 5)
        let late = LoopInstant(nanoseconds: 12)
        #expect(early.duration(to: late) == .nanoseconds(7))
        #expect(late.duration(to: early) == .nanoseconds(-7))
        #expect(
            LoopInstant.distantPast.duration(to: .distantFuture) == .nanoseconds(Int64.max) - .nanoseconds(Int64.min))
        #expect(early < late)
    }

    @Test("An instant conforms to InstantProtocol")
    func instantProtocol() {
        func moved<Instant: InstantProtocol>(_ instant: Instant, by duration: Instant.Duration) -> Instant {
            instant.advanced(by: duration)
        }
        let start = LoopInstant(nanoseconds: 1000)
        #expect(moved(start, by: .nanoseconds(5)) == LoopInstant(nanoseconds: 1005))
        #expect(start < moved(start, by: .nanoseconds(1)))
    }

    @Test("Instants print as seconds with nine digits")
    func printing() {
        #expect("\(LoopInstant(nanoseconds: 12_000_000_345))" == "12.000000345 s")
        #expect("\(LoopInstant(nanoseconds: -1))" == "-0.000000001 s")
        #expect("\(LoopInstant.distantFuture)" == "distant future")
    }

    @Test("A batch grows, keeps its order, and is reused")
    func batch() {
        var events = ReadyEvents(minimumCapacity: 0)
        for round in UInt32(0)..<2 {
            #expect(events.count == 0)
            for number in CInt(0)..<1000 {
                events.append(ReadyEvent(fileDescriptor: number, generation: round, readiness: .read))
            }
            #expect(events.count == 1000)
            #expect(events[0].fileDescriptor == 0)
            #expect(events[999] == ReadyEvent(fileDescriptor: 999, generation: round, readiness: .read))
            events.removeAll()
        }
    }

    @Test("An error names the operation, the descriptor and the system's reason")
    func errors() {
        let error = LoopError(errno: 9, operation: "epoll_ctl", fileDescriptor: 7)
        #expect(error.code == .badDescriptor)
        #expect("\(error)" == "epoll_ctl on descriptor 7: the descriptor is not open: EBADF (Bad file descriptor)")
        #expect("\(LoopError(.closed, operation: "poll"))" == "poll: the loop has been closed")
        #expect(LoopError(errno: 1, operation: "x").code == .notPollable)
        #expect(LoopError(errno: 24, operation: "x").code == .outOfResources)
        #expect("\(LoopError(errno: 22, operation: "x"))" == "x: EINVAL (Invalid argument)")
    }

    @Test("A system error names the operation, the object and the system's reason")
    func systemErrors() {
        let error = SystemError(errno: 13, operation: "open", object: "/etc/\u{1B}x")
        #expect(error.description == "open /etc/\\u{1B}x: EACCES (Permission denied)")
        #expect(SystemError(errno: 12, operation: "fork").description == "fork: ENOMEM (Cannot allocate memory)")
        #expect(SystemError(errno: 1, operation: "do", message: "not now").description == "do: not now")
    }

    @Test("Readiness prints as words")
    func readiness() {
        #expect(
            [Readiness(), .read, .write, [.read, .write]].map { "\($0)" } == ["none", "read", "write", "read+write"])
    }

    @Test("Durations beyond the range of a clock saturate in both directions")
    func beyondComponents() {
        let now = LoopInstant(nanoseconds: 5)
        for far in [Duration.seconds(Int64.max), .seconds(Int64.max) + .seconds(1), Duration(attoseconds: .max)] {
            #expect(now.advanced(by: far) == .distantFuture)
        }
        for far in [Duration.seconds(Int64.min), Duration(attoseconds: .min)] {
            #expect(now.advanced(by: far) == .distantPast)
        }
    }
}
