internal import CGevent

/// An object that greenlets wait for, alone or together with others.
///
/// Greenlets, ``Event``, ``AsyncResult``, ``Semaphore``, ``SimpleQueue`` and ``Queue``, ``ChildWatch`` and
/// ``DescriptorReadiness`` conform. ``wait(_:timeout:count:)->[Object]`` and `iwait` use nothing but this protocol.
///
/// ## The contract
///
/// An object is *ready* while a wait for it would return at once. A *waiter* is enlisted with an object, and may be
/// enlisted with several objects at once.
///
/// - **Take**: ``takeIfReady()`` takes the element that a wait would hand over, or returns nil. It never parks.
/// - **Enlist**: ``enlist(_:)`` adds a waiter to the object's waiters. An object that is already ready chooses the
///   waiter at once.
/// - **Choose**: an object that becomes ready chooses its waiters in the order in which they were enlisted, by
///   ``Enlistment/choose(handing:)``, as long as it has an element for the next one. It removes a waiter before it
///   chooses it. Choosing is one step. For a waiter that takes an element, it hands over the element, makes the waiting
///   greenlet ready, and withdraws the waiter from all other objects. So exactly one object chooses it, and the others
///   keep their elements. A waiter that takes nothing may wait for several objects; the last of them makes the greenlet
///   ready.
/// - **Withdraw**: ``withdraw(_:)`` removes a waiter. Once the wait has ended in another way, by an error, by its
///   timeout or by another object, the waiter cannot be chosen: `choose` returns false and hands nothing over. The
///   waiting greenlet calls `withdraw` when it runs next.
///
/// A wait that has ended stays ended. An error that is delivered after the choice, but before the chosen greenlet runs,
/// stays pending and is thrown where that greenlet parks next. So an element that was handed over always arrives, and
/// no object has to reclaim one.
///
/// Some waiters take nothing and only need to know that the object is ready. For them `choose` leaves the element in
/// the object. The waiters of ``wait(_:timeout:count:)->[Object]`` and `iwait` are of this kind.
///
/// ## Conforming
///
/// A type that wraps one of the library's objects forwards the calls to it:
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
/// A type that stores elements itself keeps its waiters in an array:
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
    /// The type of the element that a wait for the object hands over, such as a queue's element. `Void` for a permit,
    /// and for an object that has no elements.
    associatedtype Handover = Void

    /// Whether a wait for the object would return at once.
    var isReady: Bool { get }

    /// Returns the position of this object in the order in which the hub's objects became ready, or nil if the object
    /// is not ready. `UInt64.max`, the default, means that the order is not known.
    ///
    /// Throws ``HubError`` with `.wrongThread`, or the reason why the object cannot be waited for.
    func readyOrder() throws -> UInt64?

    /// Takes the element that a wait would hand over, or returns nil if the object is not ready. Never parks.
    ///
    /// Throws the error that a wait for the object would throw at once. A default exists if `Handover` is `Void`.
    func takeIfReady() throws -> Handover?

    /// Adds a waiter, or chooses it at once if the object is ready. Never parks.
    ///
    /// Throws if the object cannot be waited for; the waiter is then not enlisted.
    func enlist(_ waiter: Enlistment<Handover>) throws

    /// Removes a waiter. Has no effect if the object has chosen the waiter or does not have it. Never parks.
    func withdraw(_ waiter: Enlistment<Handover>)
}

extension Waitable {
    public func readyOrder() throws -> UInt64? { isReady ? .max : nil }

