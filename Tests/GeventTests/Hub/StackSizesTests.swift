import CGevent
import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// The address space of the current stack, without its guard.
private func usableSize() -> Int {
    let context = AnyGreenlet.current.context!
    return context.pointee.stack_high! - context.pointee.stack_low!
}

@Suite("Stacks of non-default sizes")
struct StackSizesTests {
    @Test("A greenlet gets a stack of at least the requested size, rounded up to a power of two")
    func sizes() throws {
        try withHub { hub in
            let small = try spawn(stackSize: 16 << 10) { usableSize() }.get()
            #expect((8 << 10..<20 << 10).contains(small))
            let odd = try spawn(stackSize: 100_000) { usableSize() }.get()
            #expect((90 << 10..<136 << 10).contains(odd))
            let large = try spawn(stackSize: 8 << 20) { usableSize() }.get()
            #expect((8 << 20..<9 << 20).contains(large))
            let most = try spawn(stackSize: 64 << 20) { usableSize() }.get()
            #expect((64 << 20..<68 << 20).contains(most))
            // Requesting the default size gives a default stack.
            let before = gevent_hub_stack_count(hub.pointer)
            let usual = try spawn(stackSize: 1 << 20) { usableSize() }.get()
            let unasked = try spawn { usableSize() }.get()
            #expect(unasked == usual)
            #expect(gevent_hub_stack_count(hub.pointer) == before + 1)
        }
    }

    @Test("Every way to make a greenlet accepts a size")
    func everyWay() throws {
        final class Sized: Greenlet<Int> {
            override func run() -> Int { usableSize() }
        }
        try withHub { _ in
            var sizes: [Int] = []
            sizes.append(try spawn(stackSize: 32 << 10) { usableSize() }.get())
            sizes.append(try Greenlet.spawn(stackSize: 32 << 10) { usableSize() }.get())
            let made = Greenlet(stackSize: 32 << 10) { usableSize() }
            made.start(after: .milliseconds(1))
            sizes.append(try made.get())
            let subclass = Sized(stackSize: 32 << 10)
            subclass.start()
            sizes.append(try subclass.get())
            sizes.append(try withGroup { try $0.spawn(stackSize: 32 << 10) { usableSize() }.get() })
            spawnRaw(stackSize: 32 << 10) { sizes.append(usableSize()) }
            try sleep()
            try RawGreenlet(stackSize: 32 << 10) { sizes.append(usableSize()) }.switchTo()
            #expect(sizes.count == 7)
            #expect(sizes.allSatisfy { (20 << 10..<36 << 10).contains($0) })
        }
    }

    @Test("A large stack has room for recursion that the default stack has not")
    func recursion() throws {
        try withHub { _ in
            let depth = 40_000
            let reached = try spawn(stackSize: 64 << 20) { recurse(depth) }.get()
            #expect(reached == depth)
        }
    }

    @Test("An overflow of a stack of non-default size names the greenlet")
    func overflow() async throws {
        let result = try await #require(processExitsWith: .signal(SIGSEGV), observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let deep = spawn(stackSize: 128 << 10) { endless() }
                deep.name = "a small one"
                try deep.join()
            }
        }
        #expect(text(result.standardErrorContent).contains("greenlet stack overflow in a small one"))
    }

    @Test(
        "A size out of range stops the program with a message that contains the range",
        arguments: [0, 16_383, (64 << 20) + 1])
    func bounds(size: Int) async throws {
        let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            [size = size as Int] in
            dieQuietly()
            try withHub { _ in try spawn(stackSize: size) {}.join() }
        }
        let report = text(result.standardErrorContent)
        #expect(report.contains("a stack of \(size) bytes: stackSize takes 16384 (16 KiB) to 67108864 (64 MiB)"))
    }

    @Test("Each size reuses its own stacks, in any order of greenlets")
    func reuse() throws {
        try withHub { hub in
            let sizes = [16 << 10, 64 << 10, 256 << 10, 1 << 20]
            for round in 0..<3 {
                let greenlets = (0..<100).map { number in
                    spawn(stackSize: sizes[number % 4]) {
                        if number % 3 == round { try sleep(for: .milliseconds(1)) }
                        return (size: sizes[number % 4], usable: usableSize())
                    }
                }
                for greenlet in greenlets {
                    let (size, usable) = try greenlet.get()
                    #expect((size / 2..<size + size / 16 + 8192).contains(usable))
                }
            }
            #expect(gevent_hub_stack_count(hub.pointer) <= 100)
            let statistics = hub.statistics
            #expect(statistics.liveGreenlets == 0)
            #expect(statistics.idleStacks == gevent_hub_stack_count(hub.pointer))
            #expect((25...100).contains(statistics.peakLiveGreenlets))
        }
    }

    @Test("A greenlet may park at a depth for which a smaller stack has no room")
    func deepBesideSmall() throws {
        try withHub { _ in
            let small = spawn(stackSize: 16 << 10) { try sleep(for: .seconds(5)) }
            let usual = try spawn { try parkAtDepth(500) }.get()
            let large = try spawn(stackSize: 4 << 20) { try parkAtDepth(2000) }.get()
            #expect(usual == 500)
            #expect(large == 2000)
            try small.join()
        }
    }

    @Test("These greenlets appear in reports, can be killed unstarted, and end with their hub")
    func hub() throws {
        try withHub { hub in
            let parked = spawn(stackSize: 64 << 10) { try sleep(for: .seconds(100)) }
            parked.name = "sized and parked"
            try sleep()
            let queued = spawn(stackSize: 64 << 10) {}
            queued.name = "sized and queued"
            let report = GreenletTree.current().description
            #expect(report.contains("sized and parked"))
            #expect(report.contains("sized and queued"))
            #expect(hub.statistics.liveGreenlets == 1)
            try queued.kill()
            #expect(queued.exit != nil)
            spawn(stackSize: 64 << 10) {}
            hub.destroy()
            #expect(parked.exit != nil)
        }
    }

    @Test("Memory of stacks of other sizes is returned to the system too")
    func trim() throws {
        try withHub { hub in
            let greenlets = (0..<3000).map { _ in spawn(stackSize: 64 << 10) { try sleep(for: .seconds(1)) } }
            try joinAll(greenlets)
            for _ in 0..<10 { try sleep(for: .seconds(1)) }
            #expect(hub.statistics.idleStacks <= 1024)
        }
    }

    @Test("Where mprotect guards stacks, the limit counts all sizes together")
    func limit() async {
        await #expect(processExitsWith: .success) {
            gevent_stacks_force_mprotect(true)
            let isRight = try withHub { hub in
                hub.errorHandler = { _, _ in }
                hub.pointer.pointee.stacks.limit = 3
                let greenlets = (0..<5).map { number in
                    spawn(stackSize: number % 2 == 0 ? 64 << 10 : 1 << 20) { try sleep(for: .seconds(1)) }
                }
                try joinAll(greenlets)
                let failed = greenlets.filter { ($0.error as? HubError)?.code == .outOfStacks }
                return failed.count == 2 && failed[0] === greenlets[3]
            }
            exit(isRight ? 0 : 1)
        }
    }

    // ThreadSanitizer loses its fibers in a forked child.
    @Test("In a forked child, stacks queued before the fork belong to the parent", .enabled(if: !isSanitized))
    func forked() throws {
        try withHub(on: .configured) { hub in
            var count = 0
            let queued = spawn(stackSize: 64 << 10) { count += 1 }
            let code = try inChild {
                hub.destroy()
                return CInt(count)
            }
            #expect(code == 0)
            try queued.join()
            #expect(count == 1)
        }
    }
}
