/// An error that was thrown into a greenlet and not yet raised in it.
package struct PendingError {
    package let error: any Error
    /// The timeout it comes from, which may take it back.
    let timeout: Timeout?
    /// Raised at every park from its first to the end, so it stays pending.
    let isSticky: Bool
    /// Whether a second exit would say nothing new. What a timeout throws may be taken back.
    let isKill: Bool

    init(error: any Error, timeout: Timeout?, isSticky: Bool) {
        self.error = error
        self.timeout = timeout
        self.isSticky = isSticky
        isKill = timeout == nil && isExit(error)
    }
}

/// The errors that wait to be raised in one greenlet, the earliest first; never empty.
///
/// Adding one and taking one do not depend on how many there are: a greenlet linked to many may be thrown all their
/// ends. Nearly always there is one, which costs this object and nothing else. Nothing is released in here but what a
/// caller was given: the last hold on an error may run code that throws into the same greenlet.
package final class PendingErrors {
    // Unchecked exclusivity: nothing in here calls out, except for the conditions it is given, which only look.
    @exclusivity(unchecked) private(set) var first: PendingError
    /// Those behind the first, from `head` on; what was taken has left nil behind.
    @exclusivity(unchecked) private var others: [PendingError?] = []
    @exclusivity(unchecked) private var head = 0
    /// At most one of them is.
    @exclusivity(unchecked) private var hasKill: Bool

    init(_ first: PendingError) {
        self.first = first
        hasKill = first.isKill
    }

    /// A sticky one is the last: it is raised at every park, so nothing behind it would ever be.
    var hasSticky: Bool { others.isEmpty ? first.isSticky : others[others.count - 1]!.isSticky }

    package func contains(where isMeant: (PendingError) -> Bool) -> Bool {
        isMeant(first) || others[head...].contains { isMeant($0!) }
    }

    /// Adds one behind the others, none of which is sticky. Two kills that arrive before the victim has seen the first
    /// are one kill, and that is the sticky one if one is; returns the one that gave way.
    func add(_ new: PendingError) -> PendingError? {
        guard new.isKill && hasKill else {
            append(new)
            return nil
        }
        if !new.isSticky { return nil }
        append(new)
        return remove(count: 1) { $0.isKill }.removed.first
    }

    private func append(_ new: PendingError) {
        others.append(new)
        if new.isKill { hasKill = true }
    }

    /// Takes the first. Returns it, and whether there was another to take its place.
    func takeFirst() -> (error: PendingError, isLast: Bool) {
        let taken = first
        if others.isEmpty { return (taken, true) }
        if taken.isKill { hasKill = false }
        first = others[head]!
        others[head] = nil
        head += 1
        if head == others.count {
            others.removeAll(keepingCapacity: true)
            head = 0
        } else if head > others.count / 2 && head >= 16 {
            others.removeFirst(head)
            head = 0
        }
        return (taken, false)
    }

    /// Removes those that are meant, or the first `count` of them. Returns them, and whether any is left.
    func remove(
        count: Int = .max, where isMeant: (PendingError) -> Bool
    ) -> (removed: [PendingError], isEmpty: Bool) {
        guard contains(where: isMeant) else { return ([], false) }
        var removed: [PendingError] = []
        var kept: [PendingError] = []
        for error in all {
            if removed.count < count && isMeant(error) { removed.append(error) } else { kept.append(error) }
        }
        if kept.isEmpty { return (removed, true) }
        first = kept[0]
        others = Array(kept.dropFirst())
        head = 0
        hasKill = kept.contains(where: \.isKill)
        return (removed, false)
    }

    var all: [PendingError] { [first] + others[head...].map { $0! } }
}
