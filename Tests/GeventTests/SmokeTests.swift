import Gevent
import GeventEpoll
import GeventTesting
import Testing

@Suite struct SmokeTests {
    @Test func aGreenletReturnsItsValue() throws {
        try withHub { _ in
            let value = try spawn { 42 }.get()
            #expect(value == 42)
        }
    }

    @Test func sleepTakesVirtualTime() throws {
        try withHub { hub in
            try sleep(for: .seconds(3600))
            #expect(hub.now.nanoseconds == 3_600_000_000_000)
        }
    }

    @Test func aRealLoopSleepsToo() throws {
        try withHub(on: .configured) { hub in
            let before = hub.now
            try sleep(for: .milliseconds(5))
            #expect(before.duration(to: hub.now) >= .milliseconds(5))
        }
    }
}
