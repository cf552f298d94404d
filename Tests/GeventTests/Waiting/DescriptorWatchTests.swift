import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Watches of the library's own descriptors")
struct DescriptorWatchTests {
    @Test("The closure runs on the hub each time the descriptor is readable, until it is closed", arguments: bothLoops)
    func called(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let pipe = try Pipe()
            var calls = 0
            let watch = try DescriptorWatch(pipe.readEnd, on: hub, referenced: true) {
                #expect(AnyGreenlet.current is HubGreenlet)
                calls += 1
                pipe.read()
            }
            for round in 1...3 {
                pipe.write()
                try waitUntil { calls == round }
            }
            watch.close()
            watch.close()
            pipe.write()
            try sleep(for: .milliseconds(2))
            #expect(calls == 3)
        }
    }

    @Test("A watch keeps the hub waiting while it is referenced and open", arguments: bothLoops)
    func referenced(loop: TestLoop) throws {
        try withHub(on: loop) { hub in
            let pipe = try Pipe()
            var watch: DescriptorWatch?
            watch = try DescriptorWatch(pipe.readEnd, on: hub, referenced: false) {
                pipe.read()
                watch?.close()
            }
            #expect(try hub.join())
            watch?.isReferenced = true
            let writer = TestThread { [end = pipe.writeEnd] in
                Glibc.usleep(2000)
                var byte: UInt8 = 1
                write(end, &byte, 1)
            }
            #expect(try hub.join())
            #expect(watch?.isOpen == false && watch?.isReferenced == false)
            watch?.isReferenced = true
            #expect(try hub.join())
            writer.join()
        }
    }

    @Test("A watch lives while it is open, even if nothing holds it, and releases its closure when it is released")
    func life() throws {
        try withHub(on: .configured) { hub in
            let pipe = try Pipe()
            weak var weakly: DescriptorWatch?
            var released = false
            do {
                let witness = Witness { released = true }
                let watch = try DescriptorWatch(pipe.readEnd, on: hub, referenced: false) {
                    withExtendedLifetime(witness) { _ = pipe.read() }
                    weakly?.close()
                }
                weakly = watch
            }
            #expect(weakly != nil && !released)
            pipe.write()
            try waitUntil { released }
            #expect(weakly == nil)
        }
    }

    @Test("A descriptor that cannot be watched throws, and nothing remains")
    func refused() throws {
        try withHub(on: .configured) { hub in
            #expect(throws: LoopError.self) {
                try DescriptorWatch(9999, on: hub, referenced: true) {}
            }
            try #require(try hub.join())
        }
    }
}
