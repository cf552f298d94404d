// What people read: reports of errors nobody caught, and the names of places.

internal import CGevent
internal import Glibc

extension Hub {
    /// Queues the report of an error that ended `greenlet`: handlers run on the hub, whose stack is large.
    func reportLater(_ error: any Error, in greenlet: AnyGreenlet) {
        enqueue { self.report(error, in: greenlet) }
    }

    /// Tells the error handler. On the hub's stack.
    func report(_ error: any Error, in greenlet: AnyGreenlet?) {
        if isQuiet(error) { return }
        guard let errorHandler else {
            printReport(of: error, in: greenlet)
            return
        }
        do {
            try errorHandler(error, greenlet)
        } catch let failure {  // control: handlers run on the hub, into which nothing can be thrown
            printReport(of: error, in: greenlet)
            printReport(of: failure, in: nil, source: "the error handler")
        }
    }

    private func printReport(of error: any Error, in greenlet: AnyGreenlet?, source: String = "a hub callback") {
        guard let errorOutput else { return }
        var text = "gevent: \(greenlet.map(\.description) ?? source) failed with \(type(of: error)): \(error)\n"
        if let site = greenlet?.readableSpawnSite { text += spawnLines(site) }
        errorOutput(text)
    }

    private func spawnLines(_ site: UnsafePointer<gevent_spawn_site>) -> String {
        let frames = symbolicated(site)
        return frames.isEmpty ? "" : frames.map { "    spawned at \($0)\n" }.joined()
    }
}

/// The frames of a spawn site by name, without the library's own.
func symbolicated(_ site: UnsafePointer<gevent_spawn_site>) -> [String] {
    symbolicated(SpawningStack.Level(site).addresses)
}

func symbolicated(_ addresses: [UInt]) -> [String] {
    var frames: [String] = []
    for address in addresses {
        guard let pointer = UnsafeRawPointer(bitPattern: address) else { continue }
        let frame = symbolicated(pointer)
        if frame.isOwn { continue }
        // Beyond the program's own functions there is what called main, without a name.
        if !frame.isNamed && !frames.isEmpty { continue }
        frames.append(frame.text)
    }
    return frames
}

/// The call before `address`: by name if a symbol covers it, and whether it is the library's own.
func symbolicated(_ address: UnsafeRawPointer) -> (text: String, isOwn: Bool, isNamed: Bool) {
    var buffer = [CChar](repeating: 0, count: 1024)
    let symbol = gevent_symbolize(address, &buffer, buffer.count)
    let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return (text, symbol.map { isOwnSymbol(String(cString: $0)) } ?? false, symbol != nil)
}

/// By the symbol as the compiler made it, which begins with the module. The readable form will not do: in that, the
/// closure of a caller who was given a `Gevent.Hub` mentions the module as well.
private func isOwnSymbol(_ symbol: String) -> Bool {
    // The two are where the stacks of greenlets and of the hub begin.
    symbol.hasPrefix("$s6Gevent") || symbol.hasPrefix("gevent_") || symbol == "greenlet_entry" || symbol == "root_entry"
}

func printToStandardError(_ text: String) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let written = rest.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
        if written < 0 && errno == EINTR { continue }
        if written <= 0 { return }
        rest = rest.dropFirst(written)
    }
}
