internal import CGevent
public import GeventCore

/// The spawn tree of a thread: every greenlet that has been started and has not ended, below its spawner.
///
/// The tree is stored as a list in depth-first order, each greenlet before those it spawned, so any depth works. It
/// contains the main greenlet, and the hub if the hub is running or has spawned a greenlet. A greenlet whose spawner
/// has ended is a root. Without `GEVENT_TRACK_GREENLET_TREE` all greenlets are roots.
///
/// The tree retains its greenlets, so release it soon. Confined to their thread.
///
/// gevent: `gevent.util.GreenletTree`.
public struct GreenletTree: CustomStringConvertible {
    /// What a greenlet is doing.
    public enum State: String, Sendable, Hashable {
        /// The current greenlet.
        case running
        /// Suspended and in the ready queue, because it yielded or was woken.
        case ready
        /// Started and in the ready queue, but not run yet.
        case scheduled
        /// Waiting for its delayed start.
        case delayed
        /// Parked until an event wakes it.
        case parked
    }

    /// One greenlet, and its state when the tree was made.
    public struct Node {
        /// The greenlet.
        public let greenlet: AnyGreenlet
        /// Its state when the tree was made.
        public let state: State
        /// How long it had been parked; nil if it was not parked.
        public let parkedFor: Duration?
        /// The number of its ancestors in the tree.
        public let depth: Int
        /// The index of its spawner in ``GreenletTree/nodes``; nil for a root.
        public let parent: Int?
        /// The number of its descendants, which directly follow it in ``GreenletTree/nodes``.
        public fileprivate(set) var descendantCount = 0

        /// What it waits for now, such as "join of <Greenlet …>"; nil if it is not parked.
        public var waitsFor: String? { greenlet.waitDescription }
    }

    /// The greenlets, each before its descendants.
    public private(set) var nodes: [Node] = []

    /// The indices of the greenlets that have no spawner in the tree.
    public var roots: [Int] { siblings(from: 0, to: nodes.count) }

    /// Returns the indices of the greenlets that the one at `index` has spawned.
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

    /// Returns the tree of the calling thread. Works in greenlets, in main and in hub callbacks; never parks. Takes
    /// time linear in the number of greenlets and of stacks ever used.
    ///
    /// gevent: `GreenletTree.current_tree()`.
    @available(*, noasync)
    public static func current() -> GreenletTree { GreenletTree(Hub.current) }

    /// The same text as ``dumpGreenlets(limit:)``, with its default limit.
    public var description: String { TreeText(self, limit: GreenletTree.defaultLimit).text }

    static var defaultLimit: Int { 1000 }

    // MARK: Making it

