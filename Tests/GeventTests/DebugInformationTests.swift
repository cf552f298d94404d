import CGevent
import Gevent
import Glibc
import Testing

/// What this program's file says of its own lines.
///
/// Invariant: the pointers lead into `bytes`, which is never unmapped.
private final class DebugInformation {
    private let bytes: UnsafeMutableRawBufferPointer
    var dwarf = gevent_dwarf()
    /// The sections that are there, to be spoilt.
    private(set) var sections: [UnsafeMutableRawBufferPointer] = []
    private(set) var code: Range<UInt> = 0..<0

    init() throws {
        let file = open("/proc/self/exe", O_RDONLY)
        defer { close(file) }
        let size = Int(lseek(file, 0, SEEK_END))
        let start = try #require(mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0))
        bytes = UnsafeMutableRawBufferPointer(start: start, count: size)
        let header = start.load(as: Elf64_Ehdr.self)
        let headers = UnsafeBufferPointer(
            start: (start + Int(header.e_shoff)).assumingMemoryBound(to: Elf64_Shdr.self), count: Int(header.e_shnum))
        let names = start + Int(headers[Int(header.e_shstrndx)].sh_offset)
        for section in headers {
            let name = String(cString: (names + Int(section.sh_name)).assumingMemoryBound(to: CChar.self))
            if name == ".text" { code = UInt(section.sh_addr)..<UInt(section.sh_addr + section.sh_size) }
            guard let place = Self.places[name] else { continue }
            let content = UnsafeMutableRawBufferPointer(
                start: start + Int(section.sh_offset), count: Int(section.sh_size))
            sections.append(content)
            dwarf[keyPath: place] = gevent_bytes(
                start: UnsafePointer(content.baseAddress!.assumingMemoryBound(to: UInt8.self)), size: content.count)
        }
    }

    private static var places: [String: WritableKeyPath<gevent_dwarf, gevent_bytes>] {
        [
            ".debug_info": \.info, ".debug_abbrev": \.abbreviations, ".debug_line": \.lines, ".debug_str": \.strings,
            ".debug_line_str": \.line_strings, ".debug_str_offsets": \.string_offsets, ".debug_addr": \.addresses,
            ".debug_ranges": \.ranges, ".debug_rnglists": \.range_lists,
        ]
    }

    /// The lines known of an address, and how long all names together are: so each is read to its end.
    func look(at address: UInt) -> (lines: [UInt32], length: Int) {
        withUnsafeTemporaryAllocation(of: gevent_place.self, capacity: Int(GEVENT_PLACES_MOST)) { room in
            let count = gevent_dwarf_places(&dwarf, address, room.baseAddress!)
            let found = room.prefix(count)
            let length = found.reduce(0) { sum, place in
                sum + (place.symbol.map { strlen($0) } ?? 0) + (place.file.map { strlen($0) } ?? 0)
            }
            return (found.map(\.line), length)
        }
    }

    deinit { munmap(bytes.baseAddress, bytes.count) }
}

@Suite("Debug information")
struct DebugInformationTests {
    @Test("Of a program built with it, most code has a line, and of nothing nothing is known")
    func lines() throws {
        let information = try DebugInformation()
        defer { gevent_dwarf_close(&information.dwarf) }
        var random = SeededNumbers(seed: 1)
        let looks = (0..<300).map { _ in information.look(at: UInt.random(in: information.code, using: &random)) }
        #expect(looks.filter { $0.lines.contains { $0 > 0 } }.count > 100)
        #expect(information.look(at: 0).lines.isEmpty)
        #expect(information.look(at: .max).lines.isEmpty)
        var nothing = gevent_dwarf()
        var room = [gevent_place](repeating: gevent_place(), count: Int(GEVENT_PLACES_MOST))
        #expect(gevent_dwarf_places(&nothing, information.code.lowerBound, &room) == 0)
    }

    @Test("Whatever is spoilt in it, a look at it ends and stays within it")
    func spoilt() throws {
        let information = try DebugInformation()
        var random = SeededNumbers(seed: 2)
        var length = 0
        for _ in 0..<60 {
            var undo: [(UnsafeMutableRawPointer, UInt8)] = []
            for _ in 0..<Int.random(in: 1...200, using: &random) {
                let section = information.sections.randomElement(using: &random)!
                // Often near the beginning, where a look begins.
                let end = Bool.random(using: &random) ? section.count : min(section.count, 4_096)
                let byte = section.baseAddress! + Int.random(in: 0..<end, using: &random)
                undo.append((byte, byte.load(as: UInt8.self)))
                byte.storeBytes(of: .random(in: 0...255, using: &random), as: UInt8.self)
            }
            for _ in 0..<3 { length += information.look(at: .random(in: information.code, using: &random)).length }
            gevent_dwarf_close(&information.dwarf)
            for (byte, value) in undo.reversed() { byte.storeBytes(of: value, as: UInt8.self) }
        }
        // Not all was spoilt so far that nothing was found.
        #expect(length > 0)
    }

    @Test("A place is a function with file and line, or how far into it; what the optimiser did to it is left out")
    func text() {
        func text(_ symbol: StaticString?, file: StaticString? = nil, image: StaticString? = nil) -> String {
            func pointer(_ text: StaticString?) -> UnsafePointer<CChar>? {
                text.map { UnsafeRawPointer($0.utf8Start).assumingMemoryBound(to: CChar.self) }
            }
            var place = gevent_place(
                symbol: pointer(symbol), file: pointer(file), line: 7, offset: 18, image: pointer(image))
            var text = [CChar](repeating: 0, count: 200)
            gevent_place_text(&place, &text, text.count)
            return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        }
        #expect(text("qsort", file: "a.c") == "qsort (a.c:7)")
        #expect(text("qsort") == "qsort + 18")
        #expect(text(nil, image: "libc.so.6") == "libc.so.6+0x12")
        #expect(text(nil) == "0x12")
        let append = "Swift.ContiguousArray.append(__owned A) -> ()"
        #expect(text("$ss15ContiguousArrayV6appendyyxnF", file: "a.swift") == "\(append) (a.swift:7)")
        #expect(text("$ss15ContiguousArrayV6appendyyxnFSu_Tg5", file: "a.swift") == "\(append) (a.swift:7)")
        #expect(text("$ss15ContiguousArrayV6appendyyxnFSiSgSbc_Tg5") == "\(append) + 18")
    }
}
