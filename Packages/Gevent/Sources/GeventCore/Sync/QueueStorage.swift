/// How a queue keeps its elements, and which of them comes next.
public protocol QueueStorage<Element>: ~Copyable {
    /// What it keeps.
    associatedtype Element

    /// An empty storage.
    init()

    /// How many elements there are.
    var count: Int { get }

    /// The element that comes next; there is one.
    var next: Element { get }

    /// Puts an element where it belongs.
    mutating func insert(_ element: consuming Element)

    /// Takes out the element that comes next; there is one.
    mutating func removeNext() -> Element

    /// Another storage with the same elements.
    borrowing func copy() -> Self
}

/// First in, first out: a ring that doubles when it is full.
public struct FirstInFirstOut<Element>: QueueStorage, ~Copyable {
    @usableFromInline var base: UnsafeMutablePointer<Element>
    /// One less than the capacity, which is a power of two.
    @usableFromInline var mask: Int
    @usableFromInline var head = 0
    @usableFromInline var used = 0

    @inlinable
    public init() { self.init(capacity: 8) }

    @usableFromInline
    init(capacity: Int) {
        base = .allocate(capacity: capacity)
        mask = capacity - 1
    }

    @inlinable
    deinit {
        for offset in 0..<used { (base + ((head &+ offset) & mask)).deinitialize(count: 1) }
        base.deallocate()
    }

    @inlinable
    public var count: Int {
        @inline(__always)
        get { used }
    }

    @inlinable
    public var next: Element { base[head] }

    @inlinable
    @inline(__always)
    public mutating func insert(_ element: consuming Element) {
        if used > mask { grow() }
        (base + ((head &+ used) & mask)).initialize(to: element)
        used &+= 1
    }

    @inlinable
    @inline(__always)
    public mutating func removeNext() -> Element {
        let element = (base + head).move()
        head = (head &+ 1) & mask
        used &-= 1
        return element
    }

    @usableFromInline
    @inline(never)
    mutating func grow() {
        let capacity = mask + 1
        let larger = UnsafeMutablePointer<Element>.allocate(capacity: capacity * 2)
        // The ring is full: from its head to the end of its memory, and from there to its head.
        larger.moveInitialize(from: base + head, count: capacity - head)
        (larger + (capacity - head)).moveInitialize(from: base, count: head)
        base.deallocate()
        base = larger
        mask = capacity * 2 - 1
        head = 0
    }

    public borrowing func copy() -> FirstInFirstOut {
        var copy = FirstInFirstOut(capacity: mask + 1)
        for offset in 0..<used { copy.insert(base[(head + offset) & mask]) }
        return copy
    }
}

@available(*, unavailable)
extension FirstInFirstOut: Sendable {}
