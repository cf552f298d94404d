import CGevent
import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// Recurses until `depth`, with a frame about as large as that of ordinary code.
@inline(never)
func recurse(_ depth: Int, _ work: (Int) -> Int = { $0 }) -> Int {
    if depth == 0 { return work(0) }
    let below = recurse(depth - 1, work)
    return work(below) + 1
}

/// Keeps the compiler from turning recursion into a loop.
func endless() -> Int { recurse(.max) { $0 &* 3 } }

/// The current stack pointer.
@inline(never)
private func stackAddress() -> UInt {
    withUnsafeTemporaryAllocation(byteCount: 16, alignment: 16) { UInt(bitPattern: $0.baseAddress!) }
}

/// Lets the hub check idle stacks twice; at the second check it releases their memory.
private func becomeIdle() throws { for _ in 0..<4 { try sleep(for: .seconds(2)) } }

/// The resident size of a stack, from its top to the lowest resident page.
private func residentDepth(_ context: UnsafeMutablePointer<gevent_context>) -> Int {
    let high = context.pointee.stack_high!
    return high - gevent_first_resident_page(context.pointee.stack_low, high)
}

private func slotCount(_ hub: Hub) -> Int { gevent_stacks_slot_count(&hub.pointer.pointee.stacks) }

@Suite("Stacks")
struct StackTests {
    // MARK: Overflow

