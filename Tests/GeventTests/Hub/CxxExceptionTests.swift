import CCxxExceptions
import CGevent
import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

private typealias Call = (Int32, @convention(c) (UnsafeMutableRawPointer?) -> Void, UnsafeMutableRawPointer?) -> Bool

/// Runs `body` while `call` has an exception in flight.
private func within(_ call: Call, _ number: Int, _ body: () -> Void) -> Bool {
    withoutActuallyEscaping(body) { body in
        var body = body
        return withUnsafeMutablePointer(to: &body) { place in
            call(Int32(number), { $0!.assumingMemoryBound(to: (() -> Void).self).pointee() }, place)
        }
    }
}

@Suite("C++ exceptions in flight")
struct CxxExceptionTests {
    @Test("The C++ runtime's per-thread exception state is found")
    func found() throws {
        try withHub { hub in
            #expect(hub.pointer.pointee.cxx_exceptions != nil)
            let isSeen = within(cxx_call_in_catch, 1) {
                #expect(hub.pointer.pointee.cxx_exceptions.pointee.caught != nil)
            }
            #expect(isSeen)
        }
    }

    @Test("A thousand greenlets parked in catch blocks each keep their exception")
    func manyInCatchBlocks() throws {
        try withHub { _ in
            let greenlets = (0..<1000).map { number in
                spawn {
                    let isIntact = within(cxx_call_in_catch, number) {
                        for _ in 0..<3 { try? sleep() }
                        try? sleep(for: .milliseconds(1 + number % 7))
                    }
                    return isIntact && !cxx_has_exceptions()
                }
            }
            let areIntact = try greenlets.map { try $0.get() }
            #expect(!areIntact.contains(false))
            #expect(cxx_living_exceptions() == 0)
        }
    }

    @Test("A thousand greenlets parked in destructors during unwinding each keep their exception")
    func whileUnwinding() throws {
        try withHub { _ in
            let greenlets = (0..<100).map { number in
                spawn {
                    let isCaught = within(cxx_call_while_unwinding, number) {
                        try? sleep()
                        try? sleep(for: .milliseconds(1 + number % 7))
                    }
                    return isCaught && !cxx_has_exceptions()
                }
            }
            let areIntact = try greenlets.map { try $0.get() }
            #expect(!areIntact.contains(false))
            #expect(cxx_living_exceptions() == 0)
        }
    }

    @Test("A greenlet parked in a catch block does not affect greenlets that start or resume")
    func isolation() throws {
        try withHub { hub in
            var seen: [Bool] = []
            let bystander = spawn {
                for _ in 0..<5 {
                    try sleep()
                    seen.append(cxx_has_exceptions())
                }
            }
            let isIntact = try spawn {
                within(cxx_call_in_catch, 1) {
                    seen.append(!cxx_has_exceptions())
                    let begun = spawn {
                        seen.append(cxx_has_exceptions())
                        // This greenlet starts on the stack of one that has ended.
                        spawn { seen.append(cxx_has_exceptions()) }
                        seen.append(!within(cxx_call_in_catch, 2) { try? sleep() })
                        seen.append(cxx_has_exceptions())
                    }
                    try? begun.join()
                    hub.runCallback { seen.append(cxx_has_exceptions()) }
                    try? sleep(for: .milliseconds(1))
                    seen.append(!cxx_has_exceptions())
                }
            }.get()
            try bystander.join()
            #expect(isIntact)
            #expect(seen.count == 12)
            #expect(!seen.contains(true))
        }
    }

    @Test("A greenlet killed or switched to in a catch block leaves nothing behind; main may park there too")
    func killed() throws {
        try withHub { _ in
            let victim = spawn {
                within(cxx_call_in_catch, 1) {
                    do { try sleep(for: .seconds(100)) } catch { #expect(error is GreenletExit) }
                    try? sleep()
                }
            }
            let raw = RawGreenlet { #expect(!cxx_has_exceptions()) }
            let isIntact = within(cxx_call_in_catch, 2) {
                try? sleep()
                try? raw.switchTo()
                try? victim.kill()
                try? victim.join()
            }
            #expect(isIntact)
            #expect(victim.value == true)
            #expect(cxx_living_exceptions() == 0)
            #expect(!cxx_has_exceptions())
        }
    }
}
