import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Identifiers")
struct IdentifierTests {
    @Test("Live greenlets of one hub have distinct identifiers, each the smallest free one at the first read")
    func smallestFree() throws {
        try withHub { _ in
            var greenlets = (0..<5).map { _ in Greenlet {} }
            // In the order of reads, not of creation.
            #expect(greenlets[3].minimalID == 0)
            #expect(greenlets[1].minimalID == 1)
            #expect(greenlets[4].minimalID == 2)
            #expect(greenlets[3].minimalID == 0)
            greenlets.remove(at: 1)
            #expect(greenlets[0].minimalID == 1)
            #expect(greenlets[1].minimalID == 3)
        }
    }

    @Test("Reading the name assigns the identifier too, and main and raw greenlets share the numbers")
    func sharedNumbers() throws {
        try withHub { _ in
            let greenlet = Greenlet {}
            #expect(greenlet.name == "Greenlet-0")
            #expect(AnyGreenlet.current.minimalID == 1)
            let raw = spawnRaw {}
            #expect(raw.minimalID == 2)
            try sleep()
        }
    }

    @Test("An identifier is unique among live objects: an ended greenlet keeps it until it is released")
    func keptUntilReleased() throws {
        try withHub { _ in
            do {
                let ended = spawn {}
                try ended.join()
                #expect(ended.minimalID == 0)
                #expect(Greenlet {}.minimalID == 1)
            }
            #expect(Greenlet {}.minimalID == 0)
        }
    }

    @Test("Hubs number their greenlets independently")
    func perHub() throws {
        for _ in 0..<2 {
            let first = try withHub { _ in Greenlet {}.minimalID }
            #expect(first == 0)
        }
    }

    @Test("The pool returns the smallest free number, whatever the order of releases")
    func poolAgainstModel() {
        var pool = IdentifierPool()
        var taken: Set<Int> = []
        var random = SeededNumbers(seed: 7)
        for _ in 0..<20_000 {
            if taken.isEmpty || Int.random(in: 0..<100, using: &random) < 55 {
                let expected = (0...taken.count).first { !taken.contains($0) }
                let identifier = pool.take()
                #expect(identifier == expected)
                taken.insert(identifier)
            } else if let victim = taken.randomElement(using: &random) {
                taken.remove(victim)
                pool.release(victim)
            }
            if taken.count > 300 {
                for identifier in taken { pool.release(identifier) }
                taken = []
            }
        }
    }
}
