internal import CGeventSystem

/// Where a socket is, or is to be: an IPv4 or IPv6 address with a port, or a Unix socket's path or abstract name.
///
/// ```swift
/// try SocketAddress("127.0.0.1:80")
/// try SocketAddress("[fe80::1%eth0]:80")
/// try SocketAddress(":8080")               // every IPv4 interface; so are "*:8080" and "8080"
/// try SocketAddress("unix:/run/app.sock")  // and "unix:@name" for an abstract one
/// ```
///
/// Numeric addresses only: host names come with the resolver, and until then are a ``SocketError`` with code
/// `badAddress`. ``description`` is a text that ``init(_:)`` takes. A plain value: copy it, send it, use it as a key.
public struct SocketAddress: Sendable, Hashable, CustomStringConvertible {
    /// The kind of an address.
    @nonexhaustive
    public enum Family: String, Sendable, Hashable {
        /// Four bytes and a port.
        case ipv4
        /// Sixteen bytes, a port and perhaps a scope.
        case ipv6
        /// A path in the file system, or a name outside it, on this machine.
        case unix
    }

    private enum Storage: Sendable, Hashable {
        case ipv4(bits: UInt32, port: UInt16)
        case ipv6(high: UInt64, low: UInt64, port: UInt16, scope: UInt32)
        /// As the kernel has it: an abstract name begins with a zero byte, and an unnamed socket's path is empty.
        case unix(path: [UInt8])
    }

    private let storage: Storage

    // MARK: Making

    /// An address from its text: "127.0.0.1:80", "[::1]:80", ":80", "*:80", "80", "unix:/path", "unix:@name" or
    /// "/path".
    ///
    /// Without a host it means every IPv4 interface; "[::]:80" is every interface, IPv4 included.
    ///
    /// - Throws: ``SocketError`` with code `badAddress` for anything else.
    public init(_ text: String) throws(SocketError) {
        if text.hasPrefix("unix:") {
            self = try .unix(String(text.dropFirst("unix:".count)))
        } else if text.hasPrefix("/") {
            self = try .unix(text)
        } else if let colon = text.lastIndex(of: ":") {
            try self.init(
                host: try Self.host(in: text[..<colon], of: text),
                port: Self.port(text[text.index(after: colon)...], of: text))
        } else {
            self.init(port: try Self.port(text[...], of: text))
        }
    }

    /// The address with this numeric host and port.
    ///
    /// - Parameters:
    ///   - host: "127.0.0.1", "::1", "fe80::1%eth0"; empty or "*" for every IPv4 interface.
    ///   - port: 0 to 65535; 0 lets the system choose one when the address is bound.
    /// - Throws: ``SocketError`` with code `badAddress` if the host is not numeric or the port is out of range.
    public init(host: String, port: Int) throws(SocketError) {
        guard let port = UInt16(exactly: port) else {
            throw .badAddress("\(host) with port \(port)", "a port is a number from 0 to 65535")
        }
        if host.isEmpty || host == "*" {
            self.init(port: Int(port))
            return
        }
        var parsed = gevent_net_address()
        guard !host.utf8.contains(0), gevent_net_parse_ip(host, &parsed) else {
            throw .badAddress(
                host,
                "not a numeric IPv4 or IPv6 address; host names come with the resolver, in a later version")
        }
        parsed.port = port
        self.init(parsed)
    }

    /// Every IPv4 interface, for binding; or 127.0.0.1, for connecting. Traps if the port is not in 0 to 65535.
    public init(port: Int) {
        precondition(UInt16(exactly: port) != nil, "a port is a number from 0 to 65535, not \(port)")
        storage = .ipv4(bits: 0, port: UInt16(port))
    }

    /// 127.0.0.1 with this port; 0 lets the system choose. Traps if the port is not in 0 to 65535.
    public static func loopback(port: Int = 0) -> SocketAddress {
        precondition(UInt16(exactly: port) != nil, "a port is a number from 0 to 65535, not \(port)")
        return SocketAddress(.ipv4(bits: 0x7f00_0001, port: UInt16(port)))
    }

    /// A Unix socket's address: a path, or "@name" for a name outside the file system, which goes with its last socket.
    ///
    /// - Throws: ``SocketError`` with code `badAddress` if the path is longer than 107 bytes or contains a zero byte.
    public static func unix(_ path: String) throws(SocketError) -> SocketAddress {
        var bytes = Array(path.utf8)
        let isAbstract = bytes.first == UInt8(ascii: "@")
        // A pathname's terminator takes a byte of the room.
        let most = Int(GEVENT_NET_PATH_CAPACITY) - (isAbstract ? 0 : 1)
        if bytes.count > most {
            throw .badAddress(path, "the path of a Unix socket has at most \(most) bytes, not \(bytes.count)")
        }
        if bytes.contains(0) { throw .badAddress("unix:\(path)", "a path contains no zero byte") }
        if isAbstract { bytes[0] = 0 }
        return SocketAddress(.unix(path: bytes))
    }

    private init(_ storage: Storage) {
        self.storage = storage
    }

    // MARK: Its parts