    /// - Parameters:
    ///   - isDeadlock: omits the hub, which runs only because no greenlet can.
    ///   - most: the maximum number of greenlets, not counting the hub.
    init(_ hub: Hub, isDeadlock: Bool = false, most: Int = .max) {
        let found = hub.livingGreenlets(hubToo: !isDeadlock && hub.hubGreenlet.isCurrent, most: most)
        var indices: [ObjectIdentifier: Int] = [:]
        indices.reserveCapacity(found.count)
        for (index, greenlet) in found.enumerated() { indices[ObjectIdentifier(greenlet)] = index }

        // Children are linked lists, and the walk uses an explicit stack: a tree can be as deep as it has greenlets.
        var spawners = [Int](repeating: -1, count: found.count)
        var firstChild = spawners
        var nextSibling = spawners
        var roots: [Int] = []
        for index in found.indices.reversed() {
            guard let spawner = found[index].spawningGreenlet, let parent = indices[ObjectIdentifier(spawner)] else {
                roots.append(index)
                continue
            }
            spawners[index] = parent
            nextSibling[index] = firstChild[parent]
            firstChild[parent] = index
        }

        nodes.reserveCapacity(found.count)
        var written = [Int](repeating: 0, count: found.count)
        var pending = roots
        let now = hub.now
        while let index = pending.popLast() {
            let parent = spawners[index] < 0 ? nil : written[spawners[index]]
            written[index] = nodes.count
            let state = found[index].treeState
            let parkedSince = state == .parked ? found[index].context?.pointee.wait_since : nil
            nodes.append(
                Node(
                    greenlet: found[index], state: state,
                    parkedFor: parkedSince.map { LoopInstant(nanoseconds: $0).duration(to: now) },
                    depth: parent.map { nodes[$0].depth + 1 } ?? 0, parent: parent))
            // The last one pushed is visited next, so the children are pushed in reverse order.
            let mark = pending.count
            var child = firstChild[index]
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

/// Returns a report of every greenlet of the calling thread that has been started and has not ended, as a spawn tree.
/// The report shows each greenlet's state, what it waits for and how long, the stack of the wait, the spawn site, and
/// its locals. Stack frames are functions with file and line, if the program has symbols and debug information.
///
/// Shows at most `limit` greenlets, and the number of those omitted. Works in greenlets, in main and in hub callbacks,
/// and never parks. It calls the `description` of greenlets, of the objects they wait for and of their locals, which
/// must not park either. Symbolicating a new address takes milliseconds; the first one on a thread takes up to half a
/// second in a large program. To report another thread's greenlets, post the call to its hub:
/// `handle.post { print(dumpGreenlets()) }`.
///
/// gevent: `gevent.util.format_run_info()`, `gevent.util.print_run_info()`.
@available(*, noasync)
public func dumpGreenlets(limit: Int = 1000) -> String {
    Hub.current.greenletReport(limit: limit)
}

/// Returns the report of ``dumpGreenlets(limit:)``, made in steps of a few milliseconds so that the hub stays
/// responsive.
///
/// Parks while a thread symbolicates addresses, and calls `pause` after each greenlet. `pause` may park, and errors
/// that it throws are rethrown. A greenlet that runs meanwhile is shown in its new state. Work that cannot be split
/// into steps is skipped: the deepest stack, greenlets beyond the first 5,000, and all greenlets of a hub with more
/// than 50,000 stacks.
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
    // `liveGreenlets` does not count main and the hub.
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

    /// What the greenlet waits for; nil if it is not parked.
    final var waitDescription: String? {
        guard let context, context.pointee.wait_state == UInt8(GEVENT_WAIT_PARKED) else { return nil }
        return waitPhrase(context)
    }
}

extension Hub {
    /// Returns main, the greenlets that have been started and have not ended, up to `most`, and the hub if it has
    /// children or `hubToo` is true.
    fileprivate func livingGreenlets(hubToo: Bool, most: Int) -> [AnyGreenlet] {
        var found: [AnyGreenlet] = [mainGreenlet]
        // A greenlet whose failure is being reported has ended but still has its stack.
        found += greenletsOnStacks(most: most).filter { !$0.isDead }
        for position in pointer.pointee.ready_head..<pointer.pointee.ready_tail {
            if found.count >= most { break }
            let entry = pointer.pointee.ready[Int(position & pointer.pointee.ready_mask)]
            let tag = Int(entry) & GEVENT_READY_TAGS
            guard tag == GEVENT_READY_START || tag == GEVENT_READY_START_SIZED else { continue }
            let address = UnsafeMutableRawPointer(bitPattern: entry & ~UInt(GEVENT_READY_TAGS))!
            let greenlet = Unmanaged<AnyGreenlet>.fromOpaque(address).takeUnretainedValue()
            // A greenlet that was killed before its start stays in the queue.
            if greenlet.phase == .scheduled { found.append(greenlet) }
        }
        if found.count < most { found += delayedGreenlets(most: most - found.count) }
        if hubToo || found.contains(where: { $0.spawningGreenlet === hubGreenlet }) {
            found.insert(hubGreenlet, at: 1)
        }
        return found
    }

    /// Returns the first line of a report. Finding the deepest stack takes a microsecond or more per stack.
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

    /// Returns the message of `wouldBlockForever`.
    func deadlockReport() -> String {
        let tree = GreenletTree(self, isDeadlock: true)
        let parked = tree.nodes.count { $0.state == .parked }
        return "nothing is ready and nothing pending can make anything ready. Parked greenlets: \(parked)\n"
            + TreeText(tree, limit: 50).text
    }
}

/// Formats a duration in seconds, rounded down to milliseconds.
func shortSeconds(_ duration: Duration) -> String {
    decimalSeconds(.milliseconds(Int64(duration / .milliseconds(1))))
}
