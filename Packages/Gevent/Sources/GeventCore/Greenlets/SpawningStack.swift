package import CGevent

/// The spawn site of a greenlet, of its spawner, and so on, the latest first.
///
/// Stores addresses. ``description`` and ``Level/frames`` symbolicate them, which is slow.
///
/// gevent: the frames of `Greenlet.spawning_stack`.
public struct SpawningStack: RandomAccessCollection, Sendable, Hashable, CustomStringConvertible {
    /// The call stack at one spawn site.
    public struct Level: Sendable, Hashable, CustomStringConvertible {
        /// The recorded return addresses, innermost first.
        public let addresses: [UInt]

        init(_ site: UnsafePointer<gevent_spawn_site>) {
            addresses = withUnsafeBytes(of: site.pointee.frames) { bytes in
                bytes.bindMemory(to: UInt.self).prefix(Int(site.pointee.frame_count)).map { $0 }
            }
        }

        /// The functions, innermost first, without those of the library. Each has its file and line if the program has
        /// debug information, which also lists inlined functions. In an optimised build, a function whose last
        /// statement is the call may be missing.
        public var frames: [String] { HubExtensions.frames(at: addresses) }

        /// The frames, one function per line.
        public var description: String { frames.joined(separator: "\n") }
    }

    private let levels: [Level]

    init(_ site: UnsafePointer<gevent_spawn_site>) {
        levels = Array(sequence(first: site) { $0.pointee.parent }.map(Level.init))
    }

    public var startIndex: Int { 0 }
    public var endIndex: Int { levels.count }
    public subscript(position: Int) -> Level { levels[position] }

    /// The frames, one function per line. The spawn site of each spawner is indented below.
    public var description: String {
        levels.enumerated().map { depth, level in
            let lead = String(repeating: "  ", count: depth)
            // Either the library spawned the greenlet, as a server does for a connection, or the spawn was a tail call,
            // which leaves no frame.
            let frames = level.frames.isEmpty ? ["the library, or the end of a function"] : level.frames
            return frames.enumerated().map { index, frame in
                lead + (index == 0 ? "spawned at " : "  called by ") + frame
            }.joined(separator: "\n")
        }.joined(separator: "\n")
    }
}

/// The spawn site of a greenlet, as printed in reports.
package struct SpawnLocation {
    /// The text before the first frame: "spawned at", or a longer phrase for a greenlet that the library spawned.
    package let phrase: String
    /// The functions of the program, innermost first. Empty if no level of the spawn tree has any.
    package let frames: [String]

    /// Finds the innermost level of `site` that has frames of the program. A server's connection is handled by a
    /// greenlet that the library spawned, so its own level has none; the next level is where the program started the
    /// server.
    ///
    /// Symbolicating an address for the first time takes up to milliseconds, so `prepare` is called with the addresses
    /// of a level before they are symbolicated.
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
