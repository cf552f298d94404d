/// An error that was delivered to a greenlet and not raised yet.
package struct PendingError {
    package let error: any Error
    /// The timeout that delivered it, which may retract it.
    let timeout: Timeout?
    /// Whether it is raised at every park until the greenlet ends, and so stays pending.
    let isSticky: Bool
    /// Whether a second exit after it would be redundant. False for errors of timeouts, which may be retracted.
    let isKill: Bool

    init(error: any Error, timeout: Timeout?, isSticky: Bool) {
        self.error = error
        self.timeout = timeout
        self.isSticky = isSticky
        isKill = timeout == nil && isExit(error)
    }
}

/// The pending errors of one greenlet, the earliest first; never empty.
///
/// Adding and taking an error take amortised constant time, because a greenlet may be linked to many greenlets and
/// receive the ends of all. Nearly always there is one error, which costs only this object. This class releases no
/// error itself: every removed error is returned to the caller, since releasing the last reference may run code that
/// delivers an error to the same greenlet.
package final class PendingErrors {
    // Unchecked exclusivity: nothing in here calls out, except for the predicates, which have no side effects.
    @exclusivity(unchecked) private(set) var first: PendingError
    /// The errors after the first, from `head` on; taken errors leave nil.
    @exclusivity(unchecked) private var others: [PendingError?] = []
    @exclusivity(unchecked) private var head = 0
    /// Whether one of the errors is a kill. At most one is.
    @exclusivity(unchecked) private var hasKill: Bool

    init(_ first: PendingError) {
        self.first = first
        hasKill = first.isKill
    }

    /// Whether the last error is sticky. A sticky error is always the last: it is raised at every park, so a later one
    /// would never be raised.
    var hasSticky: Bool { others.isEmpty ? first.isSticky : others[others.count - 1]!.isSticky }

    package func contains(where matches: (PendingError) -> Bool) -> Bool {
        matches(first) || others[head...].contains { matches($0!) }
    }

    /// Appends an error; none of the others may be sticky. Two kills that arrive before the first is raised are merged
    /// into one, which is the sticky one if there is one. Returns the error that was replaced.
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

    /// Removes and returns the first error. The last error is returned but stays in place; `isLast` is true then.
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

    /// Removes the matching errors, or the first `count` of them. Returns them, and whether no error is left.
    func remove(
        count: Int = .max, where matches: (PendingError) -> Bool
    ) -> (removed: [PendingError], isEmpty: Bool) {
        guard contains(where: matches) else { return ([], false) }
        var removed: [PendingError] = []
        var kept: [PendingError] = []
        for error in all {
            if removed.count < count && matches(error) { removed.append(error) } else { kept.append(error) }
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
