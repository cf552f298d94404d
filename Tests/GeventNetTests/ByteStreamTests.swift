import Gevent
import GeventNet
import GeventTesting
import Glibc
import Testing

/// The calls that every stream has.
@Suite struct ByteStreamTests {
    // MARK: Sockets as streams

    /// Uses a stream through its concrete type.
    private static func exerciseGenerically<Stream: ByteStream>(_ a: Stream, _ b: Stream) throws {
        try a.writeAll("0123")
        try a.writeAll([0x34, 0x35])
        let more = Array("6789abcdefghij".utf8)
        try a.writeAll(more.span.bytes.extracting(0..<2))
        try more[2..<4].withUnsafeBytes { try a.writeAll($0, timeout: .seconds(10)) }
        #expect(try a.write("ab") == 2)
        #expect(try a.write(more.span.bytes.extracting(6..<7)) == 1)
        #expect(try a.write(more[7..<8], timeout: .zero) == 1)
        #expect(try more[8..<9].withUnsafeBytes { try a.write($0) } == 1)
        #expect(try receive(9 + 6, from: b) == "0123456789abcde")
        try a.shutdown(.write)
        var nothing = [UInt8](repeating: 0, count: 1)
        #expect(try nothing.withUnsafeMutableBytes { try b.read(into: $0) } == 0)
    }

    /// Uses a stream through indirect calls.
    private static func exerciseIndirectly(_ a: any ByteStream, _ b: any ByteStream) throws {
        try a.writeAll("one ".utf8, "two ".utf8)
        try a.writeAll("three ".utf8, [0x34, 0x20], Set("5".utf8), timeout: .seconds(10))
        let (six, seven) = (Array(" six".utf8), Array(" seven".utf8))
        try a.writeAll(six.span.bytes, seven.span.bytes)
        try a.writeAll(six.span.bytes, six.span.bytes.extracting(0..<0), seven.span.bytes)
        #expect(try receive(37, from: b) == "one two three 4 5 six seven six seven")
        try b.shutdown(.both)
        a.close()
        a.close()
        #expect(socketError { try a.writeAll("x") }?.code == .closed)
    }

    /// Reads alternately into both kinds of spans.
    private static func receive(_ count: Int, from stream: any ByteStream) throws -> String {
        var received: [UInt8] = []
        while received.count < count {
            let old = received.count
            try received.append(addingCapacity: 4) { _ = try stream.read(into: &$0) }
            if received.count == old { break }
            var buffer = [UInt8](repeating: 0, count: 3)
            if received.count == count { break }
            let got = try read(from: stream, into: &buffer)
            received += buffer.prefix(got)
        }
        return text(received)
    }

    private static func read(from stream: any ByteStream, into buffer: inout [UInt8]) throws -> Int {
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        return try stream.read(into: &bytes, timeout: .seconds(10))
    }

    @Test func genericCodeTakesSockets() throws {
        try withNet { _ in
            for (a, b) in [try Socket.pair(), try tcpPair()] {
                try Self.exerciseGenerically(a, b)
                for socket in [a, b] { socket.close() }
            }
        }
    }

    @Test func indirectCallsReachSockets() throws {
        try withNet { _ in
            for (a, b) in [try Socket.pair(), try tcpPair()] {
                try Self.exerciseIndirectly(a, b)
                b.close()
            }
        }
    }

