internal import CGevent
public import GeventCore

/// Every greenlet of a thread that is started and not over, under the one that spawned it.
///
/// A list in depth-first order, each greenlet before those it spawned, so that trees of any depth do. Main and, if it
/// has spawned something or is running, the hub stand there like the others. Whoever was spawned by a greenlet that is
/// over stands at the root, and without `GEVENT_TRACK_GREENLET_TREE` all do.
///
/// It holds the greenlets, so let go of it soon. Confined to their thread.
///
/// gevent: `gevent.util.GreenletTree`.
public struct GreenletTree: CustomStringConvertible {
    /// What a greenlet is doing.
    public enum State: String, Sendable, Hashable {
        /// It is the current one.
        case running
        /// It yielded or was woken, and waits for its turn.
        case ready
        /// It was started and waits for its first turn.
        case scheduled
        /// It is to start later.
        case delayed
        /// It waits for something.
        case parked
    }

    /// One greenlet, as it was when the tree was made.
    public struct Node {
        /// The greenlet.
        public let greenlet: AnyGreenlet
        /// What it was doing.
        public let state: State
        /// For how long it was parked; nil if it was not.
        public let parkedFor: Duration?
        /// How many ancestors it has in the tree.
        public let depth: Int
        /// Where its spawner stands in ``GreenletTree/nodes``, if that is there.
        public let parent: Int?
        /// How many nodes behind this one are its descendants.
        public fileprivate(set) var descendantCount = 0

        /// What it waits for, such as "join of <Greenlet …>"; nil if it is not parked any more.
        public var waitsFor: String? { greenlet.waitDescription }
    }

    /// The greenlets, each before its descendants.
    public private(set) var nodes: [Node] = []

    /// Where those stand that have no spawner in the tree.
    public var roots: [Int] { siblings(from: 0, to: nodes.count) }

    /// Where the greenlets stand that the one at `index` has spawned.
    public func children(of index: Int) -> [Int] {
        siblings(from: index + 1, to: index + 1 + nodes[index].descendantCount)
    }

    private func siblings(from first: Int, to end: Int) -> [Int] {
        Array(
            sequence(state: first) { next -> Int? in
                if next >= end { return nil }
                defer { next += 1 + nodes[next].descendantCount }
                return next
            })
    }

    /// The greenlets of the calling thread. Works in greenlets, in main and in hub callbacks; never parks. Linear in
    /// the greenlets there are and in the stacks ever used.
    ///
    /// gevent: `GreenletTree.current_tree()`.
    @available(*, noasync)
    public static func current() -> GreenletTree { GreenletTree(Hub.current) }

    /// The report of ``dumpGreenlets(limit:)``, with as many greenlets as that shows unless told otherwise.
    public var description: String { TreeText(self, limit: GreenletTree.defaultLimit).text }

    static var defaultLimit: Int { 1000 }

    // MARK: Making it

    /// - Parameters:
    ///   - isDeadlock: the hub runs because nothing else can, which is not worth a line.
    ///   - most: how many greenlets it takes at most, besides the hub.
    init(_ hub: Hub, isDeadlock: Bool = false, most: Int = .max) {
        let found = hub.livingGreenlets(hubToo: !isDeadlock && hub.hubGreenlet.isCurrent, most: most)
        var places: [ObjectIdentifier: Int] = [:]
        places.reserveCapacity(found.count)
        for (place, greenlet) in found.enumerated() { places[ObjectIdentifier(greenlet)] = place }

        // Children as linked lists, and a stack of its own for the walk: a tree may be as deep as it has greenlets.
        var spawners = [Int](repeating: -1, count: found.count)
        var firstChild = spawners
        var nextSibling = spawners
        var roots: [Int] = []
        for place in found.indices.reversed() {
            guard let spawner = found[place].spawningGreenlet, let above = places[ObjectIdentifier(spawner)] else {
                roots.append(place)
                continue
            }
            spawners[place] = above
            nextSibling[place] = firstChild[above]
            firstChild[above] = place
        }

        nodes.reserveCapacity(found.count)
        var written = [Int](repeating: 0, count: found.count)
        var pending = roots
        let now = hub.now
        while let place = pending.popLast() {
            let parent = spawners[place] < 0 ? nil : written[spawners[place]]
            written[place] = nodes.count
            let state = found[place].treeState
            let parkedSince = state == .parked ? found[place].context?.pointee.wait_since : nil
            nodes.append(
                Node(
                    greenlet: found[place], state: state,
                    parkedFor: parkedSince.map { LoopInstant(nanoseconds: $0).duration(to: now) },
                    depth: parent.map { nodes[$0].depth + 1 } ?? 0, parent: parent))
            // The last pushed comes next, so the children are pushed from the last to the first.
            let mark = pending.count
            var child = firstChild[place]
            while child >= 0 {
                pending.append(child)
                child = nextSibling[child]
            }
            pending[mark...].reverse()
        }
        for index in nodes.indices.reversed() {
            if let parent = nodes[index].parent { nodes[parent].descendantCount += 1 + nodes[index].descendantCount }
        }
    }
}

@available(*, unavailable)
extension GreenletTree: Sendable {}

@available(*, unavailable)
extension GreenletTree.Node: Sendable {}

