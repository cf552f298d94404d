// Addresses as reports show them: functions with file and line.

internal import CGevent
internal import GeventCore
internal import Glibc

/// Returns the names of the frames at `addresses`, without the library's own frames.
func symbolicated(_ addresses: [UInt]) -> [String] {
    var frames: [String] = []
    for case let address? in addresses.map({ UnsafeRawPointer(bitPattern: $0) }) {
        for frame in symbolicatedFrames(at: address) {
            switch frame.origin {
            case .library, .thunk: continue
            // Unnamed frames outside the program's functions are those that call main.
            case .unnamed where !frames.isEmpty: continue
            case .program, .standardLibrary, .unnamed: frames.append(frame.text)
            }
        }
    }
    return frames
}

/// One function of a call stack, as a report shows it.
struct SymbolicatedFrame: Sendable {
    /// The function's name, with its file and line or the offset into it.
    let text: String
    let origin: Origin

    enum Origin: Sendable {
        /// A function of the program, or of another library.
        case program
        /// A function of this library.
        case library
        /// A function of the standard library, for example a generic one specialized in the program.
        case standardLibrary
        /// A thunk that the compiler generated between a caller and a closure.
        case thunk
        /// No symbol contains the address.
        case unnamed

        /// Classifies by the mangled symbol. The demangled name is not enough: a program's closure that takes a
        /// `Gevent.Hub` also contains the module's name.
        init(symbol: String?) {
            guard let symbol else {
                self = .unnamed
                return
            }
            if symbol.hasPrefix("gevent_") || Self.outermostFunctions.contains(symbol) {
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

        /// The outermost functions on the stacks of greenlets, of the hub and of main.
        private static let outermostFunctions: Set = ["greenlet_entry", "root_entry", "__libc_start_call_main"]
    }

    /// - Parameters:
    ///   - symbol: the function's symbol, mangled if it is a Swift function; nil if unknown.
    ///   - offset: the offset from the start of the function, or of the loaded file if there is no symbol.
    ///   - image: the name of the loaded file that contains the address; nil if none does.
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

/// A line of a source file. The file is the last component of its path.
struct SourceLine {
    let file: String
    let line: Int
}

/// Returns the demangled form of `symbol`, without the optimizer's specialization prefixes, which are long and not
/// useful to a reader.
private func readableName(of symbol: String, in source: SourceLine?) -> String {
    // SwiftPM renames the main function of an executable target to "<target>_main".
    if symbol.hasSuffix("_main") && source?.file == "main.swift" { return "main" }
    guard let demangled = gevent_demangled(symbol) else { return symbol }
    defer { free(demangled) }
    var name = Substring(String(cString: demangled))
    let prefixes = ["generic specialization <", "function signature specialization <"]
    while let prefix = prefixes.first(where: name.hasPrefix) {
        var rest = name.dropFirst(prefix.count)
        // Skips to the closing bracket of the prefix, ignoring the `>` of an arrow.
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

/// The Swift modules of this library, whose frames reports omit. `ci/manifests` writes the list.
let libraryModules: Set<String> = [
    "Gevent", "GeventCore", "GeventDiagnostics", "GeventEpoll", "GeventIO", "GeventLibev", "GeventLibuv", "GeventLoop",
    "GeventLoops", "GeventNet", "GeventOS", "GeventSettings", "GeventTesting",
]

/// Returns the module that declares the function with a mangled name; nil if it is not a Swift name.
///
/// A mangled name begins with the module and the types around the function: `$s6Gevent3HubC…`. A member that an
/// extension adds has the extension's module next, and an `E`: `$s6Gevent3HubC5MyAppE…` is a function of `MyApp`.
/// Extensions with a generic constraint are not recognized, nor are modules whose name the compiler abbreviates because
/// it repeats a word. These count as members of the type's own module.
func declaringModule(ofMangled symbol: String) -> String? {
    guard symbol.hasPrefix("$s") else { return nil }
    var rest = Substring(symbol.utf8.dropFirst(2))

    /// Parses an identifier: its length in digits, then its bytes.
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
        // `s` is short for the standard library.
        module = "Swift"
        rest = Substring(rest.utf8.dropFirst())
    case UInt8(ascii: "S"):
        // `S` and a letter are short for one of its common types.
        module = "Swift"
        rest = Substring(rest.utf8.dropFirst(2))
    default:
        guard let name = identifier() else { return nil }
        module = name
    }
    while let name = identifier() {
        switch rest.utf8.first {
        case UInt8(ascii: "E"): return name
        // A class, structure, enumeration or protocol. The next name may be nested in it or extend it.
        case UInt8(ascii: "C"), UInt8(ascii: "V"), UInt8(ascii: "O"), UInt8(ascii: "P"):
            rest = Substring(rest.utf8.dropFirst())
        default: return module
        }
    }
    return module
}

/// The cache of symbolicated frames by return address, shared by all threads because a lookup is slow. The limit is a
/// precaution: few return addresses of a program appear in reports.
private let frameCache = ForkableMutex<[UnsafeRawPointer: [SymbolicatedFrame]]>([:])
private let frameCacheLimit = 16_384

/// Returns whether the frames at `address` are cached, so that ``symbolicatedFrames(at:)`` returns at once. Any thread.
func hasSymbolicatedFrames(at address: UnsafeRawPointer) -> Bool { frameCache.withLock { $0[address] != nil } }

/// Returns the functions that contain the call before `address`, innermost first: the inlined ones, then the function
/// itself. Uses the cache. Any thread.
func symbolicatedFrames(at address: UnsafeRawPointer) -> [SymbolicatedFrame] {
    if let known = frameCache.withLock({ $0[address] }) { return known }
    let found = lookUpFrames(at: UInt(bitPattern: address))
    frameCache.withLock {
        if $0.count >= frameCacheLimit { $0.removeAll() }
        $0[address] = found
    }
    return found
}