    /// Calls `callback` once, on the hub, soon after the object becomes ready, or soon if it is ready now. Never calls
    /// it before `rawLink` returns.
    ///
    /// Callbacks are called in the order of registration, and take nothing from the object. `callback` must not park: a
    /// call that parks throws ``HubError`` with `.blockedInHub`. The hub reports the errors that `callback` throws.
    /// Cancelling the registration prevents the call. Traps on a foreign thread.
    ///
    /// gevent: `rawlink(callback)`, `unlink(callback)`.
    @discardableResult
    public func rawLink(_ callback: @escaping () throws -> Void) -> Registration {
        let waiter = CallbackWaiter(callback)
        let enlistment = Enlistment<Handover>(waiter, place: 1, destination: nil)
        do {
            try enlist(enlistment)
        } catch let error as HubError {
            fatalError("\(error)")
        } catch {  // control: enlisting does not park; an object that cannot be waited for counts as ready
            enlistment.refuse(throwing: error)
        }
        return WaitLink(waiter, enlistment, of: self)
    }
}

extension Waitable where Handover == Void {
    /// Returns a value if the object is ready, else nil. Throws the errors of ``readyOrder()``.
    public func takeIfReady() throws -> Void? { try readyOrder().map { _ in } }
}

/// A waiter's entry in the list of one object.
///
/// An object stores it in ``Waitable/enlist(_:)`` and chooses it when it becomes ready. Confined to the thread of its
/// hub.
public struct Enlistment<Handover>: Equatable {
    let waiter: EnlistedWaiter
    let place: Int
    /// Uninitialized memory for the element that is handed over; nil for a waiter that takes nothing.
    let destination: UnsafeMutablePointer<Handover>?

    init(_ waiter: EnlistedWaiter, place: Int, destination: UnsafeMutablePointer<Handover>?) {
        (self.waiter, self.place, self.destination) = (waiter, place, destination)
    }

    /// Whether this object can still choose the waiter: false once it has, or the wait has ended.
    public var isWaiting: Bool { waiter.isWaiting(at: place) }

    /// Chooses the waiter, in one step. Never parks. Traps on a foreign thread.
    ///
    /// If the waiter takes an element, hands over the one that `take` returns, makes the waiting greenlet ready and
    /// withdraws the waiter from all other objects; while `take` runs, no other object can choose it. If the waiter
    /// takes nothing, `take` is not called, and the greenlet becomes ready once enough objects have chosen the waiter.
    /// Returns false, and does nothing, if the wait has already ended.
    @discardableResult
    public func choose(handing take: () -> Handover) -> Bool {
        waiter.requireThread()
        guard isWaiting else { return false }
        if let destination {
            // Withdraw before calling `take`, which might make another object ready: it could choose the waiter too.
            waiter.withdraw(keeping: place)
            destination.initialize(to: take())
        }
        waiter.choose(at: place, throwing: nil)
        return true
    }

    /// Ends the wait by throwing `error` in the waiting greenlet, because the object can never become ready. A callback
    /// is called without it. Otherwise like ``choose(handing:)``.
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
    /// Chooses the waiter, as ``choose(handing:)`` does, without an element to hand over.
    @discardableResult
    public func choose() -> Bool { choose {} }
}

@available(*, unavailable)
extension Enlistment: Sendable {}

extension JoinableGreenlet: Waitable {
    /// Returns the position of this greenlet's end among the ends of all greenlets; see ``Waitable/readyOrder()``.
    public final func readyOrder() throws -> UInt64? {
        _ = try ownHub()
        return isReady ? endOrder : nil
    }

    /// See ``Waitable/enlist(_:)``.
    public final func enlist(_ waiter: Enlistment<Void>) throws {
        let hub = try ownHub()
        // While the links are being notified, a new link is appended, and is notified after the others.
        let hasEnded = isReady && !isNotifying
        if hasEnded && !waiter.isCallback {
            waiter.choose()
            return
        }
        // A callback stays in the list until it is called, so that it can be cancelled until then.
        append(waiter.link, kind: waiter.prepareLink(), payload: waiter.link.pointee.payload, hub)
        if hasEnded { CallbackWaiter.of(waiter.link).callSoon(hub) }
    }

    /// See ``Waitable/withdraw(_:)``.
    public final func withdraw(_ waiter: Enlistment<Void>) {
        waiter.leaveList()
        releaseEmptyLinks()
    }
}
