internal import CGevent
internal import CGeventSystem
internal import GeventCore
internal import Synchronization

/// Turns what a hub does into events of Chrome's trace format, of which a viewer makes tracks.
///
/// A process of the viewer is a hub, numbered by its thread; a thread of the viewer is a greenlet, numbered through the
/// whole process and never again, so that the hubs of a process can share a file.
final class Trace: HubService, SwitchTrace {
    /// A line in the viewer.
    private final class Track {
        let number: Int
        /// What all its events contain.
        let fields: [UInt8]
        /// The greenlet's description as the file has it.
        var name: String
        let site: UnsafePointer<gevent_spawn_site>?
        /// Since when it does not run, and what it waits for.
        var left: (at: Int64, event: [UInt8])?

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
    /// Tracks whose name is not in the file: where a greenlet was spawned is found out on the hub's stack, which is
    /// large.
    private var unnamed: [Track] = []
    private var siteTexts: [UnsafePointer<gevent_spawn_site>: String] = [:]
    private var isOver = false
    /// Writing has failed, which the file has said.
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

    /// From here on, what runs now runs.
    func begin() {
        event(
            "M", polls, nil, nil, name: "process_name", arguments: [("name", "hub on \(loopName), thread \(process)")])
        unnamed.append(polls)
        let current = AnyGreenlet.current(of: hub)
        running = (track(of: current), Trace.key(current), gevent_monotonic_time())
        flush()
    }

    /// Writes what is known, and completes the file unless another hub writes to it.
    func end() {
        if isOver { return }
        isOver = true
        let now = gevent_monotonic_time()
        closeRun(now)
        for (_, track) in tracks { closeWait(of: track, now) }
        writeNames()
        flush()
        file.close()
    }

    /// Ends the trace, and stops watching the hub for it.
    func stop() {
        let hub = Hub.of(hub)
        hub.watchSwitches { $0.trace = nil }
        hub.removeService(self)
        end()
    }

    func hubWillClose() { stop() }

    /// The trace is the parent's. The child begins one of its own if the name of the file has the process's number.
    func hubDidFork() {
        let hub = Hub.of(hub)
        hub.watchSwitches { $0.trace = nil }
        hub.removeService(self)
        isOver = true
        buffer = []
        file.abandon()
        if !file.path.contains("%p") { return }
        do {
            try hub.startTrace(to: file.path)
        } catch {  // control: opening a file does not park, so no kill can arrive here
            printToStandardError("gevent: there is no trace of this child: \(error)\n")
        }
    }

    // MARK: What happens

    func switches(from origin: UnsafeMutablePointer<gevent_context>?, to target: AnyGreenlet, isOver: Bool) {
        let now = gevent_monotonic_time()
        if let (track, key, _) = running {
            closeRun(now)
            if isOver || origin == nil {
                if tracks[key] === track { tracks[key] = nil }
            } else if let origin, key != hubAddress {
                track.left = (now, Trace.waitEvent(origin))
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
        // The name may have been given meanwhile.
        let name = greenlet.description
        if name != track.name {
            track.name = name
            noteUnnamed(track)
        }
        closeRun(now)
        let how =
            switch (greenlet as? JoinableGreenlet)?.outcomeError {
            case nil: "end"
            case is any GreenletExitError: "exit"
            default: "failure"
            }
        event("i", track, now, nil, name: how, category: "life")
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
        // Whatever stops a program, it stops while it sleeps: the file says how it came to that.
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
        // Bounded by what a program does between two polls, which is bounded, and by this.
        if unnamed.count >= 4096 { writeNames() }
    }

    private func writeNames() {
        for track in unnamed {
            let place = track.site.map { text(of: $0) } ?? ""
            let name = place.isEmpty ? track.name : "\(track.name), \(place)"
            event("M", track, nil, nil, name: "thread_name", arguments: [("name", name)])
        }
        unnamed.removeAll(keepingCapacity: true)
    }

    /// "spawned at" and the first frame that is not the library's; empty without one.
    private func text(of site: UnsafePointer<gevent_spawn_site>) -> String {
        if let known = siteTexts[site] { return known }
        let place = SpawnLocation(site) { _ in }
        let text = place.frames.first.map { "\(place.phrase) \($0)" } ?? ""
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
        guard let (at, name) = track.left else { return }
        track.left = nil
        slice(track, at, now, name)
    }

    /// What a context that leaves waits for, as part of an event. Worked out now: later its object may be gone.
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

    /// The same, of bytes that are there already: this happens twice a switch.
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

    /// Microseconds with three digits behind the point.
    private func appendTime(_ field: StaticString, _ nanoseconds: Int64) {
        append(field)
        var (rest, last) = UInt64(max(nanoseconds, 0)).quotientAndRemainder(dividingBy: 10)
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 24) { digits in
            // From the last digit to the first, with the point before the last three.
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

    /// As a string of JSON.
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
