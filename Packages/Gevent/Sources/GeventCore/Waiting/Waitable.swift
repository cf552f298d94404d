internal import CGevent

/// An object that greenlets wait for, alone or together with others.
///
/// Greenlets, ``Event``, ``AsyncResult``, ``Semaphore``, ``SimpleQueue`` and ``Queue``, ``ChildWatch`` and
/// ``DescriptorReadiness`` conform. ``wait(_:timeout:count:)->[Object]`` and `iwait` use nothing but this protocol.
///
/// ## The contract
///
/// An object is *ready* while a wait for it would return at once. A *waiter* is enlisted with an object that is not
/// ready, and may be enlisted with several objects at once.
///
/// - **Take**: ``takeIfReady()`` takes at once what a wait hands over, or returns nil. It never parks.
/// - **Enlist**: ``enlist(_:)`` adds a waiter to the object's waiters. An object that is ready by then chooses the
///   waiter at once.
/// - **Choose**: an object that becomes ready chooses its waiters in the order in which they were enlisted, by
///   ``Enlistment/choose(handing:)``, as long as it has something for the next one. It removes a waiter before it
///   chooses it. Choosing is one step: it hands over what the waiter waits for, makes the waiting greenlet ready, and
///   withdraws the waiter from all other objects. So exactly one object chooses a waiter that takes, and the others
///   keep what they have.
/// - **Withdraw**: ``withdraw(_:)`` removes a waiter. A waiter whose wait has ended in another way, by an error, by its
///   timeout or by another object, cannot be chosen from that moment on: `choose` returns false and hands nothing over.
///   The waiting greenlet calls `withdraw` when it runs next.
///
/// A wait that has ended stays ended: an error that arrives between the choice and the moment when the chosen greenlet
/// runs is thrown where that greenlet parks next. So what was handed over always arrives, and no object has to take it
/// back.
///
/// Some waiters only want to know that the object is ready and take nothing; `choose` leaves the element where it is
/// for them. Waiters of ``wait(_:timeout:count:)->[Object]`` and `iwait` are of this kind.
///
/// ## Conforming
///
/// A type that has an object of the library's passes the calls on to it:
///
/// ```swift
/// final class Download: Waitable {
///     private let finished = Event()
///     var isReady: Bool { finished.isReady }
///     func enlist(_ waiter: Enlistment<Void>) throws { try finished.enlist(waiter) }
///     func withdraw(_ waiter: Enlistment<Void>) { finished.withdraw(waiter) }
/// }
/// ```
///
/// A type with elements of its own keeps its waiters in an array:
///
/// ```swift
/// final class Mailbox: Waitable {
///     private var letters: [String] = []
///     private var waiters: [Enlistment<String>] = []
///     var isReady: Bool { !letters.isEmpty }
///
///     func takeIfReady() -> String? { letters.isEmpty ? nil : letters.removeFirst() }
///
///     func enlist(_ waiter: Enlistment<String>) {
///         waiters.append(waiter)
///         serve()
///     }
///
///     func withdraw(_ waiter: Enlistment<String>) { waiters.removeAll { $0 == waiter } }
///
///     func add(_ letter: String) {
///         letters.append(letter)
///         serve()
///     }
///
///     private func serve() {
///         while !letters.isEmpty, !waiters.isEmpty {
///             waiters.removeFirst().choose { letters.removeFirst() }
///         }
///     }
/// }
/// ```
///
/// All calls are made on the thread of the object's hub.
///
/// gevent: an object with `rawlink`, `unlink` and `ready`.
public protocol Waitable<Handover>: AnyObject {
    /// What a wait for the object hands over: the element of a queue. `Void` for an object that only becomes ready, and
    /// for a permit.
    associatedtype Handover = Void

    /// Whether a wait for the object would return at once.
    var isReady: Bool { get }

    /// The place of this object among all objects of the hub in the order in which they became ready; nil if the object
    /// is not ready. `UInt64.max`, which is the default, means that the order is not known.
    ///
    /// Throws ``HubError`` with `.wrongThread`, or why the object cannot be waited for.
    func readyOrder() throws -> UInt64?

    /// Takes what a wait for the object hands over, or returns nil if the object is not ready. Never parks.
    ///
    /// Throws what a wait for the object would throw at once. An object without elements needs no implementation.
    func takeIfReady() throws -> Handover?

    /// Adds a waiter, or chooses it at once if the object is ready. Never parks.
    ///
    /// Throws if the object cannot be waited for; the waiter is not enlisted then.
    func enlist(_ waiter: Enlistment<Handover>) throws

