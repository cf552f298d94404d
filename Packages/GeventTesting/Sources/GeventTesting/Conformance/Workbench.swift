internal import CGeventSystem
internal import GeventLoop
internal import Glibc
internal import Synchronization

/// The failure of a check: what was expected and what happened.
struct CheckFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Fails the check unless the condition holds.
func expect(_ condition: Bool, _ message: @autoclosure () -> String) throws {
    if !condition { throw CheckFailure(message()) }
}

/// Fails the check unless both values are equal.
func expectEqual<Value: Equatable>(_ actual: Value, _ expected: Value, _ label: String) throws {
    try expect(actual == expected, "\(label): expected \(expected), got \(actual)")
}

/// The resources of a check: its loop, and descriptors that are closed at the end in any case.
final class Workbench {
    let makeLoop: LoopConformance.Factory
    let loop: any Loop
    private var events = ReadyEvents()
    private var descriptors: Set<CInt> = []
    private var loopIsClosed = false

    init(_ makeLoop: @escaping LoopConformance.Factory) throws {
        Self.raiseDescriptorLimit
        self.makeLoop = makeLoop
        loop = try makeLoop()
    }

    func cleanUp() {
        closeLoop()
        for fileDescriptor in descriptors { _ = Glibc.close(fileDescriptor) }
        descriptors = []
    }

    func closeLoop() {
        if !loopIsClosed { loop.close() }
        loopIsClosed = true
    }

    // MARK: Descriptors

    /// Creates a non-blocking pipe.
    func pipe() throws -> (readEnd: CInt, writeEnd: CInt) {
        var ends: [CInt] = [-1, -1]
        try expectEqual(gevent_pipe(&ends), 0, "pipe2")
        return (adopt(ends[0]), adopt(ends[1]))
    }

    /// Creates a pair of connected non-blocking stream sockets.
    func socketPair() throws -> (CInt, CInt) {
        var ends: [CInt] = [-1, -1]
        let kind = CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        try expectEqual(socketpair(AF_UNIX, kind, 0, &ends), 0, "socketpair")
        return (adopt(ends[0]), adopt(ends[1]))
    }

    /// Creates a TCP connection and returns both non-blocking ends.
    func connection() throws -> (CInt, CInt) {
        let listener = try tcpSocket()
        var address = loopback()
        try expectEqual(withSocketAddress(&address) { bind(listener, $0, $1) }, 0, "bind")
        try expectEqual(listen(listener, 1), 0, "listen")
        try expectEqual(withSocketAddress(&address) { getsockname(listener, $0, &$1) }, 0, "getsockname")
        let right = try tcpSocket()
        // The socket is non-blocking, but over loopback the connection is established when the call returns.
        _ = withSocketAddress(&address) { connect(right, $0, $1) }
        let left = accept(listener, nil, nil)
        try expect(left >= 0, "accept failed: errno \(errno)")
        try expectEqual(fcntl(left, F_SETFL, O_NONBLOCK), 0, "result of F_SETFL")
        return (adopt(left), right)
    }

    /// Creates a TCP socket whose attempt to connect is refused.
    func refusedConnection() throws -> CInt {
        let placeholder = try tcpSocket()
        var address = loopback()
        // Bound but not listening, so no other socket gets the port and connections are refused.
        try expectEqual(withSocketAddress(&address) { bind(placeholder, $0, $1) }, 0, "bind")
        try expectEqual(withSocketAddress(&address) { getsockname(placeholder, $0, &$1) }, 0, "getsockname")
        let socket = try tcpSocket()
        _ = withSocketAddress(&address) { connect(socket, $0, $1) }
        return socket
    }

    private func tcpSocket() throws -> CInt {
        let kind = CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let result = socket(AF_INET, kind, 0)
        try expect(result >= 0, "socket failed: errno \(errno)")
        return adopt(result)
    }