    @Test("A stack overflow ends the process by a signal, with a message that names the greenlet")
    func overflow() async throws {
        let result = try await #require(processExitsWith: .signal(SIGSEGV), observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let innocent = spawn { try sleep(for: .seconds(1)) }
                innocent.name = "innocent"
                let deep = spawn { endless() }
                deep.name = "the deep one"
                try deep.join()
            }
        }
        #expect(text(result.standardErrorContent).contains("greenlet stack overflow in the deep one"))
    }

    @Test("The name may be set while the greenlet runs, and long names are cut")
    func overflowName() async throws {
        let result = try await #require(processExitsWith: .signal(SIGSEGV), observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let deep = spawn {
                    try sleep()
                    return endless()
                }
                try sleep()
                deep.name = String(repeating: "long ", count: 100)
                try deep.join()
            }
        }
        #expect(text(result.standardErrorContent).contains("greenlet stack overflow in long long long"))
    }

    @Test("An unnamed greenlet on a reused stack does not appear under the name of the previous one")
    func overflowUnnamed() async throws {
        let result = try await #require(processExitsWith: .signal(SIGSEGV), observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                let first = spawn {}
                first.name = "the first one"
                try first.join()
                try spawn { endless() }.join()
            }
        }
        #expect(text(result.standardErrorContent).contains("greenlet stack overflow in an unnamed greenlet"))
    }

    @Test("An overflow is reported likewise with stacks guarded by mprotect, and on a small stack")
    func overflowOfSmallStack() async throws {
        let result = try await #require(processExitsWith: .signal(SIGSEGV), observing: [\.standardErrorContent]) {
            dieQuietly()
            gevent_stacks_force_mprotect(true)
            try Gevent.configuration.set(.stackSize, to: 64 << 10)
            try withHub { _ in
                let deep = spawn { endless() }
                deep.name = "small"
                try deep.join()
            }
        }
        #expect(text(result.standardErrorContent).contains("greenlet stack overflow in small"))
    }

    @Test("An overflow in a hub callback names the hub")
    func overflowInHub() async throws {
        let result = try await #require(processExitsWith: .signal(SIGSEGV), observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { hub in
                hub.runCallback { _ = endless() }
                try sleep()
            }
        }
        #expect(text(result.standardErrorContent).contains("greenlet stack overflow in the hub"))
    }

    @Test("A frame that skips the guard into another stack is reported at the next park, and nothing else runs")
    func jumpAndPark() async throws {
        let result = try await #require(processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                for name in ["innocent", "jumper", "below"] {
                    let greenlet = spawn {
                        try sleep()
                        if name == "jumper" { _ = try parkInLargeFrame { try sleep(for: .seconds(1)) } }
                        try sleep(for: .seconds(2))
                        printToStandardError("another greenlet ran\n")
                    }
                    greenlet.name = name
                }
                try sleep(for: .seconds(9))
            }
        }
        let report = text(result.standardErrorContent)
        #expect(report.contains("gevent: greenlet jumper went "), "\(report)")
        #expect(report.contains(" bytes below its stack, over its guard, before it parked; "))
        #expect(!report.contains("another greenlet ran"))
    }

    @Test("It is also reported at a yield and at a direct switch to another greenlet")
    func jumpAndSwitch() async throws {
        for isHandover in [false, true] {
            let result = try await #require(
                processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
            ) { [isHandover = isHandover as Bool] in
                dieQuietly()
                try withHub { _ in
                    for _ in 0..<3 { spawn { while true { try sleep() } } }
                    let target = RawGreenlet { try sleep() }
                    let jumper = spawn {
                        try sleep()
                        _ = try parkInLargeFrame { if isHandover { try target.switchTo() } else { try sleep() } }
                    }
                    jumper.name = "jumper"
                    try jumper.join()
                }
            }
            #expect(text(result.standardErrorContent).contains("gevent: greenlet jumper went "))
        }
    }

    @Test("A frame that fits a stack runs, and so does a call next to an unused larger frame")
    func largeFrames() throws {
        let results = try withHub { _ in
            let neighbours = (0..<3).map { number in
                spawn {
                    try sleep(for: .seconds(1))
                    return recurse(number) == number
                }
            }
            let large = spawn { try largeFrameInABranch(isTaken: false) && largeFrameInABranch(isTaken: true) }
            return try [large.get()] + neighbours.map { try $0.get() }
        }
        #expect(results == [true, true, true, true])
    }

    @Test("A crash that is not an overflow is not reported as one")
    func otherCrash() async throws {
        let result = try await #require(processExitsWith: .signal(SIGSEGV), observing: [\.standardErrorContent]) {
            dieQuietly()
            try withHub { _ in
                try spawn { UnsafeMutablePointer<Int>(bitPattern: 8)!.pointee = 1 }.join()
            }
        }
        #expect(!text(result.standardErrorContent).contains("overflow"))
    }

    @Test("Recursion that fits a stack of the default size runs, and does not touch the neighbours")
    func deepRecursion() throws {
        let results = try withHub { _ in
            let greenlets = (0..<20).map { number in
                spawn {
                    // About 100 KiB in a debug build.
                    let depth = 600 + number
                    let before = recurse(depth)
                    try sleep()
                    return before == depth && recurse(depth) == depth
                }
            }
            return try greenlets.map { try $0.get() }
        }
        #expect(results == Array(repeating: true, count: 20))
    }

    @Test("A greenlet that parks deep in a recursion resumes there")
    func parkDeep() throws {
        let sum = try withHub { _ in
            let greenlets = (0..<50).map { number in spawn { try parkAtDepth(number * 4) } }
            return try greenlets.map { try $0.get() }.reduce(0, +)
        }
        #expect(sum == (0..<50).reduce(0) { $0 + $1 * 4 })
    }

    @Test("An error propagates through many frames of a greenlet's stack")
    func throwDeep() throws {
        let log = try logged { log, _ in
            let victim = spawn { log.outcome("deep") { try parkAtDepth(200) } }
            try sleep()
            try victim.kill()
        }
        #expect(log == ["deep: threw GreenletExit"])
    }

    // MARK: Reuse

    @Test("Greenlets that run one after another share one stack")
    func oneAfterTheOther() throws {
        let count = try withHub { hub in
            for number in 0..<1000 { try #expect(spawn { number }.get() == number) }
            return slotCount(hub)
        }
        #expect(count == 1)
    }

    @Test("A hundred thousand short greenlets spawned at once use a handful of stacks")
    func shortOnes() throws {
        let count = try withHub { hub in
            var sum = 0
            for number in 0..<100_000 { spawn { sum += number } }
            try sleep()
            _ = try hub.join()
            #expect(sum == 4_999_950_000)
            return slotCount(hub)
        }
        #expect(count < 10)
    }

    @Test("Greenlets killed before they ran have no stacks")
    func noStackForTheUnstarted() throws {
        let count = try withHub { hub in
            let greenlets = (0..<100).map { _ in spawn {} }
            try killAll(greenlets)
            _ = try hub.join()
            return slotCount(hub)
        }
        // The hub discards them on this one.
        #expect(count <= 1)
    }

    @Test("Parked greenlets have their own aligned stacks, which are released at the end")
    func ownStacks() throws {
        try withHub { hub in
            var addresses: Set<UInt> = []
            let greenlets = (0..<300).map { _ in
                spawn {
                    addresses.insert(stackAddress() / UInt(RuntimeFacts.current.stackSize))
                    try sleep(for: .seconds(1))
                }
            }
            try joinAll(greenlets)
            #expect(addresses.count == 300)
            #expect(slotCount(hub) == 300)
            #expect(hub.statistics.liveGreenlets == 0)
            #expect(hub.statistics.idleStacks == 300)
            try joinAll((0..<300).map { _ in spawn { try sleep(for: .seconds(1)) } })
            #expect(slotCount(hub) == 300)
        }
    }

    @Test("Memory of idle stacks is returned to the system, and the stacks can be reused")
    func trim() throws {
        try withHub { hub in
            func wave(_ count: Int) throws {
                let greenlets = (0..<count).map { number in
                    spawn {
                        try sleep(for: .seconds(1))
                        return recurse(50) == 50 ? number : -1
                    }
                }
                for (number, greenlet) in greenlets.enumerated() { try #expect(greenlet.get() == number) }
            }
            try wave(4000)
            // The hub trims some of them each time it is idle.
            for _ in 0..<10 { try sleep(for: .seconds(1)) }
            #expect(hub.statistics.idleStacks <= 1024)
            try wave(4000)
            #expect(slotCount(hub) == 4000)
        }
    }

    @Test("A greenlet in a long wait releases the memory below its frames and keeps the frames; the mark remains")
    func shedParked() throws {
        try withHub { hub in
            let gate = Greenlet {}
            let greenlets = (0..<20).map { number in
                spawn {
                    _ = recurse(5000)
                    try gate.join()
                    return recurse(number)
                }
            }
            try sleep()
            let depths = greenlets.map { $0.stackHighWaterMark! }
            #expect(depths.allSatisfy { $0 > 100 << 10 })
            let before = residentMemory()!
            try becomeIdle()
            #expect(before - residentMemory()! > 20 * (64 << 10))
            for (greenlet, depth) in zip(greenlets, depths) {
                #expect(residentDepth(greenlet.context!) < 64 << 10)
                #expect((depth...depth + 1 << 16).contains(greenlet.stackHighWaterMark!))
            }
            gate.start()
            let numbers = try greenlets.map { try $0.get() }
            #expect(numbers == Array(0..<20))
        }
    }

    @Test("A free stack releases all memory but its top once idle, and can be reused")
    func shedFree() throws {
        try withHub { hub in
            func wave() throws {
                let greenlets = (0..<20).map { _ in
                    spawn {
                        try sleep(for: .milliseconds(1))
                        return recurse(5000)
                    }
                }
                for greenlet in greenlets { try #expect(greenlet.get() == 5000) }
            }
            try wave()
            let context = gevent_stacks_in_slot(&hub.pointer.pointee.stacks, 7)!
            #expect(residentDepth(context) > 100 << 10)
            try becomeIdle()
            #expect(residentDepth(context) <= 32 << 10)
            try wave()
        }
    }

    @Test("Each step of the trimming is short, and the trimming ends")
    func shedInSteps() throws {
        try withHub { hub in
            let count = 300
            let greenlets = (0..<count).map { _ in
                spawn {
                    _ = recurse(500)
                    try sleep(for: .seconds(1))
                }
            }
            try sleep()
            var now = hub.now.nanoseconds
            // A stack is checked first, and trimmed if still idle at the next check. Each step advances by at most 256
            // slots, or by 16 if there is something to trim.
            var steps = 0
            while case let next = gevent_hub_shed_stacks(hub.pointer, now), next != .max {
                steps += 1
                now = next
            }
            #expect(steps >= count / 256 + count / 16)
            #expect(greenlets.allSatisfy { residentDepth($0.context!) < 64 << 10 })
            // Nothing has run, so nothing is left to trim, however much time passes.
            #expect(gevent_hub_shed_stacks(hub.pointer, now + 1_000_000_000_000) == .max)
            try joinAll(greenlets)
        }
    }

    // MARK: Running out of stacks

    @Test("Without a stack a greenlet ends with outOfStacks, and the others continue")
    func limit() throws {
        let log = try logged { log, hub in
            hub.errorHandler = { error, greenlet in
                log.note("reported \((error as? HubError)?.code.rawValue ?? "?") of \(greenlet?.name ?? "no greenlet")")
            }
            hub.pointer.pointee.stacks.limit = 3
            let greenlets = (0..<5).map { number in
                let greenlet = spawn {
                    try sleep(for: .seconds(1))
                    return number
                }
                greenlet.name = "\(number)"
                return greenlet
            }
            spawn { log.note("a sixth") }.name = "sixth"
            for greenlet in greenlets {
                do { log.note("\(try greenlet.get())") } catch let error as HubError { log.note(error.code.rawValue) }
            }
            // Stacks are available again.
            log.note("\(try spawn { 7 }.get())")
            log.note(greenlets[4].error.map { "\($0)" } ?? "none")
        }
        #expect(
            log.dropLast() == [
                "reported outOfStacks of 3", "reported outOfStacks of 4", "reported outOfStacks of sixth", "0", "1",
                "2", "outOfStacks", "outOfStacks", "7",
            ])
        #expect(log.last?.hasPrefix("outOfStacks: no stack of ") == true)
        #expect(log.last?.contains(" KiB for a greenlet, with 3 in use: ") == true)
    }

    @Test(
        "A process out of address space reports it, and the greenlets that have stacks continue",
        .disabled(if: isSanitized, "a sanitizer has taken the address space"))
    func addressSpace() async throws {
        let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
            let outcome = try withHub { hub in
                hub.errorHandler = { _, _ in }
                var limit = rlimit()
                getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
                limit.rlim_cur = rlim_t(addressSpaceInUse() + (600 << 20))
                setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
                let greenlets = (0..<3000).map { number in
                    spawn {
                        try sleep(for: .seconds(1))
                        return number
                    }
                }
                let ended = try joinAll(greenlets)
                let failed = ended.filter { ($0.error as? HubError)?.code == .outOfStacks }
                printToStandardError("\(failed.first?.error.map { "\($0)" } ?? "none failed")\n")
                guard try spawn({ 1 }).get() == 1, ended.count == 3000 else { return false }
                return failed.count > 0 && ended.filter(\.isSuccessful).count >= 256
            }
            exit(outcome ? 0 : 1)
        }
        #expect(text(result.standardErrorContent).contains("the system has no memory or address space for another"))
    }

    @Test("Without guard markers in the kernel, stacks are guarded by mprotect and their number is limited")
    func protection() async {
        await #expect(processExitsWith: .success) {
            gevent_stacks_force_mprotect(true)
            let isRight = try withHub { hub in
                guard RuntimeFacts.current.guardPages == .protection else { return false }
                guard hub.pointer.pointee.stacks.limit < 1 << 40 else { return false }
                let greenlets = (0..<500).map { number in
                    spawn {
                        try sleep(for: .seconds(1))
                        return number
                    }
                }
                return try greenlets.map { try $0.get() } == Array(0..<500)
            }
            exit(isRight ? 0 : 1)
        }
    }

    // MARK: Many greenlets

    @Test("Twenty thousand sleeping greenlets all wake, in a handful of memory maps")
    func many() throws {
        let count = isSanitized ? 2000 : 20_000
        let before = mapCount()
        let (woken, peak, maps) = try withHub { hub in
            var woken = 0
            for number in 0..<count {
                spawn {
                    try sleep(for: .seconds(1 + number % 100))
                    woken += 1
                }
            }
            try sleep(for: .milliseconds(1))
            let peak = hub.statistics.liveGreenlets
            let maps = mapCount()
            _ = try hub.join()
            return (woken, peak, maps)
        }
        #expect(woken == count)
        #expect(peak == count)
        if gevent_stacks_guard_kind() == Int32(GEVENT_GUARD_MARKERS) && !isSanitized { #expect(maps - before < 200) }
    }
}