    /// Removes a waiter. Has no effect on a waiter that the object has chosen or does not have. Never parks.
    func withdraw(_ waiter: Enlistment<Handover>)
}

extension Waitable {
    public func readyOrder() throws -> UInt64? { isReady ? .max : nil }

    /// Calls `callback` once, on the hub, soon after the object has become ready, or soon if it is ready now; never
    /// inside `rawLink` itself.
    ///
    /// Callbacks are called in the order of registration, and take nothing from the object. `callback` must not park:
    /// that is reported as ``HubError`` with `.blockedInHub`, like an error that it throws. Cancelling the registration
    /// prevents the call. Traps on a foreign thread.
    ///
    /// gevent: `rawlink(callback)`, `unlink(callback)`.
    @discardableResult
    public func rawLink(_ callback: @escaping () throws -> Void) -> Registration {
        let waiter = CallbackWaiter(callback)
        let enlistment = Enlistment<Handover>(waiter, place: 1, room: nil)
        do {
            try enlist(enlistment)
        } catch let error as HubError {
            fatalError("\(error)")
        } catch {  // control: enlisting does not park; what cannot be waited for counts as ready
            enlistment.refuse(throwing: error)
        }
        return WaitLink(waiter, enlistment, of: self)
    }
}

extension Waitable where Handover == Void {
    public func takeIfReady() throws -> Void? { try readyOrder().map { _ in } }
}

/// A waiter in the list of one object that it waits for.
///
/// An object stores it in ``Waitable/enlist(_:)`` and chooses it when it becomes ready. Confined to the thread of its
/// hub.
public struct Enlistment<Handover>: Equatable {
    let waiter: EnlistedWaiter
    let place: Int
    /// Memory for what is handed over; nil for a waiter that takes nothing.
    let room: UnsafeMutablePointer<Handover>?

    init(_ waiter: EnlistedWaiter, place: Int, room: UnsafeMutablePointer<Handover>?) {
        (self.waiter, self.place, self.room) = (waiter, place, room)
    }

    /// Whether the object can still choose the waiter: false once any object has chosen it or its wait has ended.
    public var isWaiting: Bool { waiter.isWaiting(at: place) }

    /// Chooses the waiter: hands over what `take` returns, makes the waiting greenlet ready and withdraws the waiter
    /// from all other objects, in one step. Never parks. Traps on a foreign thread.
    ///
    /// Returns false, and does nothing, if the waiter is not waiting any more. `take` is called only if the waiter
    /// takes something; then the object is the only one that hands something over to it.
    @discardableResult
    public func choose(handing take: () -> Handover) -> Bool {
        waiter.requireThread()
        guard isWaiting else { return false }
        if let room {
            // First, so that nothing that `take` does can make another object choose the waiter.
            waiter.withdraw(keeping: place)
            room.initialize(to: take())
        }
        waiter.choose(at: place, throwing: nil)
        return true
    }

    /// Ends the wait with an error, because the object can never become ready: the waiting greenlet is thrown `error`.
    /// Otherwise like ``choose(handing:)``.
    @discardableResult
    public func refuse(throwing error: any Error) -> Bool {
        waiter.requireThread()
        guard isWaiting else { return false }
        waiter.choose(at: place, throwing: error)
        return true
    }

    public static func == (one: Enlistment, other: Enlistment) -> Bool {
        one.waiter === other.waiter && one.place == other.place
    }
}

extension Enlistment where Handover == Void {
    /// Chooses the waiter, as ``choose(handing:)`` does, with nothing to hand over.
    @discardableResult
    public func choose() -> Bool { choose {} }
}

@available(*, unavailable)
extension Enlistment: Sendable {}

extension JoinableGreenlet: Waitable {
    /// The place of the end among all ends; see ``Waitable/readyOrder()``.
    public final func readyOrder() throws -> UInt64? {
        _ = try ownHub()
        return isReady ? endOrder : nil
    }

    /// See ``Waitable/enlist(_:)``.
    public final func enlist(_ waiter: Enlistment<Void>) throws {
        let hub = try ownHub()
        // While the links are being notified, a new one is notified after the others.
        let isOver = isReady && !isNotifying
        if isOver && !waiter.isCallback {
            waiter.choose()
            return
        }
        // A callback is one of the links until its turn comes, so that it can be removed until then.
        append(waiter.link, kind: waiter.prepareLink(), payload: waiter.link.pointee.payload, hub)
        if isOver { CallbackWaiter.of(waiter.link).callSoon(hub) }
    }

    /// See ``Waitable/withdraw(_:)``.
    public final func withdraw(_ waiter: Enlistment<Void>) {
        waiter.leaveList()
        releaseEmptyLinks()
    }
}
