/// The batch of events that ``Loop/poll(until:into:)`` appends to: one buffer, reused by every poll.
///
/// It is not an `Array` because it is on the hottest path. It cannot be copied, so an append needs no uniqueness check
/// and no reference count, and every access is inlined into loops in other modules.
@frozen
public struct ReadyEvents: ~Copyable {
    @usableFromInline var base: UnsafeMutablePointer<ReadyEvent>
    @usableFromInline var capacity: Int

    @usableFromInline var used: Int

    /// The number of events in the batch.
    @inlinable
    public var count: Int { used }

    /// Creates an empty batch with room for this many events before the buffer has to grow.
    ///
    /// - Parameter minimumCapacity: the initial capacity; values below 1 count as 1.
    public init(minimumCapacity: Int = 256) {
        capacity = max(minimumCapacity, 1)
        base = .allocate(capacity: capacity)
        used = 0
    }

    deinit {
        // `ReadyEvent` is trivial, so it needs no deinitialisation.
        base.deallocate()
    }

    /// Whether the batch holds no events.
    @inlinable
    public var isEmpty: Bool { used == 0 }

    /// The event at an index from 0 up to, but not including, ``count``.
    @inlinable
    public subscript(index: Int) -> ReadyEvent {
        precondition(index >= 0 && index < used, "ReadyEvents index out of range")
        return base[index]
    }

    /// Appends an event in amortised constant time.
    @inlinable
    public mutating func append(_ event: ReadyEvent) {
        if used == capacity { grow() }
        (base + used).initialize(to: event)
        used += 1
    }

    /// Reverses the order of the events from an index to the end, for loops on a C library that reports the last event
    /// first.
    @inlinable
    public mutating func reverse(from start: Int) {
        precondition(start >= 0 && start <= used, "ReadyEvents index out of range")
        var (low, high) = (start, used - 1)
        while low < high {
            swap(&base[low], &base[high])
            low += 1
            high -= 1
        }
    }

    /// Removes all events and keeps the buffer.
    @inlinable
    public mutating func removeAll() {
        used = 0
    }

    @usableFromInline
    @inline(never)
    mutating func grow() {
        let larger = UnsafeMutablePointer<ReadyEvent>.allocate(capacity: capacity * 2)
        larger.moveInitialize(from: base, count: used)
        base.deallocate()
        base = larger
        capacity *= 2
    }
}

// A batch belongs to the thread of the hub that polls into it.
@available(*, unavailable)
extension ReadyEvents: Sendable {}
