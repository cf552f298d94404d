internal import CGevent

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
        return backtrace.reduce(text) { "\($0)\n    at \($1)" }
    }
}

extension BlockingReport {
    init(_ sample: UnsafePointer<gevent_sample>, duration: Duration) {
        culprit =
            switch Int(sample.pointee.kind) {
            case GEVENT_SAMPLE_OF_MAIN: .main
            case GEVENT_SAMPLE_OF_HUB: .hub
            default: .greenlet
            }
        greenlet = BlockingReport.describe(sample, culprit)
        self.duration = duration
        backtrace = BlockingReport.lines(sample)
    }

    private static func describe(_ sample: UnsafePointer<gevent_sample>, _ culprit: Culprit) -> String {
        if culprit == .hub { return "<HubGreenlet>" }
        let name = withUnsafeBytes(of: sample.pointee.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        if culprit == .main { return name.isEmpty ? "<MainGreenlet>" : "<MainGreenlet \"\(name)\">" }
        var type = "greenlet"
        if let isa = sample.pointee.isa {
            // The first word of a native object is its class's metadata, which is never freed.
            type = "\(unsafeBitCast(isa, to: AnyObject.Type.self))"
        }
        if !name.isEmpty { return "<\(type) \"\(name)\">" }
        return "<\(type) at 0x\(String(UInt(bitPattern: sample.pointee.owner), radix: 16))>"
    }

    private static func lines(_ sample: UnsafePointer<gevent_sample>) -> [String] {
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