/// A report of every greenlet of the calling thread that is started and not over: what it is doing, what it waits for,
/// since when and from where, where it was spawned, and its locals, each under the greenlet that spawned it. Places are
/// functions with file and line, as far as the program has symbols and debug information.
///
/// Shows at most `limit` greenlets and says how many it leaves out. Works in greenlets, in main and in hub callbacks,
/// and never parks; it calls the `description` of greenlets, of what they wait for and of their locals, which must not
/// park either. The first look at a place takes milliseconds, and the first on a thread up to half a second in a large
/// program. Another thread's greenlets only that thread can look at: `handle.post { print(dumpGreenlets()) }` makes it
/// do so.
///
/// gevent: `gevent.util.format_run_info()`, `gevent.util.print_run_info()`.
@available(*, noasync)
public func dumpGreenlets(limit: Int = 1000) -> String {
    Hub.current.greenletReport(limit: limit)
}

/// The report of ``dumpGreenlets(limit:)`` in steps that take a few milliseconds at most, for a hub that must go on.
///
/// Parks while a thread looks up the names of functions, and calls `pause` after each greenlet; `pause` decides whether
/// to park, and what it throws is thrown on. A greenlet that runs meanwhile is shown in its new state. What cannot be
/// done in steps is left out: the deepest stack, greenlets beyond the first 5,000, and all of them in a hub that has
/// 50,000 stacks, where looking at each takes too long.
@_spi(GeventInternals)
@available(*, noasync)
public func dumpGreenlets(limit: Int = 1000, pausing pause: () throws -> Void) throws -> String {
    let hub = Hub.current
    let stackCount = Int(gevent_hub_stack_count(hub.pointer))
    let summary = hub.summary(withDeepestStack: stackCount <= 1000)
    if stackCount > 50_000 {
        return "\(summary)\nThere are too many greenlets to list without stopping their thread."
    }
    let tree = GreenletTree(hub, most: 5000)
    // Main and the hub have no stack of the library's.
    let unseen = max(0, hub.statistics.liveGreenlets - tree.nodes.count)
    let text = try TreeText(
        tree, limit: limit, unseen: unseen, preparing: SymbolicationThread.lookUpParked, pausing: pause)
    return "\(summary)\n\(text.text)"
}

extension AnyGreenlet {
    fileprivate final var treeState: GreenletTree.State {
        switch phase {
        case .delayed: return .delayed
        case .created, .scheduled, .ended: return .scheduled
        case .running: break
        }
        guard let context else { return .scheduled }
        if isCurrent { return .running }
        return context.pointee.wait_state == UInt8(GEVENT_WAIT_PARKED) ? .parked : .ready
    }

    /// What it waits for, if it is parked.
    final var waitDescription: String? {
        guard let context, context.pointee.wait_state == UInt8(GEVENT_WAIT_PARKED) else { return nil }
        return waitPhrase(context)
    }
}

extension Hub {
    /// Main, the hub if it has children or is asked for, and those that are started and not over, up to `most`.
    fileprivate func livingGreenlets(hubToo: Bool, most: Int) -> [AnyGreenlet] {
        var found: [AnyGreenlet] = [mainGreenlet]
        // One whose failure is being reported is over, and has not left its stack.
        found += greenletsOnStacks(most: most).filter { !$0.isDead }
        for place in pointer.pointee.ready_head..<pointer.pointee.ready_tail {
            if found.count >= most { break }
            let entry = pointer.pointee.ready[Int(place & pointer.pointee.ready_mask)]
            let tag = Int(entry) & GEVENT_READY_TAGS
            guard tag == GEVENT_READY_START || tag == GEVENT_READY_START_SIZED else { continue }
            let address = UnsafeMutableRawPointer(bitPattern: entry & ~UInt(GEVENT_READY_TAGS))!
            let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(address).takeUnretainedValue()
            // One that was killed meanwhile stands there until its turn.
            if greenlet.phase == .scheduled { found.append(greenlet) }
        }
        if found.count < most { found += delayedGreenlets(most: most - found.count) }
        if hubToo || found.contains(where: { $0.spawningGreenlet === hubGreenlet }) {
            found.insert(hubGreenlet, at: 1)
        }
        return found
    }

    /// The first line of a report. Finding the deepest stack takes a microsecond or more for each.
    fileprivate func summary(withDeepestStack: Bool) -> String {
        let statistics = statistics
        var text = "hub \(pointer.pointee.serial) on \(loopName), up \(shortSeconds(statistics.uptime)) s"
        text += ": \(statistics.spawnCount) spawned, \(statistics.liveGreenlets) with a stack"
        text += " (\(statistics.peakLiveGreenlets) at most), \(statistics.pendingTimers) timers"
        if withDeepestStack, let deepest = deepestStack {
            text += "; deepest stack \((deepest + 1023) >> 10) of \(usableStackSize >> 10) KiB"
        }
        return text
    }

    func greenletReport(limit: Int) -> String {
        "\(summary(withDeepestStack: true))\n\(TreeText(GreenletTree(self), limit: limit).text)"
    }

    /// The message of `wouldBlockForever`.
    func deadlockReport() -> String {
        let tree = GreenletTree(self, isDeadlock: true)
        let parked = tree.nodes.count { $0.state == .parked }
        return "nothing is ready and nothing pending can make anything ready. Parked greenlets: \(parked)\n"
            + TreeText(tree, limit: 50).text
    }
}

/// Milliseconds are enough for people.
func shortSeconds(_ duration: Duration) -> String {
    decimalSeconds(.milliseconds(Int64(duration / .milliseconds(1))))
}
