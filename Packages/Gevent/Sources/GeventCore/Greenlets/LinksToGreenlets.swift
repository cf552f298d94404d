extension JoinableGreenlet {
    /// Raises a ``LinkedExited`` in `receiver` when this greenlet ends as `condition` says: where the receiver waits,
    /// or at its next switch point. Never parks.
    ///
    /// A receiver that has not run by then never runs; a dead one is ignored. The receiver is not kept alive by the
    /// link. With other links it is told in registration order. On a greenlet that is over, the error is raised in the
    /// receiver as soon as the caller parks, with one exception: linked to the *current* greenlet, this call itself
    /// throws it.
    ///
    /// ```swift
    /// try greenlet.link(to: .current)
    /// ```
    ///
    /// Throws that ``LinkedExited``, and ``HubError``: `.wrongThread` if either greenlet belongs to another thread,
    /// `.invalidSwitch` if the receiver is the hub, into which nothing can be thrown.
    ///
    /// gevent: `Greenlet.link(receiver)`, `link_value`, `link_exception` with a greenlet.
    @discardableResult
    public final func link(
        to receiver: AnyGreenlet, on condition: GreenletLink.Condition = .exit
    ) throws -> GreenletLink {
        _ = try ownHub()
        try receiver.checkCanBeThrownInto()
        if isReady && receiver.isCurrent && condition.isMet(by: self) { throw LinkedExited.make(self) }
        return addLink(condition, to: receiver)
    }

    final func addLink(_ condition: GreenletLink.Condition, to receiver: AnyGreenlet) -> GreenletLink {
        // Weak: two greenlets may be linked to each other. A receiver that was started lives by itself, and one that
        // nobody holds can never be started.
        addLink(condition, isRaw: true) { [weak receiver] ended in
            receiver?.deliver(LinkedExited.make(ended))
        }
    }

    /// For what was just spawned.
    @usableFromInline
    final func linkToSpawner(_ condition: GreenletLink.Condition) {
        let spawner = AnyGreenlet.current
        // Not a precondition, which says nothing in an optimised build.
        if spawner is HubGreenlet { fatalError("spawnLinked in a hub callback: nothing can be thrown into the hub") }
        _ = addLink(condition, to: spawner)
    }
}

extension Greenlet {
    /// Makes a greenlet, starts it and links it to the current one, in which a ``LinkedExited`` is raised when the new
    /// one ends as `condition` says. Returns before the body runs.
    ///
    /// With `.error` it says "die with my child"; with `.exit`, the default, that a background greenlet is to outlive
    /// its spawner. In a hub callback there is nobody to throw into: a programming error, which traps.
    ///
    /// gevent: `Greenlet.spawn_link(function)`, `spawn_link_value`, `spawn_link_exception`.
    @inlinable
    @discardableResult
    @available(*, noasync)
    public static func spawnLinked(
        on condition: GreenletLink.Condition = .exit, _ body: @escaping () throws -> Output
    ) -> Greenlet<Output> {
        let greenlet = spawn(body)
        greenlet.linkToSpawner(condition)
        return greenlet
    }
}

/// Makes a greenlet, starts it and links it to the current one; see ``Greenlet/spawnLinked(on:_:)``.
///
/// gevent: `gevent.spawn_link(function)`, `spawn_link_value`, `spawn_link_exception`.
@inlinable
@discardableResult
@available(*, noasync)
public func spawnLinked<Output>(
    on condition: GreenletLink.Condition = .exit, _ body: @escaping () throws -> Output
) -> Greenlet<Output> {
    Greenlet.spawnLinked(on: condition, body)
}
