internal import CGevent
internal import CGeventSystem
internal import GeventCore
internal import Synchronization

/// A trace of one hub: records switches, waits and polls as events of Chrome's trace format.
///
/// A hub is a process in the viewer, with its thread's ID as `pid`. A greenlet is a thread in the viewer. Its `tid` is
/// unique in the process and never reused, so several hubs can share a file.
final class Trace: HubService, SwitchTrace {
    /// One track in the viewer.
    private final class Track {
        let number: Int
        /// The `pid` and `tid` fields, which all its events contain.
        let fields: [UInt8]
        /// The greenlet's description, as last queued for the file.
        var name: String
        let site: UnsafePointer<gevent_spawn_site>?
        /// When the greenlet was suspended, and the name of its wait event; nil if no wait is open.
        var suspension: (at: Int64, event: [UInt8])?

        init(_ number: Int, process: Int, name: String, site: UnsafePointer<gevent_spawn_site>?) {
            self.number = number
            fields = Array(",\"pid\":\(process),\"tid\":\(number)".utf8)
            self.name = name
            self.site = site
        }
    }

    private static let lastNumber = Atomic<Int>(0)

    let file: TraceFile
    private let hub: UnsafeMutablePointer<gevent_hub>
    private let loopName: String
    private let process = Int(gevent_thread_number())
    private let hubAddress: UnsafeRawPointer
    private var tracks: [UnsafeRawPointer: Track] = [:]
    private let polls: Track
    private var running: (track: Track, key: UnsafeRawPointer, since: Int64)?
    private var poll: (since: Int64, maySleep: Bool)?

    private var buffer: [UInt8] = []
    private static let bufferSize = 64 << 10
    /// Tracks whose name is not in the file yet. Spawn sites are symbolicated on the hub's stack, because that takes a
    /// lot of stack.
    private var unnamed: [Track] = []
    private var siteTexts: [UnsafePointer<gevent_spawn_site>: String] = [:]
    private var hasEnded = false
    /// Whether a write has failed. The file has reported it.
    private var isBroken = false

    init(of hub: Hub, to file: TraceFile) {
        self.file = file
        self.hub = hub.pointer
        loopName = hub.loopName
        hubAddress = UnsafeRawPointer(Unmanaged.passUnretained(hub.hubGreenlet).toOpaque())
        polls = Track(Trace.takeNumber(), process: process, name: "polls of \(hub.loopName)", site: nil)
        buffer.reserveCapacity(Trace.bufferSize + 4096)
    }

    private static func takeNumber() -> Int { lastNumber.add(1, ordering: .relaxed).newValue }

    // MARK: The beginning and the end

    /// Starts recording, with the current greenlet as the running one.
    func begin() {
        event(
            "M", polls, nil, nil, name: "process_name", arguments: [("name", "hub on \(loopName), thread \(process)")])
        unnamed.append(polls)
        let current = AnyGreenlet.current(of: hub)
        running = (track(of: current), Trace.key(current), gevent_monotonic_time())
        flush()
    }

    /// Writes all buffered events, and completes the file unless another hub writes to it.
    func end() {
        if hasEnded { return }
        hasEnded = true
        let now = gevent_monotonic_time()
        closeRun(now)
        for (_, track) in tracks { closeWait(of: track, now) }
        writeNames()
        flush()
        file.close()
    }

    /// Ends the trace and removes it from the hub.
    func stop() {
        let hub = Hub.of(hub)
        hub.watchSwitches { $0.trace = nil }
        hub.removeService(self)
        end()
    }

    func hubWillClose() { stop() }

    /// Abandons the parent's trace. The child starts its own if the path contains `%p`.
    func hubDidFork() {
        let hub = Hub.of(hub)
        hub.watchSwitches { $0.trace = nil }
        hub.removeService(self)
        hasEnded = true
        buffer = []
        file.abandon()
        if !file.path.contains("%p") { return }
        do {
            try hub.startTrace(to: file.path)
        } catch {  // control: opening a file does not park, so no kill can arrive here
            printToStandardError("gevent: cannot start the trace of this child: \(error)\n")
        }
    }

    // MARK: Events of the hub

