/// A first-in, first-out ring buffer for a queue's elements, which doubles its capacity when it is full.
@usableFromInline
struct Ring<Element>: ~Copyable {
    @usableFromInline var base: UnsafeMutablePointer<Element>
    /// The capacity, which is a power of two, minus one.
    @usableFromInline var mask: Int
    @usableFromInline var head = 0
    @usableFromInline var used = 0

    @inlinable
    init() { self.init(capacity: 8) }

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
    var count: Int {
        @inline(__always)
        get { used }
    }

    @inlinable
    var next: Element { base[head] }

    @inlinable
    @inline(__always)
    mutating func insert(_ element: consuming Element) {
        if used > mask { grow() }
        (base + ((head &+ used) & mask)).initialize(to: element)
        used &+= 1
    }

    @inlinable
    @inline(__always)
    mutating func removeNext() -> Element {
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
        // The ring is full: its elements lie from the head to the end of the memory, then from the start to the head.
        larger.moveInitialize(from: base + head, count: capacity - head)
        (larger + (capacity - head)).moveInitialize(from: base, count: head)
        base.deallocate()
        base = larger
        mask = capacity * 2 - 1
        head = 0
    }

    borrowing func copy() -> Ring {
        var copy = Ring(capacity: mask + 1)
        for offset in 0..<used { copy.insert(base[(head + offset) & mask]) }
        return copy
    }
}

@available(*, unavailable)
extension Ring: Sendable {}
