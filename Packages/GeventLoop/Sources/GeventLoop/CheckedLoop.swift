internal import CGeventSystem
internal import Glibc

/// A wrapper that enforces line 9 of the contract in release builds too, and logs each call.
///
/// Use on another thread, after ``close()``, or in a forked child before ``recoverAfterFork()`` ends the program with a
/// message that names the call. The ``waker`` is that of the base loop and is exempt. `GEVENT_DEBUG_LOOP=1` wraps the
/// loop of every hub.
///
/// The log contains changes of interest, polls, fork recovery and closing, with the loop's time and the thread. Reading
/// the clock is only checked, because logging it would drown the other lines.
public final class CheckedLoop<Base: Loop>: Loop {
    /// The wrapped loop's name. The wrapper is not a separate kind of loop.
    public static var backendName: String { Base.backendName }

    /// The wrapped loop.
    public let base: Base

    private let log: (String) -> Void
    private let owner = pthread_self()
    private var process = getpid()
    private var isClosed = false

    /// Creates a wrapper around a loop, which must not be used directly from then on.
    ///
    /// - Parameters:
    ///   - base: a loop that belongs to the calling thread.
    ///   - log: receives one line without its newline, on the loop's thread; if nil, lines are written to standard
    ///     error.
    public init(_ base: Base, log: ((String) -> Void)? = nil) {
        self.base = base
        self.log = log ?? writeToStandardError
    }

    public var now: LoopInstant {
        check("now")
        return base.now
    }

    public var timerResolution: Duration {
        check("timerResolution")
        return base.timerResolution
    }

    public var hasVirtualTime: Bool { base.hasVirtualTime }

    public func setInterest(
        _ interest: Readiness, for fileDescriptor: CInt, generation: UInt32
    ) throws(LoopError) {
        let call = "setInterest(\(interest), for: \(fileDescriptor), generation: \(generation))"
        check(call)
        do {
            try base.setInterest(interest, for: fileDescriptor, generation: generation)
            report(call)
        } catch {
            report("\(call) threw \(error)")
            throw error
        }
    }

    public func poll(until deadline: LoopInstant?, into events: inout ReadyEvents) throws(LoopError) {
        let call = "poll(until: \(deadline.map { "\($0)" } ?? "nil"))"
        check(call)
        let before = events.count
        do {
            try base.poll(until: deadline, into: &events)
        } catch {
            report("\(call) threw \(error)")
            throw error
        }
        if events.count < before {
            stop("\(call) removed events from the batch; it may only append")
        }
        report("\(call) appended \(describe(events, from: before))")
    }

    public var waker: any LoopWaker { base.waker }

    public func recoverAfterFork() throws(LoopError) {
        process = getpid()
        check("recoverAfterFork()")
        do {
            try base.recoverAfterFork()
            report("recoverAfterFork()")
        } catch {
            report("recoverAfterFork() threw \(error)")
            throw error
        }
    }

    public func close() {
        let call = "close()"
        checkThread(call)
        if isClosed {
            writeLog(nil, "close() again")
            return
        }
        report(call)
        isClosed = true
        base.close()
    }

    public var features: [String: String] {
        check("features")
        return base.features.merging(["checked": "yes"]) { old, _ in old }
    }

    // MARK: Checks

    private func check(_ call: String) {
        checkThread(call)
        if isClosed { stop("\(call) was called after close()") }
        if process != getpid() {
            stop("\(call) was called in a forked child before recoverAfterFork()")
        }
    }

    private func checkThread(_ call: String) {
        if pthread_equal(owner, pthread_self()) == 0 {
            stop("\(call) was called on another thread; only the waker may be used there")
        }
    }

    private func stop(_ message: String) -> Never {
        fatalError("\(Self.backendName) loop: \(message)")
    }

    // MARK: Log

    private func report(_ call: String) {
        writeLog(base.now, call)
    }

    private func writeLog(_ time: LoopInstant?, _ text: String) {
        log("[\(time.map { "\($0)" } ?? "closed")] \(Self.backendName) thread \(gevent_thread_number()): \(text)")
    }

    private func describe(_ events: borrowing ReadyEvents, from start: Int) -> String {
        if events.count == start { return "nothing" }
        var text: [String] = []
        for index in start..<min(events.count, start + 8) {
            let event = events[index]
            text.append("\(event.fileDescriptor) (generation \(event.generation)) \(event.readiness)")
        }
        let hidden = events.count - start - text.count
        return text.joined(separator: ", ") + (hidden > 0 ? " and \(hidden) more" : "")
    }
}

@available(*, unavailable)
extension CheckedLoop: Sendable {}

/// Writes the line with one system call, so that lines of several threads do not mix.
private func writeToStandardError(_ line: String) {
    var text = line + "\n"
    text.withUTF8 { bytes in
        // A line that cannot be written is lost; there is no channel left to report that.
        _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count)
    }
}
