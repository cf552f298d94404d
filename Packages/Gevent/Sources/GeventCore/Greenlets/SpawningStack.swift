package import CGevent

/// Where a greenlet was made, where its spawner was made, and so on: the latest first.
///
/// Holds addresses; ``description`` and ``Level/frames`` look their names up, which is slow.
///
/// gevent: the frames of `Greenlet.spawning_stack`.
public struct SpawningStack: RandomAccessCollection, Sendable, Hashable, CustomStringConvertible {
    /// The call stack at one place that made a greenlet.
    public struct Level: Sendable, Hashable, CustomStringConvertible {
        /// The return addresses that were recorded, innermost first.
        public let addresses: [UInt]

        init(_ site: UnsafePointer<gevent_spawn_site>) {
            addresses = withUnsafeBytes(of: site.pointee.frames) { bytes in
                bytes.bindMemory(to: UInt.self).prefix(Int(site.pointee.frame_count)).map { $0 }
            }
        }

        /// The functions, innermost first, without the library's own: each with its file and line, if the program has
        /// debug information, which also knows what was inlined. One whose last act was the call may be missing in an
        /// optimised build.
        public var frames: [String] { HubExtensions.frames(at: addresses) }

        /// One function a line.
        public var description: String { frames.joined(separator: "\n") }
    }

    private let levels: [Level]

    init(_ site: UnsafePointer<gevent_spawn_site>) {
        levels = Array(sequence(first: site) { $0.pointee.parent }.map(Level.init))
    }

    public var startIndex: Int { 0 }
    public var endIndex: Int { levels.count }
    public subscript(position: Int) -> Level { levels[position] }

    /// One function a line, with the place where each spawner was made indented below.
    public var description: String {
        levels.enumerated().map { depth, level in
            let lead = String(repeating: "  ", count: depth)
            // The library spawned it, as a server does for a connection; or the call was the last thing its function
            // did, and has left no frame.
            let frames = level.frames.isEmpty ? ["the library, or the end of a function"] : level.frames
            return frames.enumerated().map { index, frame in
                lead + (index == 0 ? "spawned at " : "  called by ") + frame
            }.joined(separator: "\n")
        }.joined(separator: "\n")
    }
}

/// Where a greenlet was spawned, as reports show it.
package struct SpawnLocation {
    /// What comes before the first frame: "spawned at", or a longer phrase for a greenlet that the library spawned.
    package let phrase: String
    /// The program's own functions, innermost first. Empty if no level of the spawn tree has any.
    package let frames: [String]

    /// The innermost level of `site` that has frames of the program. The greenlet of a server's connection was spawned
    /// by the library, so its own level has none; the level above it is where the program started the server.
    ///
    /// Looking up an address for the first time takes up to milliseconds, so `prepare` is called before the names of
    /// addresses are needed.
    package init<Failure: Error>(
        _ site: UnsafePointer<gevent_spawn_site>, preparing prepare: ([UInt]) throws(Failure) -> Void
    ) throws(Failure) {
        var next: UnsafePointer<gevent_spawn_site>? = site
        var found: [String] = []
        var phrase = "spawned at"
        while let site = next {
            let level = SpawningStack.Level(site)
            try prepare(level.addresses)
            found = level.frames
            if !found.isEmpty { break }
            next = site.pointee.parent
            phrase = "spawned by a greenlet that was spawned at"
        }
        self.phrase = phrase
        frames = found
    }
}
