// Addresses as people read them: functions, files and lines.

internal import CGevent
internal import Glibc

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
