extension JoinableGreenlet {
    /// Raises a ``LinkedExited`` in `receiver` when this greenlet ends as `condition` says: where the receiver is
    /// parked, or at its next switch point. Never parks.
    ///
    /// A receiver that has not run by then never runs; one that has ended is ignored. The link does not retain the
    /// receiver. It is notified in registration order with other links. If this greenlet has ended already, the error
    /// is raised in the receiver as soon as the caller parks. There is one exception: if the receiver is the *current*
    /// greenlet, this call itself throws the error.
    ///
    /// ```swift
    /// try greenlet.link(to: .current)
    /// ```
    ///
    /// Throws that ``LinkedExited``. Throws ``HubError`` with `.wrongThread` if either greenlet belongs to another
    /// thread, and with `.invalidSwitch` if the receiver is the hub, to which no error can be delivered.
    ///
    /// gevent: `Greenlet.link(receiver)`, `link_value`, `link_exception` with a greenlet.
    @discardableResult
    public final func link(
        to receiver: AnyGreenlet, on condition: LinkCondition = .exit
    ) throws -> Registration {
        _ = try ownHub()
        try receiver.checkCanBeThrownInto()
        if isReady && receiver.isCurrent && condition.isMet(by: self) { throw LinkedExited(self) }
        return addLink(condition, to: receiver)
    }

    final func addLink(_ condition: LinkCondition, to receiver: AnyGreenlet) -> Registration {
        // Weak, because two greenlets may be linked to each other. A started receiver keeps itself alive, and one
        // without references can never be started.
        addLink(condition, isRaw: true) { [weak receiver] ended in
            receiver?.deliver(LinkedExited(ended))
        }
    }

    /// Links this newly spawned greenlet to the current one.
    @usableFromInline
    final func linkToSpawner(_ condition: LinkCondition) {
        let spawner = AnyGreenlet.current
        // Not a precondition, because that prints no message in an optimised build.
        if spawner.isHub { fatalError("spawnLinked in a hub callback: nothing can be thrown into the hub") }
        _ = addLink(condition, to: spawner)
    }
}

extension Greenlet {
    /// Makes a greenlet, starts it and links it to the current one. A ``LinkedExited`` is raised in the current
    /// greenlet when the new one ends as `condition` says. Returns before the body runs.
    ///
    /// With `.error`, the spawner fails with its child. With `.exit`, the default, it also learns of the end of a
    /// background greenlet that should outlive it. In a hub callback there is no greenlet to raise the error in, so the
    /// call is a programming error and traps.
    ///
    /// gevent: `Greenlet.spawn_link(function)`, `spawn_link_value`, `spawn_link_exception`.
    @inlinable
    @discardableResult
    @available(*, noasync)
    public static func spawnLinked(
        on condition: LinkCondition = .exit, _ body: @escaping () throws -> Output
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
    on condition: LinkCondition = .exit, _ body: @escaping () throws -> Output
) -> Greenlet<Output> {
    Greenlet.spawnLinked(on: condition, body)
}
