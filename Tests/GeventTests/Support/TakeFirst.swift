import CGevent
import Gevent

@testable import GeventCore

/// One of several alternatives that a greenlet waits to take: a case of a `select`.
final class TakeCase {
    /// Takes at once if possible.
    let takeNow: () throws -> Bool
    let enlist: (MultiWait, Int) throws -> Void
    let withdraw: (MultiWait, Int) -> Void
    /// Uses the value handed to the waiter.
    let finish: () -> Void
    private let release: () -> Void

    init<Object: Waitable>(_ object: Object, _ use: @escaping (Object.Handover) -> Void) {
        let room = UnsafeMutablePointer<Object.Handover>.allocate(capacity: 1)
        takeNow = {
            guard let value = try object.takeIfReady() else { return false }
            use(value)
            return true
        }
        enlist = { try $0.enlist(with: object, at: $1, destination: room) }
        withdraw = { $0.withdraw(from: object, at: $1) }
        finish = { use(room.move()) }
        release = { room.deallocate() }
    }

    deinit { release() }
}

/// Waits until one of `cases` is taken, and returns its index; nil on timeout. A future `select` will use the contract
/// of `Waitable` in this way: exactly one object hands over a value.
func takeFirst(of cases: [TakeCase], timeout: Duration? = nil) throws -> Int? {
    for (place, one) in cases.enumerated() where try one.takeNow() { return place }
    let hub = try currentHub()
    let deadline = timeout.map { Hub.time(hub).advanced(by: $0) }
    let waiter = MultiWait(count: cases.count, requiredCount: 1, hub)
    defer { for (place, one) in cases.enumerated() { one.withdraw(waiter, place) } }
    for (place, one) in cases.enumerated() where waiter.chosen.isEmpty { try one.enlist(waiter, place) }
    guard try waiter.wait(for: 1, until: deadline, .waitMany, hub) else { return nil }
    cases[waiter.chosen[0]].finish()
    return waiter.chosen[0]
}
