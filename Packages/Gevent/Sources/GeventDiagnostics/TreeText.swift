internal import CGevent
internal import GeventCore

/// A tree of greenlets as people read it.
struct TreeText {
    /// Deeper than this, indentation says nothing any more.
    private static let deepestIndentation = 24
    private static let framesShown = 3
    /// The library's own functions stand above those that are shown.
    private static let framesSearched = 32
    private static let localsShown = 20
    private static let charactersShown = 200

    private let tree: GreenletTree
    /// Many greenlets share few spawn sites, and each takes several lookups.
    private var spawnPlaces: [UnsafePointer<gevent_spawn_site>: SpawnLocation] = [:]
    private(set) var text = ""

    /// Writes the first `limit` greenlets of `tree`.
    ///
    /// - Parameters:
    ///   - unseen: how many greenlets there are that the tree does not have.
    ///   - prepare: is called with addresses before their names are needed, since looking them up is slow. It may let
    ///     other greenlets run, which may end some of those in the tree.
    ///   - pause: is called after each greenlet, and may do the same.
    init<Failure: Error>(
        _ tree: GreenletTree, limit: Int, unseen: Int = 0, preparing prepare: ([UInt]) throws(Failure) -> Void,
        pausing pause: () throws(Failure) -> Void
    ) throws(Failure) {
        self.tree = tree
        // Whether there are siblings behind, for each ancestor of the node in question and itself.
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
        let left = tree.nodes.count - shown.count + unseen
        if left > 0 { text += "… and \(left) more\n" }
        if text.hasSuffix("\n") { text.removeLast() }
    }

    /// Writes the first `limit` greenlets of `tree` in one go.
    init(_ tree: GreenletTree, limit: Int) {
        self.init(tree, limit: limit, preparing: { _ in }, pausing: {})
    }

    private mutating func write<Failure: Error>(
        _ node: GreenletTree.Node, _ continues: [Bool], _ prepare: ([UInt]) throws(Failure) -> Void
    ) throws(Failure) {
        let greenlet = node.greenlet
        // Roots stand at the margin; below them each level draws the line of its siblings.
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
        try write(whereItWaits(greenlet, prepare), lead, "at")
        if let site = greenlet.readableSpawnSite {
            let place = try spawnPlace(site, prepare)
            write(place.frames, lead, place.phrase)
        }
        writeLocals(of: greenlet, lead, startsTree: startsTree(node))
    }

    private mutating func write(_ frames: [String], _ lead: String, _ word: String) {
        for (index, frame) in frames.prefix(TreeText.framesShown).enumerated() {
            text += "\(lead)\(index == 0 ? word : "  called by") \(frame)\n"
        }
    }

    private func state(of node: GreenletTree.Node) -> String {
        // Only while a pause let it run.
        if node.greenlet.isDead { return "over meanwhile" }
        guard node.state == .parked, let duration = node.parkedFor else {
            return node.greenlet.isHub && node.state != .running ? "idle" : node.state.rawValue
        }
        guard let wait = node.greenlet.waitDescription else { return GreenletTree.State.ready.rawValue }
        return "parked for \(shortSeconds(duration)) s in \(shortened(wait))"
    }

    /// What it called the library from.
    private func whereItWaits<Failure: Error>(
        _ greenlet: AnyGreenlet, _ prepare: ([UInt]) throws(Failure) -> Void
    ) throws(Failure) -> [String] {
        guard let context = greenlet.context else { return [] }
        var frames = [UnsafeMutableRawPointer?](repeating: nil, count: TreeText.framesSearched)
        frames.removeLast(frames.count - gevent_parked_frames(context, &frames, frames.count))
        let addresses = frames.map { UInt(bitPattern: $0) }
        // From here on the greenlet may run.
        try prepare(addresses)
        // Innermost are the switch and what led to it, down to the call that waits.
        var (isInSwitch, isInCall) = (true, true)
        var found: [String] = []
        for case let address? in addresses.map({ UnsafeRawPointer(bitPattern: $0) }) {
            for place in places(of: address) {
                if place.origin == .library { isInSwitch = false }
                if place.origin == .program && !isInSwitch { isInCall = false }
                if isInCall { continue }
                if place.origin == .program || place.origin == .standardLibrary { found.append(place.text) }
            }
            if found.count >= TreeText.framesShown { break }
        }
        return found
    }

    private mutating func spawnPlace<Failure: Error>(
        _ site: UnsafePointer<gevent_spawn_site>, _ prepare: ([UInt]) throws(Failure) -> Void
    ) throws(Failure) -> SpawnLocation {
        if let known = spawnPlaces[site] { return known }
        let made = try SpawnLocation(site, preparing: prepare)
        spawnPlaces[site] = made
        return made
    }

    /// The store of a tree is shown where the tree begins.
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
    /// What a report shows of it: a space for a line break, and U+FFFD for a control character. Names and locals may
    /// come from a client, and must not give orders to the terminal of whoever reads the report.
    var shown: Character {
        if isNewline { return " " }
        return unicodeScalars.contains { $0.properties.generalCategory == .control } ? "\u{FFFD}" : self
    }
}
