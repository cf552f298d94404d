internal import CGevent
internal import GeventCore

/// A report that a hub's thread has run for too long without a switch.
public struct BlockingReport: Sendable, Hashable, CustomStringConvertible {
    /// The kind of code that blocks the thread.
    public enum Culprit: String, Sendable, Hashable {
        /// A greenlet other than main.
        case greenlet
        /// The main greenlet, on the thread's own stack.
        case main
        /// The hub: a callback, a raw link, a posted job, or the cleanup of a greenlet that has ended.
        case hub
    }

    /// The kind of code that blocks the thread.
    public let culprit: Culprit
    /// The kind and name of the greenlet, formatted like ``AnyGreenlet/description``. An override of `description` is
    /// not called, and a name is truncated to 47 bytes.
    public let greenlet: String
    /// The minimum time that it has run without a switch.
    public let duration: Duration
    /// The call stack, innermost first, one call per element. A question mark marks a call that was found on the stack
    /// but not through frame records, and that may be stale. Empty if the thread is running and blocks the sampling
    /// signal.
    public let backtrace: [String]
    /// The lock that the thread both holds and waits for; nil if there is none, or if that is unknown.
    public let deadlock: Deadlock?

    /// A deadlock of a thread with itself: one greenlet holds a lock while it is suspended, and another greenlet of the
    /// same thread blocks on that lock. The blocked thread can never resume the first greenlet, so the lock is never
    /// released.
    ///
    /// The most common lock is invisible: Swift initializes a global or static variable at first use, and other users
    /// wait until the initializer returns. If an initializer parks, another greenlet of its thread can enter that wait.
    public struct Deadlock: Sendable, Hashable {
        /// The initializer that has not returned, with file and line; nil if it is another kind of lock.
        public let initializer: String?
        /// The possible holders of the lock, formatted like ``BlockingReport/greenlet``: exactly one for an
        /// initializer, otherwise up to eight greenlets whose stacks contain the lock's address.
        public let holders: [String]
        /// The stack of the greenlet in the initializer, innermost first, one call per element; empty for other locks.
        public let backtrace: [String]
    }

    /// The report as it is printed, in several lines.
    public var description: String {
        let subject =
            switch culprit {
            case .greenlet: greenlet
            case .main: "the main greenlet, \(greenlet),"
            case .hub: "a callback of the hub, \(greenlet),"
            }
        let milliseconds = Duration.milliseconds(Int64(duration / .milliseconds(1)))
        let text = "\(subject) has run for \(decimalSeconds(milliseconds)) s without a switch; all others wait for it"
        return backtrace.reduce(text) { "\($0)\n    at \($1)" } + (deadlock.map { "\n\($0.text)" } ?? "")
    }
}

extension BlockingReport.Deadlock {
    fileprivate var text: String {
        let names = holders.joined(separator: ", ")
        guard let initializer else {
            let text = "It waits for a lock that this thread itself holds, so for ever."
            return holders.isEmpty ? text : "\(text) Suspended with that lock in use: \(names)."
        }
        let text =
            "It waits for \(initializer).\n\(names) is suspended in that, on this very thread, so both wait for ever."
        return backtrace.reduce(text) { "\($0)\n    suspended at \($1)" }
    }

    fileprivate init?(_ sample: OpaquePointer, of hub: UnsafeMutablePointer<gevent_hub>) {
        var frames = [UnsafeMutableRawPointer?](repeating: nil, count: Int(GEVENT_SELF_DEADLOCK_FRAMES))
        var identities = [gevent_identity](repeating: gevent_identity(), count: Int(GEVENT_SELF_DEADLOCK_HOLDERS))
        var deadlock = gevent_self_deadlock()
        let isFound = frames.withUnsafeMutableBufferPointer { frames in
            identities.withUnsafeMutableBufferPointer { identities in
                deadlock.frames = frames.baseAddress
                deadlock.holders = identities.baseAddress
                return gevent_find_self_deadlock(hub, sample, &deadlock)
            }
        }
        if !isFound { return nil }
        holders = identities.prefix(deadlock.holder_count).map(BlockingReport.describe)
        guard deadlock.initializer >= 0, let address = frames[Int(deadlock.initializer)] else {
            initializer = nil
            backtrace = []
            return
        }
        initializer = symbolicatedFrames(at: address).last.map { frame in
            frame.origin == .unnamed ? "the one-time initialization function at \(frame.text)" : frame.text
        }
        backtrace = Self.lines(frames.prefix(Int(deadlock.initializer) + 1))
    }

    /// Returns the program's frames up to the initializer. Skips the switch and the library's frames, which are
    /// innermost.
    private static func lines(_ addresses: ArraySlice<UnsafeMutableRawPointer?>) -> [String] {
        var lines: [String] = []
        var isInSwitch = true
        for case let address? in addresses {
            for frame in symbolicatedFrames(at: address) {
                if frame.origin == .library { isInSwitch = false }
                let isShown = frame.origin == .program || frame.origin == .standardLibrary
                if isShown && !isInSwitch { lines.append(frame.text) }
            }
        }
        // In a program without symbols the library's frames cannot be recognized, so all frames are shown.
        if !lines.isEmpty { return lines }
        return addresses.compactMap { $0 }.flatMap { symbolicatedFrames(at: $0) }.map(\.text)
    }
}

extension BlockingReport {
    init(_ sample: OpaquePointer, of hub: UnsafeMutablePointer<gevent_hub>, duration: Duration) {
        let identity = gevent_sample_identity(sample).pointee
        culprit =
            switch Int(identity.kind) {
            case GEVENT_SAMPLE_OF_MAIN: .main
            case GEVENT_SAMPLE_OF_HUB: .hub
            default: .greenlet
            }
        greenlet = BlockingReport.describe(identity)
        self.duration = duration
        backtrace = BlockingReport.lines(sample)
        deadlock = Deadlock(sample, of: hub)
    }

    fileprivate static func describe(_ identity: gevent_identity) -> String {
        if identity.kind == GEVENT_SAMPLE_OF_HUB { return "<HubGreenlet>" }
        let text = withUnsafeBytes(of: identity.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let name = String(text.map(\.shown))
        if identity.kind == GEVENT_SAMPLE_OF_MAIN {
            return name.isEmpty ? "<MainGreenlet>" : "<MainGreenlet \"\(name)\">"
        }
        var type = "greenlet"
        if let isa = identity.isa {
            // The first word of a Swift object points to its class metadata, which is never deallocated.
            type = "\(unsafeBitCast(isa, to: AnyObject.Type.self))"
        }
        if !name.isEmpty { return "<\(type) \"\(name)\">" }
        return "<\(type) at 0x\(String(UInt(bitPattern: identity.owner), radix: 16))>"
    }

    private static func lines(_ sample: OpaquePointer) -> [String] {
        let most = 64
        let frames = [gevent_frame](unsafeUninitializedCapacity: most) { buffer, count in
            count = gevent_sample_backtrace(sample, buffer.baseAddress, most)
        }
        var lines: [String] = []
        // Drops the outermost library frames, which only start the greenlet. Library calls made by the program are
        // kept.
        var countWithoutStart = 0
        for sampled in frames {
            guard let address = sampled.address else { continue }
            for frame in symbolicatedFrames(at: address) {
                lines.append(sampled.is_guess ? "\(frame.text) (?)" : frame.text)
                if frame.origin != .library { countWithoutStart = lines.count }
            }
        }
        return countWithoutStart == 0 ? lines : Array(lines.prefix(countWithoutStart))
    }
}
