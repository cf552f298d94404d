// Greenlets on stacks of a size other than the default.

internal import CGevent

extension AnyGreenlet {
    /// The tag of the greenlet's start in the ready queue.
    @inline(__always)
    final var startTag: UInt32 {
        stackClass == 0 ? UInt32(GEVENT_READY_START) : UInt32(GEVENT_READY_START_SIZED)
    }

    /// Sets the stack size of a greenlet that has not been started.
    @usableFromInline
    final func useStack(ofSize bytes: Int) {
        guard (Int(GEVENT_STACK_MIN)...Int(GEVENT_STACK_MAX)).contains(bytes) else {
            fatalError("a stack of \(bytes) bytes: stackSize takes 16384 (16 KiB) to 67108864 (64 MiB)")
        }
        stackClass = gevent_hub_stack_class(requireOwnHub(), bytes)
    }
}

extension Greenlet {
    /// Makes a greenlet that runs on a stack of at least `stackSize` bytes, and starts it; see
    /// ``Gevent/spawn(stackSize:_:)``.
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
/// A small stack saves address space and page tables if there are very many greenlets. Resident memory is the same,
/// since only pages that are touched take any. A large stack has room for deep recursion.
///
/// - Parameters:
///   - stackSize: The size in bytes, including the guard, from 16 KiB to 64 MiB; another value traps. It is rounded up
///     to a power of two, so that a thread has at most thirteen sizes besides the default, each with its own free
///     stacks. The size that `GEVENT_STACK_SIZE` selects is the default itself.
///   - body: The closure that the greenlet runs; it may park.
///
/// gevent has no counterpart.
@inlinable
@discardableResult
public func spawn<Output>(stackSize: Int, _ body: @escaping () throws -> Output) -> Greenlet<Output> {
    let greenlet = Greenlet(stackSize: stackSize, body)
    greenlet.start()
    return greenlet
}

/// Makes a bare coroutine on a stack of at least `stackSize` bytes, and starts it; see ``spawn(stackSize:_:)``.
/// Otherwise like ``spawnRaw(_:)``.
@discardableResult
public func spawnRaw(stackSize: Int, _ body: @escaping () throws -> Void) -> RawGreenlet {
    let greenlet = RawGreenlet(stackSize: stackSize, body)
    greenlet.start(greenlet.requireOwnHub())
    return greenlet
}