// The functions below fill their frames without named variables: a debug build would zero a variable first.

/// Runs `park` from a frame larger than a default stack and its guard. Touches none of the frame unless `fills`.
@inline(never)
private func parkInLargeFrame(fills: Bool = false, _ park: () throws -> Void) throws -> Int {
    if fills { return sum(of: InlineArray<1_100_000, UInt8>(repeating: 1)) }
    try park()
    return recurse(10)
}

@inline(never)
private func largeFrameInABranch(isTaken: Bool) throws -> Bool {
    if isTaken { return sum(of: InlineArray<266_000, UInt8>(repeating: 1)) == 266_000 }
    try sleep()
    return recurse(10) == 10
}

@inline(never)
private func sum<let count: Int>(of bytes: borrowing InlineArray<count, UInt8>) -> Int {
    var sum = 0
    for index in bytes.indices { sum += Int(bytes[index]) }
    return sum
}

func parkAtDepth(_ depth: Int) throws -> Int {
    if depth == 0 {
        try sleep(for: .seconds(1))
        return 0
    }
    return try parkAtDepth(depth - 1) + 1
}

private func mapCount() -> Int { linesOf("/proc/self/maps").count }

private func linesOf(_ path: String) -> [String] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    var lines: [String] = []
    var buffer = [CChar](repeating: 0, count: 4096)
    while fgets(&buffer, CInt(buffer.count), file) != nil {
        lines.append(String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
    return lines
}

private func addressSpaceInUse() -> Int {
    let pages = linesOf("/proc/self/statm").first?.split(separator: " ").first.flatMap { Int($0) } ?? 0
    return pages * Int(sysconf(CInt(_SC_PAGESIZE)))
}
