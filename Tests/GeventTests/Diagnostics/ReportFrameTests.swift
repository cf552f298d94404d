import CGevent
import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@_spi(GeventInternals) @testable import GeventDiagnostics
@testable import GeventOS

@Suite("Functions shown in reports")
struct ReportPlacesTests {
    @Test("The module of a function is read from its mangled name; an extension's module has priority")
    func modules() {
        let expected: [(String, String?)] = [
            ("$s6Gevent3HubC4pollyyF", "Gevent"),
            ("$s9GeventNet12StreamServerC5startyyKF", "GeventNet"),
            ("$s9GeventNet10Connection33_0123456789ABCDEF0123456789ABCDEFLLC3runyyKF", "GeventNet"),
            ("$s5MyApp4mainyyFyyKcfU_", "MyApp"),
            ("$s5MyApp6ServerV6HolderC4waityyKF", "MyApp"),
            ("$s6Gevent3HubC5MyAppE8my_checkyyF", "MyApp"),
            ("$s9GeventNet12StreamServerC7HandlerV5MyAppE3runyyF", "MyApp"),
            ("$s6Gevent17WatchedDescriptorC9GeventNetE6owningACs5Int32V_tKcfc", "GeventNet"),
            ("$ss8DurationV5MyAppE4waityyF", "MyApp"),
            ("$sSS9GeventNetE4textSSyF", "GeventNet"),
            ("$ss8DurationV7secondsyABSiFZ", "Swift"),
            ("$sSa6appendyyxnF", "Swift"),
            ("$sIeg_ytIegr_TR", nil), ("main", nil), ("gevent_wait", nil), ("$s", nil), ("$s9999Gevent", nil),
            ("$s9223372036854775807Gevent", nil),
        ]
        for (symbol, module) in expected {
            #expect(declaringModule(ofMangled: symbol) == module, "\(symbol)")
        }
    }

    @Test(
        "The library's functions are distinguished from a program's, even if the program extends or resembles the library"
    )
    func origins() {
        let expected: [(String?, SymbolicatedFrame.Origin)] = [
            ("$s9GeventNet12StreamServerC5startyyKF", .library), ("$s10GeventLoop0aB0V3runyyF", .library),
            ("$s12GeventLibuv4LoopC4pollyyF", .program), ("$s11GeventLibuv4LoopC4pollyyF", .library),
            ("$s10GeventChat4RoomC4joinyyKF", .program), ("$s6Gevent3HubC10GeventChatE4joinyyF", .program),
            ("$s6Gevent5spawnyAA8GreenletCyxGxyKclFyt_Tg5", .library), ("gevent_park", .library),
            ("greenlet_entry", .library), ("$s5MyApp4mainyyFyyKcfU_TA", .thunk), ("$sIeg_ytIegr_TR", .thunk),
            ("$sSa6appendyyxnF", .standardLibrary), ("main", .program), (nil, .unnamed),
        ]
        for (symbol, origin) in expected {
            #expect(SymbolicatedFrame.Origin(symbol: symbol) == origin, "\(symbol ?? "none")")
        }
        #expect(libraryModules.contains(String(#fileID.prefix { $0 != "/" })) == false)
    }

    @Test("A greenlet spawned by the library is shown with the program's call that caused it")
    func spawnedByTheLibrary() throws {
        try withHub { _ in
            let (parent, child) = (Greenlet<Void> {}, Greenlet<Void> {})
            let site = try #require(child.readableSpawnSite)
            // The child's own frames are missing, as if all were the library's: it has only the chain of sites.
            var bare = site.pointee
            bare.frame_count = 0
            bare.parent = parent.readableSpawnSite
            let place = SpawnLocation(&bare) { _ in }
            #expect(place.phrase == "spawned by a greenlet that was spawned at")
            #expect(place.frames.first?.contains("(ReportFrameTests.swift:") == true)
            let own = SpawnLocation(site) { _ in }
            #expect(own.phrase == "spawned at")
            bare.parent = nil
            #expect(SpawnLocation(&bare) { _ in }.frames == [])
        }
    }

    @Test("A report made in steps has the same content, and shows greenlets that run meanwhile in their newest state")
    func inSteps() throws {
        try withHub { hub in
            let sleepers = (0..<5).map { number in
                let sleeper = spawn { try sleep(for: .seconds(60)) }
                sleeper.name = "sleeper \(number)"
                return sleeper
            }
            try sleep()
            var pauses = 0
            let whole = try dumpGreenlets { pauses += 1 }
            #expect(pauses >= sleepers.count)
            #expect(whole.split(separator: "\n").dropFirst() == dumpGreenlets().split(separator: "\n").dropFirst())
            let text = try dumpGreenlets { if sleepers[4].isActive { try sleepers[4].kill() } }
            #expect(text.contains("\"sleeper 3\"> parked for 0 s in sleep"))
            #expect(text.contains("\"sleeper 4\"> ended meanwhile"))
            struct Enough: Error {}
            #expect(throws: Enough.self) { try dumpGreenlets { throw Enough() } }
            try killAll(sleepers)
        }
    }
}
