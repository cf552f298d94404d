internal import CGeventSystem
internal import Glibc

/// The address of a socket: an IPv4 or IPv6 address with a port, or the path or abstract name of a Unix socket.
///
/// ```swift
/// try SocketAddress("127.0.0.1:80")
/// try SocketAddress("[fe80::1%eth0]:80")
/// try SocketAddress(":8080")               // all IPv4 interfaces, like "*:8080" and "8080"
/// try SocketAddress("unix:/run/app.sock")  // or "unix:@name" for an abstract name
/// ```
///
/// Hosts are numeric; without a resolver, a host name is a ``SocketError`` with code `badAddress`. ``init(_:)`` accepts
/// the text of ``description``. An address is a plain value: it can be copied, sent to other threads and used as a key.
public struct SocketAddress: Sendable, Hashable, CustomStringConvertible {
    /// The family of an address.
    @nonexhaustive
    public enum Family: String, Sendable, Hashable {
        /// An IPv4 address: four bytes and a port.
        case ipv4
        /// An IPv6 address: sixteen bytes, a port and an optional scope.
        case ipv6
        /// A Unix address on this machine: a path in the file system, or an abstract name outside it.
        case unix
    }

    private enum Storage: Sendable, Hashable {
        /// The bits are in network byte order.
        case ipv4(bits: UInt32, port: UInt16)
        case ipv6(high: UInt64, low: UInt64, port: UInt16, scope: UInt32)
        /// In the kernel's form: an abstract name begins with a zero byte, and the path of an unnamed socket is empty.
        case unix(path: [UInt8])
    }

    private let storage: Storage

    // MARK: Creating

    /// Parses an address: "127.0.0.1:80", "[::1]:80", ":80", "*:80", "80", "unix:/path", "unix:@name" or "/path".
    ///
    /// Without a host, the address means all IPv4 interfaces; "[::]:80" means all interfaces, including IPv4.
    ///
    /// - Throws: ``SocketError`` with code `badAddress` for any other text.
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

