internal import CGevent
internal import GeventCore

/// Formats a spawn tree as text.
struct TreeText {
    /// The depth beyond which nodes show their depth as a number instead of by indentation.
    private static let deepestIndentation = 24
    private static let framesShown = 3
    /// The number of frames to read. More than ``framesShown``, because frames of the library are skipped.
    private static let framesSearched = 32
    private static let localsShown = 20
    private static let charactersShown = 200

    private let tree: GreenletTree
    /// A cache of spawn locations: many greenlets share few spawn sites, and each takes several lookups.
    private var spawnLocations: [UnsafePointer<gevent_spawn_site>: SpawnLocation] = [:]
    private(set) var text = ""

    /// Writes the first `limit` greenlets of `tree`.
    ///
    /// - Parameters:
    ///   - unseen: the number of greenlets that are not in the tree.
    ///   - prepare: called with addresses before they are symbolicated, because that is slow. It may park, and
    ///     greenlets in the tree may end meanwhile.
    ///   - pause: called after each greenlet. It may park too.
    init<Failure: Error>(
        _ tree: GreenletTree, limit: Int, unseen: Int = 0, preparing prepare: ([UInt]) throws(Failure) -> Void,
        pausing pause: () throws(Failure) -> Void
    ) throws(Failure) {
        self.tree = tree
        // For the current node and each of its ancestors: whether another sibling follows.
        var continues: [Bool] = []
        let shown = tree.nodes.prefix(max(limit, 0))
        for index in shown.indices {
            let node = tree.nodes[index]
            let end = node.parent.map { $0 + 1 + tree.nodes[$0].descendantCount } ?? tree.nodes.count
            continues.removeSubrange(min(node.depth, continues.count)...)
            if node.depth < TreeText.deepestIndentation { continues.append(index + 1 + node.descendantCount < end) }
            try write(node, continues, prepare)
            try pause()
        }
        let omitted = tree.nodes.count - shown.count + unseen
        if omitted > 0 { text += "… and \(omitted) more\n" }
        if text.hasSuffix("\n") { text.removeLast() }
    }

    /// Writes the first `limit` greenlets of `tree` without parking.
    init(_ tree: GreenletTree, limit: Int) {
        self.init(tree, limit: limit, preparing: { _ in }, pausing: {})
    }

    private mutating func write<Failure: Error>(
        _ node: GreenletTree.Node, _ continues: [Bool], _ prepare: ([UInt]) throws(Failure) -> Void
    ) throws(Failure) {
        let greenlet = node.greenlet
        // Roots are not indented. Each level below them draws a vertical bar while siblings follow.
        let bars = continues.dropFirst().map { $0 ? "│  " : "   " }
        var branch = ""
        var lead = bars.joined()
        if node.depth >= TreeText.deepestIndentation {
            branch = "\(lead)·· (depth \(node.depth)) "
            lead += "   "
        } else if node.depth > 0 {
            branch = bars.dropLast().joined() + (continues[node.depth] ? "├─ " : "└─ ")
        }
        text += "\(branch)\(oneLine(greenlet)) \(state(of: node))\n"
        lead += node.descendantCount > 0 ? "│    " : "     "
        try write(waitingFrames(of: greenlet, prepare), lead, "at")
        if let site = greenlet.readableSpawnSite {
            let location = try spawnLocation(of: site, prepare)
            write(location.frames, lead, location.phrase)
        }
        writeLocals(of: greenlet, lead, startsTree: startsTree(node))
    }

    private mutating func write(_ frames: [String], _ lead: String, _ word: String) {
        for (index, frame) in frames.prefix(TreeText.framesShown).enumerated() {
            text += "\(lead)\(index == 0 ? word : "  called by") \(frame)\n"
        }
    }

    private func state(of node: GreenletTree.Node) -> String {
        // Only possible if it ran while `prepare` or `pause` parked.
        if node.greenlet.isDead { return "ended meanwhile" }
        guard node.state == .parked, let duration = node.parkedFor else {
            return node.greenlet.isHub && node.state != .running ? "idle" : node.state.rawValue
        }
        guard let wait = node.greenlet.waitDescription else { return GreenletTree.State.ready.rawValue }
        return "parked for \(shortSeconds(duration)) s in \(shortened(wait))"
    }

    /// Returns the program's frames that called into the library, innermost first.
    private func waitingFrames<Failure: Error>(
        of greenlet: AnyGreenlet, _ prepare: ([UInt]) throws(Failure) -> Void
    ) throws(Failure) -> [String] {
        guard let context = greenlet.context else { return [] }
        var frames = [UnsafeMutableRawPointer?](repeating: nil, count: TreeText.framesSearched)
        frames.removeLast(frames.count - gevent_parked_frames(context, &frames, frames.count))
        let addresses = frames.map { UInt(bitPattern: $0) }
        // `prepare` may let the greenlet run, so its stack is not read after this point.
        try prepare(addresses)
        // Skips the innermost frames: the switch, and the library's frames between it and the program's call.
        var (isInSwitch, isInCall) = (true, true)
        var found: [String] = []
        for case let address? in addresses.map({ UnsafeRawPointer(bitPattern: $0) }) {
            for frame in symbolicatedFrames(at: address) {
                if frame.origin == .library { isInSwitch = false }
                if frame.origin == .program && !isInSwitch { isInCall = false }
                if isInCall { continue }
                if frame.origin == .program || frame.origin == .standardLibrary { found.append(frame.text) }
            }
            if found.count >= TreeText.framesShown { break }
        }
        return found
    }

    private mutating func spawnLocation<Failure: Error>(
        of site: UnsafePointer<gevent_spawn_site>, _ prepare: ([UInt]) throws(Failure) -> Void
    ) throws(Failure) -> SpawnLocation {
        if let known = spawnLocations[site] { return known }
        let made = try SpawnLocation(site, preparing: prepare)
        spawnLocations[site] = made
        return made
    }

    /// Whether the node is the top of a subtree that shares one store of tree locals, which is printed only there.
    private func startsTree(_ node: GreenletTree.Node) -> Bool {
        guard let parent = node.parent else { return true }
        return tree.nodes[parent].greenlet.existingSpawnTreeLocals !== node.greenlet.existingSpawnTreeLocals
    }

    private mutating func writeLocals(of greenlet: AnyGreenlet, _ lead: String, startsTree: Bool) {
        var lines: [String] = []
        if startsTree, let store = greenlet.existingSpawnTreeLocals {
            lines += store.entries.map { "tree local \($0.name) = \(oneLine($0.value))" }
        }
        lines += greenlet.labelledLocals.map { "local \($0.label) = \(oneLine($0.value))" }
        for line in lines.prefix(TreeText.localsShown) { text += "\(lead)\(line)\n" }
        if lines.count > TreeText.localsShown { text += "\(lead)… and \(lines.count - TreeText.localsShown) more\n" }
    }

    private func oneLine(_ value: Any) -> String { shortened(String(describing: value)) }

    private func shortened(_ text: String) -> String {
        let line = text.prefix(TreeText.charactersShown).map(\.shown)
        return String(line) + (text.count > TreeText.charactersShown ? "…" : "")
    }
}

extension Character {
    /// The character as a report shows it: a space for a line break, and U+FFFD for a control character. Names and
    /// locals may come from a client, and must not send escape sequences to the reader's terminal.
    var shown: Character {
        if isNewline { return " " }
        return unicodeScalars.contains { $0.properties.generalCategory == .control } ? "\u{FFFD}" : self
    }
}
