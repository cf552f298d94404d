import Gevent
public import GeventTesting
import Glibc
public import Testing

/// A log of events, in order. Confined to the thread of one hub.
final class Log {
    private(set) var entries: [String] = []

    func note(_ entry: String) { entries.append(entry) }

    /// Notes the outcome of `body`: its value, or the error it threw.
    func outcome(_ label: String, of body: () throws -> some Any) {
        do {
            let value = try body()
            note("\(label): \(value)")
        } catch {
            note("\(label): threw \(error)")
        }
    }

    /// The same for a body without a value.
    func outcome(_ label: String, of body: () throws -> Void) {
        do {
            try body()
            note("\(label): returned")
        } catch {
            note("\(label): threw \(error)")
        }
    }
}

/// Runs `body` as the main greenlet of its own hub, and returns its log. Uncaught errors are logged too, so none is
/// missed.
func logged(
    on loop: TestLoop = .virtual, allowingLeftovers: Bool = false,
    _ body: @escaping @Sendable (Log, Hub) throws -> Void
) throws -> [String] {
    try withHub(on: loop, allowingLeftovers: allowingLeftovers) { hub in
        let log = Log()
        hub.errorHandler = { error, greenlet in
            log.note("reported \(error) of \(greenlet.map(\.description) ?? "no greenlet")")
        }
        try body(log, hub)
        return log.entries
    }
}

/// The loops for tests of time or descriptors.
let bothLoops: [TestLoop] = [.virtual, .configured]

extension TestLoop: CustomTestStringConvertible {
    public var testDescription: String {
        switch self {
        case .virtual: "virtual"
        case .configured: "configured"
        case .custom: "custom"
        }
    }
}

/// An ordinary failure.
struct Boom: Error, Hashable, CustomStringConvertible {
    var text = "Boom"
    init(_ text: String = "Boom") { self.text = text }
    var description: String { text }
}

/// A failure with identity.
final class BoomObject: Error, Sendable {}

/// An exit defined by the tests.
struct OwnExit: GreenletExitError, Hashable, CustomStringConvertible {
    var description: String { "OwnExit" }
}

/// Returns the error that `body` throws, or nil.
func thrownError(_ body: () throws -> Void) -> (any Error)? {
    do {
        try body()
        return nil
    } catch {
        return error
    }
}

/// Returns the code of the HubError that `body` throws, or nil if it throws another error or none.
func hubErrorCode(_ body: () throws -> Void) -> HubError.Code? {
    do {
        try body()
        return nil
    } catch {
        return (error as? HubError)?.code
    }
}

/// Whether a Timeout started around `body` propagates through it unchanged.
func letsForeignTimeoutPass(_ body: () throws -> Void) -> Bool {
    let timeout = Timeout(.milliseconds(1))
    timeout.start()
    defer { timeout.cancel() }
    do {
        try body()
        return false
    } catch {
        return error as? Timeout === timeout
    }
}

/// An object whose lifetime is observed.
final class Witness {
    private let atEnd: () -> Void
    init(_ atEnd: @escaping () -> Void = {}) { self.atEnd = atEnd }
    deinit { atEnd() }
}

/// Carries a thread-confined value to another thread. Used only by tests of that misuse.
struct Smuggled<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
}

/// A thread that the test must join.
final class TestThread {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    private var thread = pthread_t()

    init(_ body: @escaping @Sendable () -> Void) {
        let error = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(Body(body)).toOpaque())
        precondition(error == 0, "no thread for a test: error \(error)")
    }

    func join() { pthread_join(thread, nil) }
}

/// A non-blocking pipe whose ends are closed on deinit at the latest.
final class Pipe {
    private(set) var readEnd: CInt
    private(set) var writeEnd: CInt

    init() throws {
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        (readEnd, writeEnd) = (ends[0], ends[1])
        for end in ends { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
    }

    deinit {
        closeReadEnd()
        closeWriteEnd()
    }

    func write(_ count: Int = 1) {
        let bytes = [UInt8](repeating: 7, count: count)
        _ = Glibc.write(writeEnd, bytes, count)
    }

    /// Returns the number of bytes.
    @discardableResult
    func read(_ most: Int = 1 << 17) -> Int {
        var bytes = [UInt8](repeating: 0, count: most)
        return Glibc.read(readEnd, &bytes, most)
    }

    /// Writes until the pipe is full.
    func fill() {
        let bytes = [UInt8](repeating: 7, count: 4096)
        while Glibc.write(writeEnd, bytes, bytes.count) > 0 {}
    }

    func closeReadEnd() {
        if readEnd >= 0 { close(readEnd) }
        readEnd = -1
    }

    func closeWriteEnd() {
        if writeEnd >= 0 { close(writeEnd) }
        writeEnd = -1
    }
}

/// Made before descriptors are counted: with its first loop libuv opens a pipe that the process keeps.
private let firstHub: Void = {
    do { try withHub(on: .configured) { _ in } } catch { Issue.record(error) }
}()

/// The number of open descriptors of this process.
func openDescriptorCount() -> Int {
    firstHub
    guard let directory = opendir("/proc/self/fd") else { return -1 }
    defer { closedir(directory) }
    var count = 0
    while let entry = readdir(directory) {
        if entry.pointee.d_name.0 != CChar(UInt8(ascii: ".")) { count += 1 }
    }
    // Do not count the directory's own descriptor.
    return count - 1
}

/// The resident memory of this process.
func residentBytes() -> Int {
    guard let file = fopen("/proc/self/statm", "r") else { return -1 }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 256)
    let count = fread(&bytes, 1, bytes.count, file)
    let fields = String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: " ")
    return fields.count < 2 ? -1 : (Int(fields[1]) ?? 0) * Int(getpagesize())
}

/// Whether the process runs under a sanitizer that reserves most of the address space and slows everything down.
let isSanitized = dlsym(nil, "__asan_init") != nil || dlsym(nil, "__tsan_init") != nil

/// Makes a child that is about to crash die by the plain signal, without Swift's backtrace, which takes seconds.
func dieQuietly() {
    for number in [SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGABRT] { signal(number, SIG_DFL) }
}

/// The output of a child.
func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
