internal import CGevent
internal import GeventCore

/// What kept a hub's thread busy for too long.
public struct BlockingReport: Sendable, Hashable, CustomStringConvertible {
    /// Who ran.
    public enum Culprit: String, Sendable, Hashable {
        /// A greenlet that was started.
        case greenlet
        /// The thread's own stack.
        case main
        /// The hub: a callback, a raw link, a posted job, or what is left of a greenlet that has ended.
        case hub
    }

    /// Who ran.
    public let culprit: Culprit
    /// Its kind and name, as in ``AnyGreenlet/description``; an override of that is not called, and a name is cut after
    /// 47 bytes.
    public let greenlet: String
    /// For how long at least it has run without a switch.
    public let duration: Duration
    /// Where it is, innermost first, one call a line. A call marked with a question mark was found on the stack without
    /// a frame record that leads to it, and may be a remnant of an earlier one. Empty if the thread runs and
    /// holds back the signal by which it is asked.
    public let backtrace: [String]
    /// The lock that the thread waits for and holds itself; nil if it waits for none, or if that is not known.
    public let deadlock: Deadlock?

    /// A lock that one greenlet has taken and keeps while it is suspended, and for which another greenlet of the same
    /// thread blocks. The first never runs again, so the second never gets the lock.
    ///
    /// Most often the lock is invisible: Swift initializes a global, or a static property, when it is first used, and
    /// has other users wait until that is done. An initializer that parks lets other greenlets of its thread run into
    /// that wait.
    public struct Deadlock: Sendable, Hashable {
        /// The initializer that is not done, with file and line; nil if it is another kind of lock.
        public let initializer: String?
        /// The greenlets that may have taken the lock, described like ``BlockingReport/greenlet``: the very one if it
        /// is in an initializer, else up to eight whose stacks refer to the lock.
        public let holders: [String]
        /// Where the one in the initializer is suspended, innermost first, one call a line; empty for other locks.
        public let backtrace: [String]
    }

    /// Several lines, as they are printed.
    public var description: String {
        let who =
            switch culprit {
            case .greenlet: greenlet
            case .main: "the main greenlet, \(greenlet),"
            case .hub: "a callback of the hub, \(greenlet),"
            }
        let milliseconds = Duration.milliseconds(Int64(duration / .milliseconds(1)))
        let text = "\(who) has run for \(decimalSeconds(milliseconds)) s without a switch; all others wait for it"
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
        var frames = [UnsafeMutableRawPointer?](repeating: nil, count: Int(GEVENT_OWN_LOCK_FRAMES))
        var identities = [gevent_identity](repeating: gevent_identity(), count: Int(GEVENT_OWN_LOCK_HOLDERS))
        var lock = gevent_own_lock()
        let isFound = frames.withUnsafeMutableBufferPointer { frames in
            identities.withUnsafeMutableBufferPointer { identities in
                lock.frames = frames.baseAddress
                lock.holders = identities.baseAddress
                return gevent_find_own_lock(hub, sample, &lock)
            }
        }
        if !isFound { return nil }
        holders = identities.prefix(lock.holder_count).map(BlockingReport.describe)
        guard lock.initializer >= 0, let address = frames[Int(lock.initializer)] else {
            initializer = nil
            backtrace = []
            return
        }
        initializer = places(of: address).last.map { place in
            place.origin == .unnamed ? "the one-time initialization function at \(place.text)" : place.text
        }
        backtrace = Self.lines(frames.prefix(Int(lock.initializer) + 1))
    }

    /// What the program called, up to the initializer. Innermost are the switch and what led to it.
    private static func lines(_ frames: ArraySlice<UnsafeMutableRawPointer?>) -> [String] {
        var lines: [String] = []
        var isInSwitch = true
        for case let frame? in frames {
            for place in places(of: frame) {
                if place.origin == .library { isInSwitch = false }
                let isShown = place.origin == .program || place.origin == .standardLibrary
                if isShown && !isInSwitch { lines.append(place.text) }
            }
        }
        // In a program without symbols nothing tells the library's frames from others.
        return lines.isEmpty ? frames.compactMap { $0 }.flatMap { places(of: $0) }.map(\.text) : lines
    }
}

extension BlockingReport {
    init(_ sample: OpaquePointer, of hub: UnsafeMutablePointer<gevent_hub>, duration: Duration) {
        let who = gevent_sample_identity(sample).pointee
        culprit =
            switch Int(who.kind) {
            case GEVENT_SAMPLE_OF_MAIN: .main
            case GEVENT_SAMPLE_OF_HUB: .hub
            default: .greenlet
            }
        greenlet = BlockingReport.describe(who)
        self.duration = duration
        backtrace = BlockingReport.lines(sample)
        deadlock = Deadlock(sample, of: hub)
    }

    fileprivate static func describe(_ who: gevent_identity) -> String {
        if who.kind == GEVENT_SAMPLE_OF_HUB { return "<HubGreenlet>" }
        let text = withUnsafeBytes(of: who.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let name = String(text.map(\.shown))
        if who.kind == GEVENT_SAMPLE_OF_MAIN { return name.isEmpty ? "<MainGreenlet>" : "<MainGreenlet \"\(name)\">" }
        var type = "greenlet"
        if let isa = who.isa {
            // The first word of a native object is its class's metadata, which is never freed.
            type = "\(unsafeBitCast(isa, to: AnyObject.Type.self))"
        }
        if !name.isEmpty { return "<\(type) \"\(name)\">" }
        return "<\(type) at 0x\(String(UInt(bitPattern: who.owner), radix: 16))>"
    }

    private static func lines(_ sample: OpaquePointer) -> [String] {
        let most = 64
        let frames = [gevent_frame](unsafeUninitializedCapacity: most) { buffer, count in
            count = gevent_sample_backtrace(sample, buffer.baseAddress, most)
        }
        var lines: [String] = []
        // What a greenlet was started by says nothing; the library's own calls do if somebody called them.
        var countWithoutStart = 0
        for frame in frames {
            guard let address = frame.address else { continue }
            for place in places(of: address) {
                lines.append(frame.is_guess ? "\(place.text) (?)" : place.text)
                if place.origin != .library { countWithoutStart = lines.count }
            }
        }
        return countWithoutStart == 0 ? lines : Array(lines.prefix(countWithoutStart))
    }
}
