// Addresses as people read them: functions, files and lines.

internal import CGevent
internal import GeventCore
internal import Glibc

/// The frames of `addresses` by name, without the library's own.
func symbolicated(_ addresses: [UInt]) -> [String] {
    var frames: [String] = []
    for case let address? in addresses.map({ UnsafeRawPointer(bitPattern: $0) }) {
        for place in places(of: address) {
            switch place.origin {
            case .library, .thunk: continue
            // Beyond the program's own functions there is what called main, without a name.
            case .unnamed where !frames.isEmpty: continue
            case .program, .standardLibrary, .unnamed: frames.append(place.text)
            }
        }
    }
    return frames
}

/// A function, as it is shown to people.
struct Place: Sendable {
    /// By name, with the line or how far into it.
    let text: String
    let origin: Origin

    enum Origin: Sendable {
        case program
        /// This library.
        case library
        /// Of the standard library's, for example a copy that was made for these very types.
        case standardLibrary
        /// What the compiler puts between a caller and a closure.
        case thunk
        /// No symbol covers it.
        case unnamed

        /// Classifies by the mangled symbol. The demangled form will not do: the closure of a caller that takes a
        /// `Gevent.Hub` mentions the module as well.
        init(symbol: String?) {
            guard let symbol else {
                self = .unnamed
                return
            }
            if symbol.hasPrefix("gevent_") || Self.bottoms.contains(symbol) {
                self = .library
            } else if let module = declaringModule(ofMangled: symbol), libraryModules.contains(module) {
                self = .library
            } else if symbol.hasPrefix("$s") && (symbol.hasSuffix("TA") || symbol.hasSuffix("TR")) {
                self = .thunk
            } else if declaringModule(ofMangled: symbol) == "Swift" {
                self = .standardLibrary
            } else {
                self = .program
            }
        }

        /// Where the stacks of greenlets, of the hub and of main begin.
        private static let bottoms: Set = ["greenlet_entry", "root_entry", "__libc_start_call_main"]
    }

    /// - Parameters:
    ///   - symbol: mangled, if it is Swift's; nil if the name is unknown.
    ///   - offset: from the start of the function, or of the file in memory if there is no symbol.
    ///   - image: the name of the loaded file; nil if the address is in none.
    init(symbol: String?, source: SourceLine?, offset: UInt, image: String?) {
        origin = Origin(symbol: symbol)
        guard let symbol else {
            text = "\(image.map { "\($0)+" } ?? "")0x\(String(offset, radix: 16))"
            return
        }
        let name = readableName(of: symbol, in: source)
        text = source.map { "\(name) (\($0.file):\($0.line))" } ?? "\(name) + \(offset)"
    }
}

/// A line of a source file, which is named by the last component of its path.
struct SourceLine {
    let file: String
    let line: Int
}

/// The demangled form of `symbol`, without the optimizer's specialization prefixes, which are long and tell a reader
/// nothing.
private func readableName(of symbol: String, in source: SourceLine?) -> String {
    // SwiftPM renames the main function of an executable target to "<target>_main".
    if symbol.hasSuffix("_main") && source?.file == "main.swift" { return "main" }
    guard let demangled = gevent_demangled(symbol) else { return symbol }
    defer { free(demangled) }
    var name = Substring(String(cString: demangled))
    let prefixes = ["generic specialization <", "function signature specialization <"]
    while let prefix = prefixes.first(where: name.hasPrefix) {
        var rest = name.dropFirst(prefix.count)
        // Skips to the closing bracket of the prefix. The bracket of an arrow closes nothing.
        var (depth, last) = (1, Character(" "))
        while depth > 0, let next = rest.popFirst() {
            depth += next == "<" ? 1 : next == ">" && last != "-" ? -1 : 0
            last = next
        }
        guard rest.hasPrefix(" of ") else { break }
        name = rest.dropFirst(4)
    }
    return String(name)
}

/// The Swift modules of this library. Reports leave their frames out. `ci/manifests` writes the list.
let libraryModules: Set<String> = [
    "Gevent", "GeventCore", "GeventDiagnostics", "GeventEpoll", "GeventIO", "GeventLibev", "GeventLibuv", "GeventLoop",
    "GeventLoops", "GeventNet", "GeventOS", "GeventSettings", "GeventTesting",
]

/// The module that declares the function with a mangled name; nil if it is not a Swift name.
///
/// A mangled name begins with the module and the types around the function: `$s6Gevent3HubC…`. A member that an
/// extension adds has the extension's module next, and an `E`: `$s6Gevent3HubC5MyAppE…` is a function of `MyApp`. Not
/// recognised are extensions with a generic constraint, and modules whose name the compiler abbreviates because it
/// repeats a word; these count as members of the type's own module.
func declaringModule(ofMangled symbol: String) -> String? {
    guard symbol.hasPrefix("$s") else { return nil }
    var rest = Substring(symbol.utf8.dropFirst(2))

    /// A length and as many bytes.
    func identifier() -> String? {
        let digits = rest.utf8.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        guard let length = Int(Substring(digits)), digits.first != UInt8(ascii: "0"),
            length <= rest.utf8.count - digits.count
        else { return nil }
        let name = rest.utf8.dropFirst(digits.count).prefix(length)
        rest = Substring(rest.utf8.dropFirst(digits.count + length))
        return String(Substring(name))
    }

    let module: String
    switch rest.utf8.first {
    case UInt8(ascii: "s"):
        // The standard library has a letter of its own.
        module = "Swift"
        rest = Substring(rest.utf8.dropFirst())
    case UInt8(ascii: "S"):
        // So have its commonest types.
        module = "Swift"
        rest = Substring(rest.utf8.dropFirst(2))
    default:
        guard let name = identifier() else { return nil }
        module = name
    }
    while let name = identifier() {
        switch rest.utf8.first {
        case UInt8(ascii: "E"): return name
        // A class, structure, enumeration or protocol; the next name may be within it or extend it.
        case UInt8(ascii: "C"), UInt8(ascii: "V"), UInt8(ascii: "O"), UInt8(ascii: "P"):
            rest = Substring(rest.utf8.dropFirst())
        default: return module
        }
    }
    return module
}

/// Names found so far, for the whole process, because a lookup is slow. A program has few addresses that calls return
/// to, so the limit is for safety only.
private let knownPlaces = ForkableMutex<[UnsafeRawPointer: [Place]]>([:])
private let mostKnownPlaces = 16_384

/// Whether the functions at `address` were looked up before, so that ``places(of:)`` returns at once. Any thread.
func hasPlaces(of address: UnsafeRawPointer) -> Bool { knownPlaces.withLock { $0[address] != nil } }

/// The functions that the call before `address` is in, innermost first: those inlined there, then the function itself.
/// Any thread.
func places(of address: UnsafeRawPointer) -> [Place] {
    if let known = knownPlaces.withLock({ $0[address] }) { return known }
    let found = lookUpPlaces(of: UInt(bitPattern: address))
    knownPlaces.withLock {
        if $0.count >= mostKnownPlaces { $0.removeAll() }
        $0[address] = found
    }
    return found
}
