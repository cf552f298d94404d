import Gevent
import GeventTesting
import Glibc
import Testing

@Suite("Greenlet dump")
struct DumpTests {
    /// The lines without the parts that vary between runs: places and the summary.
    private static func lines(_ text: String) -> [String] {
        withoutPlaces(text.split(separator: "\n").dropFirst())
    }

    private static func withoutPlaces(_ lines: some Sequence<Substring>) -> [String] {
        lines.map { String($0) }.filter { line in
            !["  at ", "spawned at", "called by"].contains { line.contains($0) }
        }
    }

    @Test("It lists every live greenlet under its spawner, with its state, its wait and the duration of the wait")
    func everyGreenlet() throws {
        let dump = try withHub { hub in
            let gate = named(Greenlet {}, "gate")
            let parent = named(
                spawn {
                    named(spawn { try gate.join() }, "child")
                    try sleep(for: .seconds(100))
                }, "parent")
            let pipe = try Pipe()
            let reader = named(spawn { try waitRead(pipe.readEnd) }, "reader")
            try sleep(for: .seconds(5))
            let delayed = named(spawn(after: .seconds(9)) {}, "delayed")
            let ready = named(spawn { for _ in 0..<3 { try sleep() } }, "ready")
            try sleep()
            let fresh = named(spawn {}, "fresh")
            let ended = Greenlet {}
            try ended.kill()
            _ = named(ended, "ended")
            let raw = spawnRaw {}
            raw.name = "raw"
            let text = dumpGreenlets().replacing(fileDescriptor: pipe.readEnd)
            gate.start()
            try killAll([parent, reader, delayed, ready, fresh])
            return text
        }
        let expected = [
            "<MainGreenlet> running",
            "├─ <Greenlet<()> \"parent\"> parked for 5 s in sleep",
            "│  └─ <Greenlet<()> \"child\"> parked for 5 s in join of <Greenlet<()> \"gate\">",
            "├─ <Greenlet<()> \"reader\"> parked for 5 s in a wait to read descriptor N",
            "├─ <Greenlet<()> \"ready\"> ready",
            "├─ <Greenlet<()> \"fresh\"> scheduled",
            "├─ <RawGreenlet \"raw\"> scheduled",
            "└─ <Greenlet<()> \"delayed\"> delayed",
        ]
        #expect(Self.lines(dump) == expected)
        #expect(dump.hasPrefix("hub "))
        #expect(dump.contains("spawned at "))
    }

    @Test("It shows function, file and line of each wait, below scopes and functions too")
    func waitPlaces() throws {
        let (dump, lines) = try withHub { hub in
            var lines: [String: UInt] = [:]
            // Never inlined: where optimised code inlines several calls into each other, Swift's `Runtime` pairs their
            // names and lines wrongly, and misses some.
            @inline(never) func rest() throws {
                lines["callee"] = #line + 1
                try sleep(for: .seconds(1))
            }
            let sleeper = spawn {
                lines["sleeper"] = #line + 1
                try sleep(for: .seconds(1))
            }
            let scoped = spawn {
                lines["scope"] = #line + 2
                try withTimeout(.seconds(9)) { _ in
                    try rest()
                }
            }
            let waiter = spawn {
                lines["waiter"] = #line + 1
                try sleeper.join()
            }
            let text = spawn {
                try sleep()
                return dumpGreenlets()
            }
            lines["main"] = #line + 1
            try joinAll([sleeper, scoped, waiter])
            return (try text.get(), lines)
        }
        let places = dump.split(separator: "\n").map { $0.drop { " │".contains($0) } }
        func place(_ word: String, _ name: String) -> Int? {
            places.firstIndex { $0.hasPrefix("\(word) ") && $0.hasSuffix("(GreenletDumpTests.swift:\(lines[name]!))") }
        }
        for name in ["main", "sleeper", "waiter", "callee"] { #expect(place("at", name) != nil, "\(name)\n\(dump)") }
        let callee = try #require(place("at", "callee"), "\(dump)")
        #expect(place("called by", "scope") == callee + 1, "\(dump)")
        #expect(!dump.contains("switch_stacks"))
    }

    @Test("Children of a dead spawner appear at the root, and those of callbacks under the hub")
    func orphans() throws {
        let dump = try withHub { hub in
            var made: [Greenlet<Void>] = []
            try spawn { made.append(named(spawn { try sleep(for: .seconds(1)) }, "orphan")) }.join()
            hub.runCallback { made.append(named(spawn { try sleep(for: .seconds(1)) }, "called")) }
            try sleep()
            try sleep()
            let text = dumpGreenlets()
            try killAll(made)
            return text
        }
        #expect(
            Self.lines(dump) == [
                "<MainGreenlet> running", "<HubGreenlet> idle", "└─ <Greenlet<()> \"called\"> parked for 0 s in sleep",
                "<Greenlet<()> \"orphan\"> parked for 0 s in sleep",
            ])
    }