    func switches(from origin: UnsafeMutablePointer<gevent_context>?, to target: AnyGreenlet, isOver: Bool) {
        let now = gevent_monotonic_time()
        if let (track, key, _) = running {
            closeRun(now)
            if isOver || origin == nil {
                if tracks[key] === track { tracks[key] = nil }
            } else if let origin, key != hubAddress {
                track.suspension = (now, Trace.waitEvent(origin))
            }
        }
        let track = track(of: target)
        closeWait(of: track, now)
        running = (track, Trace.key(target), now)
        if buffer.count >= Trace.bufferSize { flush() }
    }

    func begins(_ greenlet: AnyGreenlet) {
        event("i", track(of: greenlet), gevent_monotonic_time(), nil, name: "begin", category: "life")
    }

    func ended(_ greenlet: AnyGreenlet) {
        let now = gevent_monotonic_time()
        let key = Trace.key(greenlet)
        let track = track(of: greenlet)
        // The greenlet may have been named after its track was created.
        let name = greenlet.description
        if name != track.name {
            track.name = name
            noteUnnamed(track)
        }
        closeRun(now)
        let outcome =
            switch (greenlet as? JoinableGreenlet)?.outcomeError {
            case nil: "end"
            case is any GreenletExitError: "exit"
            default: "failure"
            }
        event("i", track, now, nil, name: outcome, category: "life")
        tracks[key] = nil
    }

    func spawned(_ greenlet: AnyGreenlet) {
        guard let running else { return }
        let arguments = [("greenlet", greenlet.description)]
        event("i", running.track, gevent_monotonic_time(), nil, name: "spawn", category: "life", arguments: arguments)
    }

    func delivered(_ error: any Error, to greenlet: AnyGreenlet) {
        let name = isExit(error) ? "kill" : error is Timeout ? "timeout" : "throw"
        let arguments = [("error", "\(type(of: error)): \(error)")]
        event(
            "i", track(of: greenlet), gevent_monotonic_time(), nil, name: name, category: "error", arguments: arguments)
    }

    func pollBegins(maySleep: Bool) {
        writeNames()
        // A stuck program usually sleeps in a poll, so the file must contain the events that led there.
        if maySleep || buffer.count >= Trace.bufferSize { flush() }
        poll = (gevent_monotonic_time(), maySleep)
        if isBroken { stop() }
    }

    func pollEnded() {
        guard let (since, maySleep) = poll else { return }
        poll = nil
        event("X", polls, since, gevent_monotonic_time(), name: maySleep ? "poll" : "look", category: "poll")
    }

    // MARK: Tracks

    private static func key(_ greenlet: AnyGreenlet) -> UnsafeRawPointer {
        UnsafeRawPointer(Unmanaged.passUnretained(greenlet).toOpaque())
    }

    private func track(of greenlet: AnyGreenlet) -> Track {
        let key = Trace.key(greenlet)
        if let known = tracks[key] { return known }
        let made = Track(
            Trace.takeNumber(), process: process, name: greenlet.description, site: greenlet.spawnSite)
        tracks[key] = made
        noteUnnamed(made)
        return made
    }

    private func noteUnnamed(_ track: Track) {
        unnamed.append(track)
        // The list grows between two polls; this bounds it.
        if unnamed.count >= 4096 { writeNames() }
    }

    private func writeNames() {
        for track in unnamed {
            let site = track.site.map { text(of: $0) } ?? ""
            let name = site.isEmpty ? track.name : "\(track.name), \(site)"
            event("M", track, nil, nil, name: "thread_name", arguments: [("name", name)])
        }
        unnamed.removeAll(keepingCapacity: true)
    }

    /// Returns "spawned at" and the first frame outside the library; empty if there is none.
    private func text(of site: UnsafePointer<gevent_spawn_site>) -> String {
        if let known = siteTexts[site] { return known }
        let location = SpawnLocation(site) { _ in }
        let text = location.frames.first.map { "\(location.phrase) \($0)" } ?? ""
        siteTexts[site] = text
        return text
    }

    // MARK: Slices