    /// Creates an address with this numeric host and port.
    ///
    /// - Parameters:
    ///   - host: "127.0.0.1", "::1", "fe80::1%eth0"; empty or "*" for all IPv4 interfaces.
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
        guard let storage = Self.parse(host: host, port: port) else {
            throw .badAddress(
                host,
                "not a numeric IPv4 or IPv6 address; host names need a resolver, which this version does not have")
        }
        self.init(storage)
    }

    /// Creates an address of all IPv4 interfaces, for binding; for connecting it means 127.0.0.1. Traps if the port is
    /// not in 0 to 65535.
    public init(port: Int) {
        precondition(UInt16(exactly: port) != nil, "a port is a number from 0 to 65535, not \(port)")
        storage = .ipv4(bits: 0, port: UInt16(port))
    }

    /// Returns 127.0.0.1 with this port; 0 lets the system choose. Traps if the port is not in 0 to 65535.
    public static func loopback(port: Int = 0) -> SocketAddress {
        precondition(UInt16(exactly: port) != nil, "a port is a number from 0 to 65535, not \(port)")
        return SocketAddress(.ipv4(bits: UInt32(0x7f00_0001).bigEndian, port: UInt16(port)))
    }

    /// Returns the address of a Unix socket: a path, or "@name" for an abstract name outside the file system. An
    /// abstract name exists as long as a socket is bound to it.
    ///
    /// - Throws: ``SocketError`` with code `badAddress` if the path is longer than 107 bytes or contains a zero byte.
    public static func unix(_ path: String) throws(SocketError) -> SocketAddress {
        var bytes = Array(path.utf8)
        let isAbstract = bytes.first == UInt8(ascii: "@")
        // The terminating zero of a pathname takes one byte of the capacity.
        let maxCount = Int(GEVENT_NET_PATH_CAPACITY) - (isAbstract ? 0 : 1)
        if bytes.count > maxCount {
            throw .badAddress(path, "the path of a Unix socket has at most \(maxCount) bytes, not \(bytes.count)")
        }
        if bytes.contains(0) { throw .badAddress("unix:\(path)", "a path contains no zero byte") }
        if isAbstract { bytes[0] = 0 }
        return SocketAddress(.unix(path: bytes))
    }

    private init(_ storage: Storage) {
        self.storage = storage
    }

    // MARK: Components

    /// The family of the address.
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

    /// The numeric host, such as "127.0.0.1" or "fe80::1%eth0". For a Unix address it is the path or "@name", and empty
    /// if the address is unnamed.
    public var host: String {
        switch storage {
        case .ipv4, .ipv6:
            let address = description.dropLast("\(port)".count + 1)
            return String(family == .ipv6 ? address.dropFirst().dropLast() : address)
        case .unix(let path):
            let isAbstract = path.first == 0
            return (isAbstract ? "@" : "") + String(decoding: isAbstract ? path[1...] : path[...], as: UTF8.self)
        }
    }

    /// Whether this is the address of an unbound Unix socket, as those of most clients are.
    var isUnnamed: Bool {
        if case .unix(let path) = storage { path.isEmpty } else { false }
    }

    /// The address of an unbound Unix socket.
    static let unnamed = SocketAddress(.unix(path: []))

    /// The path of a Unix address in the file system, whose file outlives the socket; nil for any other address.
    var pathname: String? {
        guard case .unix(let path) = storage, let first = path.first, first != 0 else { return nil }
        return host
    }

    /// Calls `body` with the text of ``description``. Allocates nothing, and uses little of the stack.
    func withCText<Result>(_ body: (UnsafePointer<CChar>) -> Result) -> Result {
        var raw = self.raw
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(GEVENT_NET_TEXT_CAPACITY)) { text in
            // A temporary allocation of non-zero capacity always has a base address.
            gevent_net_format_address(&raw, text.baseAddress!)
            return body(text.baseAddress!)
        }
    }

    /// The text of the address: "127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@name", or "unix:" for an unnamed
    /// address.
    public var description: String {
        switch storage {
        case .ipv4, .ipv6: withCText { String(cString: $0) }
        case .unix: "unix:\(host)"
        }
    }

    // MARK: Parsing

    private static var expectation: String {
        "expected 127.0.0.1:80, [::1]:80, :80, *:80, 80, unix:/path or unix:@name"
    }

    /// Returns the part before the last colon, without brackets.
    private static func host(in part: Substring, of text: String) throws(SocketError) -> String {
        if part.hasPrefix("[") && part.hasSuffix("]") {
            let inner = part.dropFirst().dropLast()
            // Brackets are only for hosts that contain colons.
            if inner.contains(":") { return String(inner) }
        } else if !part.contains(":") {
            return String(part)
        }
        throw .badAddress(text, expectation)
    }

    private static func port(_ part: Substring, of text: String) throws(SocketError) -> Int {
        guard let port: UInt16 = number(part) else { throw .badAddress(text, expectation) }
        return Int(port)
    }

    /// Parses digits. The initializer of an integer would also accept a sign.
    private static func number<Number: FixedWidthInteger>(_ text: some StringProtocol) -> Number? {
        text.allSatisfy { $0.isASCII && $0.isNumber } ? Number(text) : nil
    }

    /// Parses "127.0.0.1", "::1" or "fe80::1%eth0". Returns nil for any other text.
    private static func parse(host: String, port: UInt16) -> Storage? {
        if host.utf8.contains(0) { return nil }
        var ip4 = in_addr()
        if inet_pton(AF_INET, host, &ip4) == 1 { return .ipv4(bits: ip4.s_addr, port: port) }
        let parts = host.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        var raw = gevent_net_address()
        if inet_pton(AF_INET6, parts[0], &raw.ip) != 1 { return nil }
        if parts.count == 2 {
            raw.scope = if_nametoindex(parts[1])
            if raw.scope == 0 {
                guard let scope: UInt32 = number(parts[1]) else { return nil }
                raw.scope = scope
            }
        }
        return .ipv6(high: raw.ip.0, low: raw.ip.1, port: port, scope: raw.scope)
    }
}

// MARK: The kernel's form

extension SocketAddress {
    init(_ raw: gevent_net_address) {
        switch Int(raw.family) {
        case Int(GEVENT_NET_IP4):
            storage = .ipv4(bits: UInt32(truncatingIfNeeded: raw.ip.0), port: raw.port)
        case Int(GEVENT_NET_IP6):
            storage = .ipv6(high: raw.ip.0, low: raw.ip.1, port: raw.port, scope: raw.scope)
        default:
            // The peer of an unnamed Unix socket has no family.
            storage = .unix(path: withUnsafeBytes(of: raw.path) { Array($0.prefix(Int(raw.path_length))) })
        }
    }

    var raw: gevent_net_address {
        var raw = gevent_net_address()
        switch storage {
        case .ipv4(let bits, let port):
            raw.family = CInt(GEVENT_NET_IP4)
            raw.ip.0 = UInt64(bits)
            raw.port = port
        case .ipv6(let high, let low, let port, let scope):
            raw.family = CInt(GEVENT_NET_IP6)
            raw.ip = (high, low)
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
    /// Returns nil for a family that this library doesn't support.
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