    @Test("It works in a greenlet, in a callback and in main, and marks the running greenlet")
    func runningGreenlet() throws {
        let log = try logged { log, hub in
            try named(spawn { log.note(Self.lines(dumpGreenlets()).joined(separator: "; ")) }, "inner").join()
            hub.runCallback { log.note(Self.lines(dumpGreenlets()).joined(separator: "; ")) }
            try sleep()
        }
        #expect(
            log == [
                "<MainGreenlet> parked for 0 s in join of <Greenlet<()> \"inner\">; └─ <Greenlet<()> \"inner\"> running",
                "<MainGreenlet> ready; <HubGreenlet> running",
            ])
    }

    @Test("It shows locals: a tree's at its root, a greenlet's own with each greenlet")
    func locals() throws {
        let user = SpawnTreeKey<String>("user")
        let dump = try withHub { hub in
            let request = GreenletLocal("request") { 0 }
            let text = GreenletLocal { "" }
            let long = GreenletLocal("long") { String(repeating: "x", count: 10_000) }
            let parent = named(
                spawn {
                    AnyGreenlet.current.spawnTreeLocals![user] = "anna"
                    request.value = 42
                    let child = named(
                        spawn {
                            text.value = "two\nlines\u{1B}[2J"
                            _ = long.value
                            try sleep(for: .seconds(1))
                        }, "child")
                    try child.join()
                }, "parent")
            try sleep()
            try sleep()
            let dump = dumpGreenlets()
            try parent.join()
            return dump
        }
        let lines = Self.lines(dump).map { $0.drop { $0 == " " || $0 == "│" } }
        #expect(lines.contains("tree local user = anna"))
        #expect(lines.filter { $0.hasPrefix("tree local") }.count == 1)
        #expect(lines.contains("local request = 42"))
        #expect(lines.contains("local String = two lines\u{FFFD}[2J"))
        #expect(lines.contains("local long = " + String(repeating: "x", count: 200) + "…"))
    }

    @Test("The tree is available as data")
    func asData() throws {
        let log = try logged { log, _ in
            let gate = Greenlet {}
            var children: [AnyGreenlet] = []
            let parent = spawn {
                children = (0..<3).map { _ in spawn { try gate.join() } }
                try gate.join()
            }
            try sleep(for: .seconds(2))
            let tree = GreenletTree.current()
            log.note("\(tree.roots) \(tree.children(of: 0)) \(tree.nodes.count)")
            let node = tree.nodes[1]
            log.note("\(node.greenlet === parent) \(node.state) \(node.parkedFor!) \(node.depth) \(node.parent!)")
            log.note("\(node.waitsFor == "join of \(gate)") \(node.descendantCount)")
            log.note(
                "\(Set(tree.children(of: 1).map { ObjectIdentifier(tree.nodes[$0].greenlet) }) == Set(children.map { ObjectIdentifier($0) }))"
            )
            gate.start()
            try parent.join()
            // A new tree shows the current state.
            log.note("\(node.waitsFor == nil)")
        }
        #expect(log == ["[0] [1] 5", "true parked 2.0 seconds 1 0", "true 3", "true", "true"])
    }

    @Test("A tree may be as deep as there are greenlets; the report is bounded and states what it omits")
    func deep() throws {
        let count = isSanitized ? 5_000 : 100_000
        let log = try logged { log, hub in
            let gate = Greenlet {}
            var all: [Greenlet<Void>] = []
            func next() throws {
                if all.count < count { all.append(spawn { try next() }) }
                try gate.join()
            }
            all.append(spawn { try next() })
            while hub.statistics.readyCount > 0 { try sleep() }
            let tree = GreenletTree.current()
            log.note("\(tree.nodes.count == count + 1) \(tree.nodes.last!.depth == count)")
            let text = dumpGreenlets(limit: 100)
            let lines = Self.lines(text)
            log.note("\(lines.filter { $0.contains("parked for") }.count) \(lines.last!)")
            log.note("\(text.utf8.count < 200_000)")
            gate.start()
            try joinAll(all)
        }
        #expect(log == ["true true", "99 … and \(count - 99) more", "true"])
    }

    @Test("wouldBlockForever carries the same report")
    func deadlock() throws {
        let message = try withHub { hub in
            let never = named(Greenlet {}, "never")
            let group = named(
                spawn {
                    try joinAll((0..<60).map { _ in spawn { try never.join() } })
                    return ()
                }, "group")
            try sleep(for: .seconds(5))
            var message = ""
            do { try never.join() } catch let error as HubError { message = error.message }
            never.start()
            try group.join()
            return message
        }
        let lines = Self.withoutPlaces(message.split(separator: "\n"))
        #expect(
            lines[0].hasPrefix("nothing is ready and nothing pending can make anything ready. Parked greenlets: 62"))
        #expect(lines[1] == "<MainGreenlet> parked for 0 s in join of <Greenlet<()> \"never\">")
        #expect(lines[2] == "└─ <Greenlet<()> \"group\"> parked for 5 s in joinAll")
        #expect(lines.last == "… and 12 more")
    }
}

@discardableResult
private func named<Output>(_ greenlet: Greenlet<Output>, _ name: String) -> Greenlet<Output> {
    greenlet.name = name
    return greenlet
}

extension String {
    fileprivate func replacing(fileDescriptor: CInt) -> String {
        split(separator: "descriptor \(fileDescriptor)", omittingEmptySubsequences: false).joined(
            separator: "descriptor N")
    }
}