    private func closeRun(_ now: Int64) {
        guard let (track, _, since) = running else { return }
        running = nil
        slice(track, since, now, Trace.runEvent)
    }

    private func closeWait(of track: Track, _ now: Int64) {
        guard let (since, event) = track.suspension else { return }
        track.suspension = nil
        slice(track, since, now, event)
    }

    /// Returns the name and category of a suspended context's wait event. Called at the switch, because the object it
    /// waits for may be released later.
    private static func waitEvent(_ context: UnsafeMutablePointer<gevent_context>) -> [UInt8] {
        if context.pointee.wait_state != UInt8(GEVENT_WAIT_PARKED) { return readyEvent }
        var bytes: [UInt8] = []
        append(waitPhrase(context), to: &bytes)
        bytes += ",\"cat\":\"wait\",\"cname\":\"thread_state_sleeping\"".utf8
        return bytes
    }

    private static let runEvent = Array("\"run\",\"cat\":\"run\",\"cname\":\"thread_state_running\"".utf8)
    private static let readyEvent = Array("\"ready\",\"cat\":\"ready\",\"cname\":\"thread_state_runnable\"".utf8)

    // MARK: Events

    private func event(
        _ phase: StaticString, _ track: Track, _ from: Int64?, _ to: Int64?, name: String, category: String? = nil,
        arguments: [(name: String, value: String)] = []
    ) {
        buffer += ",\n{\"ph\":\"\(phase)\"".utf8
        buffer += track.fields
        if let from { appendTime(",\"ts\":", from) }
        if let from, let to { appendTime(",\"dur\":", to - from) }
        if to == nil && from != nil { buffer += ",\"s\":\"t\"".utf8 }
        buffer += ",\"name\":".utf8
        Trace.append(name, to: &buffer)
        if let category { buffer += ",\"cat\":\"\(category)\"".utf8 }
        if !arguments.isEmpty {
            buffer += ",\"args\":{".utf8
            for (index, argument) in arguments.enumerated() {
                if index > 0 { buffer.append(UInt8(ascii: ",")) }
                Trace.append(argument.name, to: &buffer)
                buffer.append(UInt8(ascii: ":"))
                Trace.append(argument.value, to: &buffer)
            }
            buffer.append(UInt8(ascii: "}"))
        }
        buffer.append(UInt8(ascii: "}"))
    }

    /// Appends a complete event whose name is encoded already. This is the fast path, used twice per switch.
    private func slice(_ track: Track, _ from: Int64, _ to: Int64, _ name: [UInt8]) {
        append(",\n{\"ph\":\"X\"")
        buffer += track.fields
        appendTime(",\"ts\":", from)
        appendTime(",\"dur\":", to - from)
        append(",\"name\":")
        buffer += name
        append("}")
    }

    private func append(_ text: StaticString) {
        buffer += UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
    }

    /// Appends a time in microseconds with three decimal places.
    private func appendTime(_ field: StaticString, _ nanoseconds: Int64) {
        append(field)
        var (rest, last) = UInt64(max(nanoseconds, 0)).quotientAndRemainder(dividingBy: 10)
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 24) { digits in
            // Fills the digits from last to first, with the decimal point before the last three.
            var first = digits.count
            repeat {
                first -= 1
                digits[first] = UInt8(ascii: "0") + UInt8(last)
                if first == digits.count - 3 {
                    first -= 1
                    digits[first] = UInt8(ascii: ".")
                }
                (rest, last) = rest.quotientAndRemainder(dividingBy: 10)
            } while first > digits.count - 5 || rest > 0 || last > 0
            buffer += UnsafeBufferPointer(rebasing: digits[first...])
        }
    }

    /// Appends `text` as a JSON string.
    private static func append(_ text: String, to bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                bytes.append(UInt8(ascii: "\\"))
                bytes.append(byte)
            case 0..<0x20:
                let digits = Array("0123456789abcdef".utf8)
                bytes += "\\u00".utf8
                bytes.append(digits[Int(byte >> 4)])
                bytes.append(digits[Int(byte & 15)])
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private func flush() {
        if !buffer.isEmpty && !file.write(buffer) { isBroken = true }
        buffer.removeAll(keepingCapacity: true)
    }
}