    @Test func aReadAppendsToWhatIsThere() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            try a.writeAll("xyz")
            var memory = [UInt8](repeating: 0, count: 8)
            let filled = try memory.withUnsafeMutableBytes { bytes throws in
                var span = OutputRawSpan(buffer: bytes, initializedCount: 0)
                span.append(0x77)
                #expect(try b.read(into: &span) == 3)
                #expect(socketError { _ = try b.read(into: &span, timeout: .zero) }?.code == .wouldBlock)
                return span.finalize(for: bytes)
            }
            #expect(text(Array(memory.prefix(filled))) == "wxyz")
        }
    }

    @Test func stringsAreWrittenAsUTF8() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            let greeting = "grüß 🌍 dich"
            #expect(try a.write(greeting) == greeting.utf8.count)
            try a.writeAll(greeting.dropFirst(5))
            try a.writeAll("")
            #expect(try a.write("") == 0)
            #expect(text(try b.readExactly(greeting.utf8.count)) == greeting)
            #expect(text(try b.read()) == "🌍 dich")
        }
    }

    // MARK: Gathered writes

    /// Parts of various sizes, and more of them than one system call accepts.
    private static let parts: [[UInt8]] = (0..<200).map { number in
        let size = number % 7 == 0 ? 0 : number % 10 == 0 ? 100_000 : number * 11
        return (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }
    }

    private static func withParts(_ body: (UnsafeBufferPointer<UnsafeRawBufferPointer>) throws -> Void) throws {
        let copies = parts.map { part in
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: part.count, alignment: 1)
            copy.copyBytes(from: part)
            return UnsafeRawBufferPointer(copy)
        }
        defer { for copy in copies { copy.deallocate() } }
        try copies.withUnsafeBufferPointer(body)
    }

    @Test func gatheredPartsCrossSmallBuffers() throws {
        try withNet { _ in
            for ((a, b), room) in [(try Socket.pair(), 4_096), (try tcpPair(), 65_536)] {
                try a.setOption(.sendBufferSize, to: room)
                let writer = spawn {
                    try Self.withParts { try a.writeAll(gathering: $0, timeout: nil) }
                    try a.shutdown(.write)
                }
                let message = Array(Self.parts.joined())
                // In portions that end anywhere within a part.
                var received: [UInt8] = []
                while case let more = try b.read(upTo: 7_919), !more.isEmpty { received += more }
                #expect(received == message)
                try writer.get()
            }
        }
    }

    /// The bytes written are a prefix of the message, and the socket remains usable.
    @Test(arguments: [0, 1, 5, 20]) func aGatheredWriteCanBeKilledInTheMiddle(rounds: Int) throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            try a.setOption(.sendBufferSize, to: 4_096)
            let writer = spawn { try Self.withParts { try a.writeAll(gathering: $0, timeout: nil) } }
            try sleep()
            var received: [UInt8] = []
            for _ in 0..<rounds {
                received += try b.read(upTo: 5_000)
                try sleep()
            }
            try writer.kill()
            #expect(writer.exit is GreenletExit)
            do {
                while true { received += try b.read(upTo: 5_000, timeout: .zero) }
            } catch let error as SocketError where error.code == .wouldBlock {}
            let message = Array(Self.parts.joined())
            #expect(received.count < message.count)
            #expect(received == Array(message.prefix(received.count)))
            try a.writeAll("and ".utf8, "on".utf8)
            #expect(text(try b.readExactly(6)) == "and on")
        }
    }

    @Test func gatheredPartsAreOneSystemCall() throws {
        try withNet { _ in
            let (a, b) = try tcpPair()
            let before = try Self.segmentsSent(by: a)
            try a.writeAll("GET / ".utf8, "HTTP/1.1".utf8, "\r\n\r\n".utf8)
            // Without Nagle's algorithm, each system call sends a segment.
            #expect(try Self.segmentsSent(by: a) == before + 1)
            #expect(text(try b.read()) == "GET / HTTP/1.1\r\n\r\n")
        }
    }

    /// Returns the number of segments with data.
    private static func segmentsSent(by socket: Socket) throws -> UInt32 {
        var information = [UInt32](repeating: 0, count: 64)
        var size = socklen_t(information.count * 4)
        let result = getsockopt(socket.fileDescriptor, CInt(IPPROTO_TCP), TCP_INFO, &information, &size)
        // `tcpi_data_segs_out` of the kernel's `tcp_info`, which glibc's lacks.
        try #require(result == 0 && size >= 160)
        return information[39]
    }

    @Test func gatheringNothingIsNoSystemCall() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            defer { b.close() }
            try fill(a)
            try a.writeAll([], "".utf8, timeout: .zero)
            try a.writeAll(gathering: UnsafeBufferPointer(start: nil, count: 0), timeout: .nanoseconds(1))
        }
    }

    // MARK: Timeouts and threads

    /// Every call that can park, on a full stream with nothing to read.
    private static let parkingCalls: [@Sendable (any ByteStream, Duration?) throws -> Void] = [
        { stream, timeout in
            var buffer: [UInt8] = [0]
            _ = try buffer.withUnsafeMutableBytes { try stream.read(into: $0, timeout: timeout) }
        },
        { stream, timeout in
            var buffer: [UInt8] = []
            try buffer.append(addingCapacity: 1) { _ = try stream.read(into: &$0, timeout: timeout) }
        },
        { stream, timeout in _ = try stream.write([1], timeout: timeout) },
        { stream, timeout in _ = try stream.write("x", timeout: timeout) },
        { stream, timeout in try stream.writeAll([1], timeout: timeout) },
        { stream, timeout in try stream.writeAll("xy", timeout: timeout) },
        { stream, timeout in try stream.writeAll([1], [2, 3], timeout: timeout) },
        { stream, timeout in try stream.writeAll("x".utf8, "y".utf8, [1], timeout: timeout) },
    ]

    @Test(arguments: parkingCalls.indices) func eachCallKeepsItsTimeout(call: Int) throws {
        try withNet { hub in
            let (a, b) = try Socket.pair()
            defer { b.close() }
            try fill(a)
            let parks = Self.parkingCalls[call]
            #expect(socketError { try parks(a, .zero) }?.code == .wouldBlock)
            let start = hub.now
            #expect(socketError { try parks(a, .milliseconds(5)) }?.code == .timedOut)
            #expect(start.duration(to: hub.now) >= .milliseconds(5))
            // Nil means the socket's own timeout.
            a.timeout = .milliseconds(1)
            #expect(socketError { try parks(a, nil) }?.code == .timedOut)
        }
    }

    @Test func eachCallIsOfOneThread() throws {
        try withNet { _ in
            let (a, b) = try Socket.pair()
            let foreign = ForeignValue(a)
            try onFreshThread {
                let calls: [(any ByteStream) throws -> Void] =
                    Self.parkingCalls.map { call in { try call($0, nil) } } + [
                        { try $0.writeAll("") }, { try $0.writeAll([], []) }, { try $0.shutdown(.both) },
                    ]
                for call in calls {
                    let error = #expect(throws: HubError.self) { try call(foreign.value) }
                    #expect(error?.code == .wrongThread)
                }
            }
            try b.writeAll("unharmed")
            #expect(text(try a.read()) == "unharmed")
        }
    }

    @Test func eachCallIsOfOneHub() throws {
        try onFreshThread {
            let hub = try Hub.start(on: VirtualLoop())
            let (a, b) = try Socket.pair()
            hub.destroy()
            // The next hub often has the same address.
            let next = try Hub.start(on: VirtualLoop())
            for call in Self.parkingCalls {
                let error = #expect(throws: HubError.self) { try call(a, nil) }
                #expect(error?.code == .destroyed)
            }
            for socket in [a, b] { socket.close() }
            next.destroy()
        }
    }

    // MARK: A custom stream

    @Test func defaultsWriteEverything() throws {
        try withHub { _ in
            let stream = SlowStream()
            try stream.writeAll("abcdefgh")
            try stream.writeAll("ij".utf8, [], "klmn".utf8)
            #expect(text(stream.written) == "abcdefghijklmn")
            #expect(stream.timeouts.allSatisfy { $0 == nil })
        }
    }

    @Test func defaultsLimitTheWhole() throws {
        try withHub { _ in
            let stream = SlowStream()
            #expect(throws: SlowStream.TimedOut.self) { try stream.writeAll("abcdefghij", timeout: .milliseconds(25)) }
            #expect(stream.timeouts == [.milliseconds(25), .milliseconds(15), .milliseconds(5)])
            #expect(text(stream.written) == "abcdef")
            stream.timeouts = []
            #expect(throws: SlowStream.TimedOut.self) {
                try stream.writeAll("abc".utf8, "def".utf8, "g".utf8, timeout: .milliseconds(20))
            }
            // The stream throws its own error, not the one for a call that must not park.
            #expect(stream.timeouts == [.milliseconds(20), .milliseconds(10), .nanoseconds(1)])
            stream.timeouts = []
            try stream.writeAll("", timeout: .zero)
            #expect(stream.timeouts == [])
            #expect(throws: SlowStream.TimedOut.self) { try stream.writeAll("abcdef", timeout: .zero) }
            #expect(stream.timeouts == [.zero])
        }
    }

    // MARK: Servers

    @Test func aHandlerForAnyStreamServes() throws {
        try withNet { _ in
            func answerGenerically(_ stream: some ByteStream, _ peer: SocketAddress) throws {
                try stream.writeAll("generic")
            }
            func answerIndirectly(_ stream: any ByteStream, _ peer: SocketAddress) throws {
                try stream.writeAll("indirect")
            }
            for (server, answer) in [
                (StreamServer(.loopback(), handler: answerGenerically), "generic"),
                (StreamServer(.loopback(), handler: answerIndirectly), "indirect"),
            ] {
                try server.start()
                let client = try Socket.connect(to: server.address)
                #expect(text(try client.readExactly(answer.utf8.count)) == answer)
                #expect(try client.read() == [])
                client.close()
                try server.stop()
            }
        }
    }

    /// Like TLS: the handler creates its stream on top of the socket.
    @Test func aStreamOverAnotherServesAndIsKnownToBeIdle() throws {
        try withNet { _ in
            let server = StreamServer(.loopback()) { socket, _ in
                let stream = MaskedStream(over: socket, mask: 0x55)
                defer { stream.close() }
                var buffer = [UInt8](repeating: 0, count: 100)
                while case let count = try buffer.withUnsafeMutableBytes({ try stream.read(into: $0) }), count > 0 {
                    try stream.writeAll("got ".utf8, buffer.prefix(count))
                }
            }
            try server.start()
            let client = MaskedStream(over: try Socket.connect(to: server.address), mask: 0x55)
            defer { client.close() }
            try client.writeAll("this")
            #expect(try Self.receive(8, from: client) == "got this")
            try withTimeout(.seconds(60)) { _ in try server.stop(timeout: .seconds(600)) }
            #expect(try Self.receive(1, from: client) == "")
        }
    }
}

