// Greenlets on stacks of another size than the default.

internal import CGevent

extension AnyGreenlet {
    /// How the ready queue marks its start.
    @inline(__always)
    final var startTag: UInt32 {
        stackClass == 0 ? UInt32(GEVENT_READY_START) : UInt32(GEVENT_READY_START_SIZED)
    }

    /// Chooses the stack of a greenlet that has not been started.
    @usableFromInline
    final func useStack(ofSize bytes: Int) {
        guard (Int(GEVENT_STACK_LEAST)...Int(GEVENT_STACK_MOST)).contains(bytes) else {
            fatalError("a stack of \(bytes) bytes: stackSize takes 16384 (16 KiB) to 67108864 (64 MiB)")
        }
        stackClass = gevent_hub_stack_class(requireOwnHub(), bytes)
    }
}

extension Greenlet {
    /// Makes a greenlet that runs on a stack of its own size, and starts it; see ``Gevent/spawn(stackSize:_:)``.
    @inlinable
    @discardableResult
    public static func spawn(stackSize: Int, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
        let greenlet = Greenlet(stackSize: stackSize, body)
        greenlet.start()
        return greenlet
    }
}

/// Makes a greenlet that runs `body` on a stack of at least `stackSize` bytes, and starts it; otherwise like
/// ``spawn(_:)``.
///
/// ```swift
/// let parser = spawn(stackSize: 8 << 20) { try fetch("a deep document") }
/// ```
///
/// A small stack saves address space and page tables where there are very many greenlets; resident memory is the same,
/// since only what is touched takes any. A large one has room for deep recursion.
///
/// - Parameters:
///   - stackSize: bytes, the guard included, from 16 KiB to 64 MiB; another value traps. Rounded up to a power of two,
///     so that a thread has at most thirteen sizes besides the default, each with free stacks of its own. The size that
///     `GEVENT_STACK_SIZE` asks for is the default itself.
///   - body: what the greenlet runs; it may park.
///
/// gevent has no counterpart.
@inlinable
@discardableResult
public func spawn<Output>(stackSize: Int, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
    let greenlet = Greenlet(stackSize: stackSize, body)
    greenlet.start()
    return greenlet
}

/// Starts a bare coroutine on a stack of at least `stackSize` bytes, see ``spawn(stackSize:_:)``; otherwise like
/// ``spawnRaw(_:)``.
@discardableResult
public func spawnRaw(stackSize: Int, _ body: @escaping () throws -> Void) -> RawGreenlet {
    let greenlet = RawGreenlet(stackSize: stackSize, body)
    greenlet.start(greenlet.requireOwnHub())
    return greenlet
}