    private func loopback() -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }

    private func withSocketAddress(
        _ address: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>, inout socklen_t) -> CInt
    ) -> CInt {
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        return withUnsafeMutableBytes(of: &address) { bytes in
            // Every socket address may be accessed as a `sockaddr`, and the bytes of a variable have a base address.
            bytes.baseAddress.map { body($0.assumingMemoryBound(to: sockaddr.self), &size) } ?? -1
        }
    }

    /// Opens a file, a directory or a device; or only its name, which can be neither read nor written.
    func open(_ path: String, onlyNaming: Bool = false) throws -> CInt {
        let result = onlyNaming ? gevent_open_path(path) : Glibc.open(path, O_RDONLY | O_CLOEXEC)
        try expect(result >= 0, "cannot open \(path): errno \(errno)")
        return adopt(result)
    }

    /// Creates an epoll descriptor that watches another descriptor for reading. Returns nil if the kernel rejects the
    /// depth of nesting.
    func epoll(watching fileDescriptor: CInt) throws -> CInt? {
        let epoll = adopt(gevent_epoll())
        let result = gevent_epoll_control(epoll, EPOLL_CTL_ADD, fileDescriptor, EPOLLIN.rawValue, 0)
        // Older kernels return EINVAL for a descriptor that is nested too deep.
        if result == -ELOOP || result == -EINVAL { return nil }
        try expect(result == 0, "an epoll descriptor cannot be made: errno \(-result)")
        return epoll
    }

    /// Creates another descriptor for the same file.
    func duplicate(_ fileDescriptor: CInt) throws -> CInt {
        let result = fcntl(fileDescriptor, F_DUPFD_CLOEXEC, 0)
        try expect(result >= 0, "cannot duplicate a descriptor: errno \(errno)")
        return adopt(result)
    }

    /// Moves the open file to another descriptor number, and closes the original descriptor.
    @discardableResult
    func move(_ fileDescriptor: CInt, to number: CInt) throws -> CInt {
        descriptors.remove(fileDescriptor)
        try expectEqual(gevent_replace(number, fileDescriptor), 0, "dup3")
        return adopt(number)
    }

    func close(_ fileDescriptor: CInt) {
        descriptors.remove(fileDescriptor)
        _ = Glibc.close(fileDescriptor)
    }

    /// Returns a high number that no other check uses and that the kernel does not assign by itself. Closing and
    /// reusing such a number is safe although other threads of the process open descriptors meanwhile.
    func privateNumber() -> CInt {
        let number = Self.nextNumber.wrappingAdd(1, ordering: .relaxed).oldValue
        return 2000 + number % 2000
    }

    private func adopt(_ fileDescriptor: CInt) -> CInt {
        descriptors.insert(fileDescriptor)
        return fileDescriptor
    }

    /// Runs the closure with the limit on open descriptors raised to this number, or to the most that the system
    /// allows.
    ///
    /// - Parameter body: receives the limit. It must close every descriptor beyond the former limit.
    func withDescriptorLimit(_ wanted: Int, _ body: (_ limit: Int) throws -> Void) throws {
        let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var former = rlimit()
        getrlimit(kind, &former)
        defer { setrlimit(kind, &former) }
        var limit = rlimit(rlim_cur: rlim_t(wanted), rlim_max: max(former.rlim_max, rlim_t(wanted)))
        if setrlimit(kind, &limit) != 0 {
            // Only a privileged process may raise the hard limit.
            limit = rlimit(rlim_cur: min(former.rlim_max, rlim_t(wanted)), rlim_max: former.rlim_max)
            try expectEqual(setrlimit(kind, &limit), 0, "setrlimit")
        }
        try body(Int(limit.rlim_cur))
    }

    private static let nextNumber = Atomic<CInt>(0)

    private static let raiseDescriptorLimit: Void = {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        if limit.rlim_cur < 4096 {
            limit.rlim_cur = min(limit.rlim_max, 4096)
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
    }()

    // MARK: Bytes

    func write(_ fileDescriptor: CInt) throws {
        try expectEqual(writeByte(to: fileDescriptor), 1, "bytes written")
    }

    /// Reads until the descriptor is empty. Returns whether there was any data.
    @discardableResult
    func drain(_ fileDescriptor: CInt) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { bytes in
            var found = false
            while read(fileDescriptor, bytes.baseAddress, bytes.count) > 0 { found = true }
            return found
        }
    }

    /// Writes until the buffer is full.
    func fill(_ fileDescriptor: CInt) {
        var bytes = [UInt8](repeating: 0, count: 65536)
        while Glibc.write(fileDescriptor, &bytes, bytes.count) > 0 {}
        // The remaining room may be too small for a large write.
        while Glibc.write(fileDescriptor, &bytes, 1) > 0 {}
    }

    // MARK: Polling

    func watch(_ fileDescriptor: CInt, _ interest: Readiness, generation: UInt32 = 1) throws {
        try loop.setInterest(interest, for: fileDescriptor, generation: generation)
    }

    /// Polls once and returns the events.
    func poll(until deadline: LoopInstant?) throws -> [ReadyEvent] {
        events.removeAll()
        try loop.poll(until: deadline, into: &events)
        return (0..<events.count).map { events[$0] }
    }

    /// Polls until there are events, for up to five seconds, and returns them. Spurious returns are ignored.
    func nextEvents() throws -> [ReadyEvent] {
        let start = realTime()
        while realTime() - start < .seconds(5) {
            let found = try poll(until: loop.now.advanced(by: .milliseconds(100)))
            if !found.isEmpty { return found }
        }
        return []
    }

    /// Polls until the descriptor is reported, and returns that event.
    func nextEvent(of fileDescriptor: CInt) throws -> ReadyEvent {
        let found = try nextEvents()
        guard let event = found.first(where: { $0.fileDescriptor == fileDescriptor }) else {
            throw CheckFailure("descriptor \(fileDescriptor) was not reported; events: \(found)")
        }
        return event
    }

    /// Fails if the descriptor is reported in the next few polls.
    func expectNoEvent(of fileDescriptor: CInt, _ why: String) throws {
        for _ in 0..<5 {
            for event in try poll(until: loop.now) where event.fileDescriptor == fileDescriptor {
                throw CheckFailure("\(why), but was reported: \(event)")
            }
        }
    }

    /// Polls until the deadline and returns the number of polls that returned earlier. A loop that never reaches the
    /// deadline fails.
    @discardableResult
    func countEarlyReturns(until deadline: LoopInstant) throws -> Int {
        var count = 0
        while true {
            _ = try poll(until: deadline)
            if loop.now >= deadline { return count }
            count += 1
            try expect(count < 1000, "a poll until \(deadline) returned too early 1,000 times")
        }
    }

    // MARK: Fork

    /// Runs the closure in a forked child; an error it throws fails the check in the parent.
    ///
    /// A child has one thread and a copy of all locks. `fork` resets those of the C library, but not those of the Swift
    /// runtime. If another thread of the process held one at that moment (another test, for example), the child may
    /// hang through no fault of the loop. So a child that hung is tried again; a loop that hangs will hang each time.
    ///
    /// - Parameter meanwhile: runs in the parent while the child runs.
    func inChild(_ body: () throws -> Void, meanwhile: () throws -> Void = {}) throws {
        for attempt in 1...3 {
            let (code, message) = try runChild(body, meanwhile)
            if code == 256 + SIGALRM && attempt < 3 { continue }
            try expect(code == 0, "in the child (status \(code)): \(message)")
            return
        }
    }

    /// Returns the error that the child threw, and its exit code: 256 plus the number of the signal if one killed it,
    /// and a negated errno if its end is unknown.
    private func runChild(
        _ body: () throws -> Void, _ meanwhile: () throws -> Void
    ) throws -> (code: CInt, message: String) {
        let report = try pipe()
        let child = gevent_fork()
        try expect(child >= 0, "fork failed: errno \(-child)")
        if child == 0 {
            killIfHanging(seconds: 3)
            var code: CInt = 0
            do {
                try body()
            } catch {  // control: a loop's check runs no greenlets
                var text = "\(error)"
                text.withUTF8 { _ = Glibc.write(report.writeEnd, $0.baseAddress, $0.count) }
                code = 1
            }
            // Buffers and exit handlers are left to the parent.
            _exit(code)
        }
        // A failure in the parent is thrown after the child has ended.
        let failure = Result { try meanwhile() }  // control: a loop's check runs no greenlets
        var status: CInt = 0
        var result: CInt
        repeat { result = waitpid(child, &status, 0) } while result < 0 && errno == EINTR
        let signal = status & 0x7f
        let code = result < 0 ? -errno : signal == 0 ? status >> 8 & 0xff : 256 + signal
        try failure.get()
        var text = [UInt8](repeating: 0, count: 4096)
        let count = read(report.readEnd, &text, text.count)
        close(report.readEnd)
        close(report.writeEnd)
        return (code, count > 0 ? String(decoding: text[..<count], as: UTF8.self) : "no message")
    }
}

/// Makes a hang of this child a failure in the parent, by SIGALRM. A test framework may have set a handler for the
/// signal, and the worker threads of libdispatch block it.
private func killIfHanging(seconds: CUnsignedInt) {
    signal(SIGALRM, SIG_DFL)
    var alarms = sigset_t()
    sigemptyset(&alarms)
    sigaddset(&alarms, SIGALRM)
    pthread_sigmask(SIG_UNBLOCK, &alarms, nil)
    alarm(seconds)
}

/// Writes one byte, on any thread. Returns the result of `write`.
@discardableResult
func writeByte(to fileDescriptor: CInt) -> Int {
    var byte: UInt8 = 7
    return write(fileDescriptor, &byte, 1)
}

/// Returns the real time, regardless of the loop's clock.
func realTime() -> Duration {
    .nanoseconds(gevent_monotonic_time())
}

/// Returns the processor time that this thread has used.
func processorTime() -> Duration {
    .nanoseconds(gevent_thread_processor_time())
}

/// Blocks a helper thread for a real duration.
func pause(milliseconds: UInt32) {
    usleep(milliseconds * 1000)
}
