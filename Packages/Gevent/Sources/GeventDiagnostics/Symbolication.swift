// Looks up the symbols and source lines of addresses with the toolchain's `Runtime` module.

internal import CGevent
internal import Runtime

/// Looks up the functions that contain the call before `address`, innermost first. Any thread.
///
/// If the file has no symbol table, the dynamic loader's symbol is used. If there is none either, the result is an
/// offset in the file.
func lookUpFrames(at address: UInt) -> [SymbolicatedFrame] {
    // A return address may be the first byte after its function, so the lookup uses the call before it.
    let call = address - 1
    var image = gevent_image()
    guard gevent_find_image(call, &image) else {
        return [SymbolicatedFrame(symbol: nil, source: nil, offset: address, image: nil)]
    }
    let symbols = runtimeSymbols(address, in: image)
    if !symbols.isEmpty {
        let frames = symbols.map { symbol in
            let source = SourceLine(symbol.sourceLocation)
            // A partial apply forwarder (suffix "TA") has a line only if its closure is inlined in it.
            let isClosure = symbol.rawName.hasPrefix("$s") && symbol.rawName.hasSuffix("TA") && source != nil
            let name = isClosure ? String(symbol.rawName.dropLast(2)) : symbol.rawName
            // `Runtime` measures from the call, and has no offset for an inlined function.
            return SymbolicatedFrame(symbol: name, source: source, offset: UInt(max(0, symbol.offset)), image: nil)
        }
        // `Runtime` misses some inlined calls but still knows their line, which can be program code inlined in a
        // function of the library.
        if frames[0].origin == .library, let location = symbols[0].sourceLocation, let line = SourceLine(location),
            !isOfLibrary(path: location.path)
        {
            return [SymbolicatedFrame(symbol: "inlined code", source: line, offset: 0, image: nil)] + frames
        }
        return frames
    }
    if let symbol = image.symbol {
        let offset = call - image.symbol_start
        return [SymbolicatedFrame(symbol: String(cString: symbol), source: nil, offset: offset, image: nil)]
    }
    let name = withUnsafeBytes(of: image.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    return [SymbolicatedFrame(symbol: nil, source: nil, offset: call - image.bias, image: name)]
}

/// Whether a source file belongs to a module of the library, or to the C part of one.
private func isOfLibrary(path: String) -> Bool {
    let folders = path.split(separator: "/")
    guard let sources = folders.lastIndex(of: "Sources"), sources + 1 < folders.count else { return false }
    let module = folders[sources + 1]
    return libraryModules.contains(String(module)) || libraryModules.contains(String(module.dropFirst()))
}

extension SourceLine {
    /// Returns nil for code that the compiler generated, which has no line.
    fileprivate init?(_ location: SymbolicatedBacktrace.SourceLocation?) {
        guard let location, location.line > 0, let file = location.path.split(separator: "/").last,
            file != "<compiler-generated>"
        else { return nil }
        self.init(file: String(file), line: location.line)
    }
}

/// Returns the symbols of `Runtime` for the call before `address` in `image`; empty if the function's name is unknown.
///
/// `Runtime` can only symbolicate a `Backtrace`, and captures one only of the calling thread's stack. But `Backtrace`
/// is `Decodable`, so this function decodes one that consists of a single address and the loaded file that contains it.
/// With its own image map, `Runtime` would read the addresses of all loaded files from `/proc/self/maps`, and misplace
/// every file that it has mapped to read symbols.
private func runtimeSymbols(_ address: UInt, in image: gevent_image) -> [SymbolicatedBacktrace.Symbol] {
    // Compact Backtrace Format: version and word size, one absolute return address, end marker.
    let backtrace = [2, 0x2f] + bigEndianBytes(address) + [0]
    // Compact ImageMap Format: version and word size, no platform name, one image with two 8-byte addresses, no build
    // ID, and a path in segments.
    var imageMap: [UInt8] =
        [2, 0, 1, 0x3f] + bigEndianBytes(image.start) + bigEndianBytes(image.end - image.start) + [0]
    var path = withUnsafeBytes(of: image.path) { ArraySlice($0.prefix { $0 != 0 }) }
    while !path.isEmpty {
        let piece = path.prefix(0x3f)
        imageMap += [UInt8(piece.count)] + piece
        path = path.dropFirst(piece.count)
    }
    imageMap.append(0)
    #if arch(arm64)
        let architecture = "arm64"
    #else
        let architecture = "x86_64"
    #endif
    let fields = FieldDecoder([
        "architecture": architecture, "backtrace": base64(backtrace), "imageMap": base64(imageMap),
    ])
    // control: nothing here parks, so no kill can arrive
    let symbols = (try? Backtrace(from: fields))?.symbolicated()?.frames.compactMap(\.symbol) ?? []
    return symbols.last.map { $0.rawName == "<unknown>" } == false ? symbols : []
}

private func bigEndianBytes(_ word: UInt) -> [UInt8] { withUnsafeBytes(of: word.bigEndian) { Array($0) } }

/// Encodes bytes as Base64 without padding.
private func base64(_ bytes: [UInt8]) -> String {
    let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var text: [UInt8] = []
    var (pending, bitCount) = (0, 0)
    for byte in bytes {
        pending = (pending << 8 | Int(byte)) & 0xffff
        bitCount += 8
        while bitCount >= 6 {
            bitCount -= 6
            text.append(digits[pending >> bitCount & 0x3f])
        }
    }
    if bitCount > 0 { text.append(digits[pending << (6 - bitCount) & 0x3f]) }
    return String(decoding: text, as: UTF8.self)
}

/// A decoder of an object whose fields are all strings.
private struct FieldDecoder: Decoder {
    private let fields: [String: String]
    let codingPath: [any CodingKey] = []
    let userInfo: [CodingUserInfoKey: Any] = [:]

    init(_ fields: [String: String]) { self.fields = fields }

    /// The error for a request of anything but a string field.
    private struct Mismatch: Error {}

    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedDecodingContainer<Key> {
        KeyedDecodingContainer(Fields(fields: fields))
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer { throw Mismatch() }
    func singleValueContainer() throws -> any SingleValueDecodingContainer { throw Mismatch() }

    private struct Fields<Key: CodingKey>: KeyedDecodingContainerProtocol {
        let fields: [String: String]
        let codingPath: [any CodingKey] = []
        var allKeys: [Key] { fields.keys.compactMap(Key.init(stringValue:)) }

        func contains(_ key: Key) -> Bool { fields[key.stringValue] != nil }
        func decodeNil(forKey key: Key) -> Bool { !contains(key) }

        func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
            guard let value = fields[key.stringValue] as? Value else { throw Mismatch() }
            return value
        }

        func nestedContainer<NestedKey: CodingKey>(
            keyedBy type: NestedKey.Type, forKey key: Key
        ) throws -> KeyedDecodingContainer<NestedKey> { throw Mismatch() }

        func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer { throw Mismatch() }
        func superDecoder() throws -> any Decoder { throw Mismatch() }
        func superDecoder(forKey key: Key) throws -> any Decoder { throw Mismatch() }
    }
}