/// Carries a value to another thread, where its use must be refused.
private struct ForeignValue<Value>: @unchecked Sendable {
    // No other thread reads the value meanwhile.
    let value: Value
    init(_ value: Value) { self.value = value }
}

/// A stream that accepts three bytes every ten milliseconds and implements only the requirements.
private final class SlowStream: ByteStream {
    struct TimedOut: Error {}

    var written: [UInt8] = []
    var timeouts: [Duration?] = []

    func read(into buffer: inout OutputRawSpan, timeout: Duration?) throws -> Int { 0 }

    func write(_ bytes: RawSpan, timeout: Duration?) throws -> Int {
        timeouts.append(timeout)
        if let timeout, timeout < .milliseconds(10) { throw TimedOut() }
        try sleep(for: .milliseconds(10))
        let count = min(3, bytes.byteCount)
        bytes.extracting(first: count).withUnsafeBytes { written += $0 }
        return count
    }

    func shutdown(_ direction: StreamDirection) {}
    func close() {}
}

/// A stream that masks each byte.
private final class MaskedStream: ByteStream {
    private let inner: any ByteStream
    private let mask: UInt8

    init(over inner: any ByteStream, mask: UInt8) {
        self.inner = inner
        self.mask = mask
    }

    func read(into buffer: inout OutputRawSpan, timeout: Duration?) throws -> Int {
        let count = try inner.read(into: &buffer, timeout: timeout)
        let mask = self.mask
        buffer.withUnsafeMutableBytes { bytes, filled in
            for index in filled - count..<filled { bytes[index] ^= mask }
        }
        return count
    }

    func write(_ bytes: RawSpan, timeout: Duration?) throws -> Int {
        let masked = bytes.withUnsafeBytes { $0.map { $0 ^ mask } }
        return try inner.write(masked, timeout: timeout)
    }

    func shutdown(_ direction: StreamDirection) throws { try inner.shutdown(direction) }
    func close() { inner.close() }
}
