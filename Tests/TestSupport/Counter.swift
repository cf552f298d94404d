internal import Synchronization

/// A thread-safe counter.
package final class Counter: Sendable {
    private let value = Atomic<Int>(0)

    package init() {}

    package var count: Int { value.load(ordering: .sequentiallyConsistent) }
    @discardableResult
    package func add(_ amount: Int = 1) -> Int { value.add(amount, ordering: .sequentiallyConsistent).newValue }
}