    /// Which kind of address it is.
    public var family: Family {
        switch storage {
        case .ipv4: .ipv4
        case .ipv6: .ipv6
        case .unix: .unix
        }
    }

    /// The port, 0 to 65535; 0 for a Unix address.
    public var port: Int {
        switch storage {
        case .ipv4(_, let port): Int(port)
        case .ipv6(_, _, let port, _): Int(port)
        case .unix: 0
        }
    }

    /// The numeric host: "127.0.0.1", "fe80::1%eth0". A Unix address's path, "@name", or nothing if it is unnamed.
    public var host: String {
        switch storage {
        case .ipv4, .ipv6:
            var raw = self.raw
            return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(GEVENT_NET_IP_TEXT_CAPACITY)) { text in
                // A temporary allocation of non-zero capacity always has a base address.
                guard let start = text.baseAddress else { return "" }
                gevent_net_format_ip(&raw, start)
                return String(cString: start)
            }
        case .unix(let path):
            let isAbstract = path.first == 0
            return (isAbstract ? "@" : "") + String(decoding: isAbstract ? path[1...] : path[...], as: UTF8.self)
        }
    }

    /// Whether it is the address of a Unix socket that was never bound, as those of most clients are.
    var isUnnamed: Bool {
        if case .unix(let path) = storage { path.isEmpty } else { false }
    }

    /// The address of a Unix socket that was never bound.
    static let unnamed = SocketAddress(.unix(path: []))

    /// The path of a Unix address in the file system, whose file outlives the socket.
    var pathname: String? {
        guard case .unix(let path) = storage, let first = path.first, first != 0 else { return nil }
        return host
    }

    /// Calls `body` with the text of ``description``, cut after 63 bytes. Takes a tenth of the time.
    func withCText(_ body: (UnsafePointer<CChar>) -> Void) {
        var raw = self.raw
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { text in
            // A temporary allocation of non-zero capacity always has a base address.
            guard let start = text.baseAddress else { return }
            gevent_net_format_address(&raw, start, text.count)
            body(start)
        }
    }

    /// "127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@name"; "unix:" for the unnamed end of a pair.
    public var description: String {
        switch storage {
        case .ipv4: "\(host):\(port)"
        case .ipv6: "[\(host)]:\(port)"
        case .unix: "unix:\(host)"
        }
    }

    // MARK: Parsing

    private static var expectation: String {
        "an address reads 127.0.0.1:80, [::1]:80, :80, *:80, 80, unix:/path or unix:@name"
    }

    /// What stands before the last colon, without brackets.
    private static func host(in part: Substring, of text: String) throws(SocketError) -> String {
        if part.hasPrefix("[") && part.hasSuffix("]") {
            let inner = part.dropFirst().dropLast()
            // Brackets are for what contains colons itself.
            if inner.contains(":") { return String(inner) }
        } else if !part.contains(":") {
            return String(part)
        }
        throw .badAddress(text, expectation)
    }

    private static func port(_ part: Substring, of text: String) throws(SocketError) -> Int {
        // UInt16("+1") would be accepted.
        guard part.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(part) else {
            throw .badAddress(text, expectation)
        }
        return Int(port)
    }
}

// MARK: The kernel's form

extension SocketAddress {
    init(_ raw: gevent_net_address) {
        switch Int(raw.family) {
        case Int(GEVENT_NET_IP4):
            storage = .ipv4(bits: UInt32(truncatingIfNeeded: raw.low), port: raw.port)
        case Int(GEVENT_NET_IP6):
            storage = .ipv6(high: raw.high, low: raw.low, port: raw.port, scope: raw.scope)
        default:
            // The peer of an unnamed Unix socket has no family either.
            storage = .unix(path: withUnsafeBytes(of: raw.path) { Array($0.prefix(Int(raw.path_length))) })
        }
    }

    var raw: gevent_net_address {
        var raw = gevent_net_address()
        switch storage {
        case .ipv4(let bits, let port):
            raw.family = CInt(GEVENT_NET_IP4)
            raw.low = UInt64(bits)
            raw.port = port
        case .ipv6(let high, let low, let port, let scope):
            raw.family = CInt(GEVENT_NET_IP6)
            raw.high = high
            raw.low = low
            raw.port = port
            raw.scope = scope
        case .unix(let path):
            raw.family = CInt(GEVENT_NET_UNIX)
            raw.path_length = CInt(path.count)
            withUnsafeMutableBytes(of: &raw.path) { $0.copyBytes(from: path) }
        }
        return raw
    }
}

extension SocketAddress.Family {
    /// Nil for a family this library does not speak.
    init?(raw: CInt) {
        switch Int(raw) {
        case Int(GEVENT_NET_IP4): self = .ipv4
        case Int(GEVENT_NET_IP6): self = .ipv6
        case Int(GEVENT_NET_UNIX): self = .unix
        default: return nil
        }
    }

    var raw: CInt {
        switch self {
        case .ipv4: CInt(GEVENT_NET_IP4)
        case .ipv6: CInt(GEVENT_NET_IP6)
        case .unix: CInt(GEVENT_NET_UNIX)
        }
    }

    var isInternet: Bool { self != .unix }
}
