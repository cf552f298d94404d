import CGevent
import Gevent
import GeventTesting
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

@Suite("Symbolication")
struct SymbolicationTests {
    /// The return addresses of a spawn in this function, and its line.
    @inline(never)
    private func spawnAddresses() throws -> (addresses: [UInt], line: Int) {
        let (greenlet, line) = (Greenlet<Void> {}, #line)
        return (SpawningStack.Level(try #require(greenlet.readableSpawnSite)).addresses, line)
    }

    @Test("A call in the program is found by function, file and line")
    func lines() throws {
        try withHub { _ in
            let (addresses, line) = try spawnAddresses()
            let frames = addresses.flatMap(lookUpFrames)
            let own = try #require(
                frames.first { $0.text.hasSuffix(" (SymbolicationTests.swift:\(line))") }, "\(frames)")
            #expect(own.text.contains("spawnAddresses"))
            #expect(own.origin == .program)
        }
    }

    @Test("Lookups on a fresh thread and in a forked child have the same result", .enabled(if: !isSanitized))
    func threadsAndForks() async {
        await #expect(processExitsWith: .success) {
            try withHub { _ in
                let addresses = try SymbolicationTests().spawnAddresses().addresses
                let expected = addresses.flatMap(lookUpFrames).map(\.text)
                let onThread = try onFreshThread { addresses.flatMap(lookUpFrames).map(\.text) }
                if onThread != expected { exit(1) }
                let code = try inRawChild { addresses.flatMap(lookUpFrames).map(\.text) == expected ? 0 : 2 }
                exit(code ?? 99)
            }
        }
    }

    @Test("A file without a symbol table is symbolicated by its exports, even if loaded meanwhile")
    func exportedNames() throws {
        _ = lookUpFrames(at: UInt(bitPattern: dlsym(nil, "free")) + 1)
        for (file, name) in [("libc.so.6", "qsort"), ("libresolv.so.2", "ns_initparse")] {
            let library = try #require(dlopen(file, RTLD_NOW))
            let function = try #require(dlsym(library, name))
            let frames = lookUpFrames(at: UInt(bitPattern: function) + 5)
            #expect(frames.first?.text.contains(name) == true, "\(frames)")
        }
    }

    @Test("An address outside every loaded file is printed as a number")
    func unknownAddress() {
        #expect(lookUpFrames(at: 16).map(\.text) == ["0x10"])
        #expect(lookUpFrames(at: 16).map(\.origin) == [.unnamed])
        #expect(lookUpFrames(at: .max).count == 1)
    }

    @Test("The start of a function is found in the unwind tables, from its first byte on")
    func functionStart() throws {
        // One for which AddressSanitizer has no function of its own.
        let function = try #require(dlsym(nil, "getppid"))
        #expect(gevent_function_start(function) == UnsafeRawPointer(function))
        #expect(gevent_function_start(function + 5) == UnsafeRawPointer(function))
        #expect(gevent_function_start(UnsafeRawPointer(bitPattern: 16)) == nil)
    }

    @Test("A frame is a function with file and line, or with an offset; optimizer prefixes are left out")
    func text() {
        func text(_ symbol: String?, file: String? = nil, image: String? = nil) -> String {
            let source = file.map { SourceLine(file: $0, line: 7) }
            return SymbolicatedFrame(symbol: symbol, source: source, offset: 18, image: image).text
        }
        #expect(text("qsort", file: "a.c") == "qsort (a.c:7)")
        #expect(text("qsort") == "qsort + 18")
        #expect(text(nil, image: "libc.so.6") == "libc.so.6+0x12")
        #expect(text(nil) == "0x12")
        let append = "Swift.ContiguousArray.append(__owned A) -> ()"
        #expect(text("$ss15ContiguousArrayV6appendyyxnF", file: "a.swift") == "\(append) (a.swift:7)")
        #expect(text("$ss15ContiguousArrayV6appendyyxnFSu_Tg5", file: "a.swift") == "\(append) (a.swift:7)")
        #expect(text("$ss15ContiguousArrayV6appendyyxnFSiSgSbc_Tg5") == "\(append) + 18")
        #expect(text("App_main", file: "main.swift") == "main (main.swift:7)")
        #expect(text("App_main", file: "main.c") == "App_main (main.c:7)")
    }
}
