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
    for case let address? in addresses.map({ UnsafeRawPointer(bitPattern: $0) }) {
        for place in places(of: address) {
            switch place.origin {
            case .library, .thunk: continue
            // Beyond the program's own functions there is what called main, without a name.
            case .unnamed where !frames.isEmpty: continue
            case .program, .standardLibrary, .unnamed: frames.append(place.text)
            }
        }
    }
    return frames
}

/// A function, as it is shown to people.
struct Place {
    /// By name, with the line or how far into it.
    let text: String
    let origin: Origin

    enum Origin {
        case program
        /// This library.
        case library
        /// Of the standard library's, for example a copy that was made for these very types.
        case standardLibrary
        /// What the compiler puts between a caller and a closure.
        case thunk
        /// No symbol covers it.
        case unnamed

        /// By the symbol as the compiler made it, which begins with the module. The readable form will not do: in that,
        /// the closure of a caller who was given a `Gevent.Hub` mentions the module as well.
        fileprivate init(symbol: String?) {
            guard let symbol else {
                self = .unnamed
                return
            }
            if symbol.hasPrefix("$s6Gevent") || symbol.hasPrefix("gevent_") || Self.bottoms.contains(symbol) {
                self = .library
            } else if symbol.hasPrefix("$s") && (symbol.hasSuffix("TA") || symbol.hasSuffix("TR")) {
                self = .thunk
            } else if symbol.hasPrefix("$ss") || symbol.hasPrefix("$sS") {
                // The module has a letter of its own, and so have its commonest types.
                self = .standardLibrary
            } else {
                self = .program
            }
        }

        /// Where the stacks of greenlets and of the hub begin.
        private static let bottoms: Set = ["greenlet_entry", "root_entry"]
    }

    fileprivate init(_ place: gevent_place) {
        var place = place
        // Swift's names can be long, and what stands behind them is worth as much.
        text = String(unsafeUninitializedCapacity: 4096) { buffer in
            buffer.withMemoryRebound(to: CChar.self) {
                gevent_place_text(&place, $0.baseAddress!, $0.count)
                return strlen($0.baseAddress!)
            }
        }
        origin = Origin(symbol: place.symbol.map { String(cString: $0) })
    }
}

/// What the call before `address` stands in, innermost first: what was inlined there, and the function itself.
func places(of address: UnsafeRawPointer) -> [Place] {
    withUnsafeTemporaryAllocation(of: gevent_place.self, capacity: Int(GEVENT_PLACES_MOST)) { buffer in
        let count = gevent_places_of(address, buffer.baseAddress!)
        return buffer.prefix(count).map(Place.init)
    }
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
