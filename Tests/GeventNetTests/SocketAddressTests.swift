import GeventNet
import Testing

@Suite struct SocketAddressTests {
    @Test(arguments: [
        ("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:80", "[::1]:80"), ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
        (":8080", "0.0.0.0:8080"), ("*:80", "0.0.0.0:80"), ("8080", "0.0.0.0:8080"), ("[::]:0", "[::]:0"),
        ("unix:/tmp/a b.sock", "unix:/tmp/a b.sock"), ("/tmp/x", "unix:/tmp/x"), ("unix:@name", "unix:@name"),
        ("unix:relative", "unix:relative"), ("unix:", "unix:"), ("[fe80::1%1]:7", "[fe80::1%lo]:7"),
        ("[fe80::1%999999]:7", "[fe80::1%999999]:7"),
    ])
    func textsAreRead(_ text: String, _ description: String) throws {
        let address = try SocketAddress(text)
        #expect(address.description == description)
        #expect(try SocketAddress(address.description) == address)
    }

    @Test(arguments: [
        "localhost:80", "example.com:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1",
        "::1:80", "[::1]", "[::1]80", "[127.0.0.1]:80", "1.2.3:80", "1.2.3.4.5:80", "", "x", "127.0.0.1:80x",
        "[fe80::1%nosuchdevice]:80", "[fe80::1%]:80", "127.0.0.1\u{0}:80",
    ])
    func otherTextsAreRefused(_ text: String) {
        #expect(socketError { _ = try SocketAddress(text) }?.code == .badAddress)
    }

    @Test func namesAreForLater() {
        let error = socketError { _ = try SocketAddress("example.com:80") }
        #expect("\(error!)".contains("example.com"))
        #expect("\(error!)".contains("resolver"))
    }

    @Test func partsAreKept() throws {
        let four = try SocketAddress(host: "10.1.2.3", port: 99)
        #expect((four.host, four.port, four.family) == ("10.1.2.3", 99, .ipv4))
        let six = try SocketAddress(host: "fe80::2%1", port: 1)
        #expect((six.host, six.port, six.family) == ("fe80::2%lo", 1, .ipv6))
        let local = try SocketAddress.unix("@x")
        #expect((local.host, local.port, local.family) == ("@x", 0, .unix))
        #expect(SocketAddress.loopback(port: 5).description == "127.0.0.1:5")
        #expect(socketError { _ = try SocketAddress(host: "127.0.0.1", port: 70000) }?.code == .badAddress)
    }

    @Test func equalityIsOfAllParts() throws {
        #expect(try SocketAddress("[fe80::1%1]:7") != SocketAddress("[fe80::1]:7"))
        #expect(
            try Set([SocketAddress("1.2.3.4:5"), SocketAddress("1.2.3.4:5"), SocketAddress("1.2.3.4:6")]).count == 2)
    }

    @Test func aUnixPathHasALimit() throws {
        let longest = String(repeating: "x", count: 107)
        #expect(try SocketAddress.unix(longest).host == longest)
        #expect(socketError { _ = try SocketAddress.unix(longest + "x") }?.code == .badAddress)
        #expect(try SocketAddress.unix("@" + longest).host == "@" + longest)
        #expect(socketError { _ = try SocketAddress.unix("a\u{0}b") }?.code == .badAddress)
    }
}
