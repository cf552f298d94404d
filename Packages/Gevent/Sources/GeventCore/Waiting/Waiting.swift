// The one wait primitive. Everything that parks does it in the same four steps:
//
//   1. `checkPending`: throw the pending error, if any; refuse to park the hub itself.
//   2. Register the context with what it waits for: a list, a descriptor's slot, its own timer.
//   3. `wait`: park.
//   4. On return nothing is registered any more: `gevent_wait_end` has removed every registration.

package import CGevent

/// The kind of a wait, as reports name it.
package enum WaitKind: UInt8, CaseIterable {
    case sleep = 1
    case join
    case joinAll
    case readable
    case writable
    case hubJoin
    case idle
    case child
    case fileChange
    case event
    case result
    case semaphore
    case queueGet
    case queuePut
    case queueJoin
    case waitMany
    case iwait
    case waiter
    case group
    case switchedOut

    /// The type of the wait's object, which is stored as an address and read only when a report is made.
    enum ObjectKind {
        case none
        /// A number: a descriptor or a process ID.
        case number
        /// A Swift object that the waiting greenlet retains. Reports show its description.
        case object
    }

    /// The words that follow "parked for 2 seconds in …". The object, if any, follows them.
    var phrase: String {
        switch self {
        case .sleep: "sleep"
        case .join: "join of"
        case .joinAll: "joinAll"
        case .readable: "a wait to read descriptor"
        case .writable: "a wait to write descriptor"
        case .hubJoin: "hub.join"
        case .idle: "idle"
        case .child: "a wait for the end of child process"
        case .fileChange: "a wait for a change of"
        case .event: "a wait for"
        case .result: "a wait for"
        case .semaphore: "a wait for"
        case .queueGet: "get or peek of"
        case .queuePut: "put into"
        case .queueJoin: "join of"
        case .waitMany: "wait for many objects"
        case .iwait: "iwait"
        case .waiter: "get of"
        case .group: "a wait for the end of"
        case .switchedOut: "a switch to"
        }
    }

    var objectKind: ObjectKind {
        switch self {
        case .join, .event, .result, .semaphore, .queueGet, .queuePut, .queueJoin, .waiter, .fileChange, .group,
            .switchedOut:
            .object
        case .readable, .writable, .child: .number
        case .sleep, .joinAll, .hubJoin, .waitMany, .iwait, .idle: .none
        }
    }
}

/// Describes the wait of a parked context.
package func waitPhrase(_ context: UnsafeMutablePointer<gevent_context>) -> String {
    guard let kind = WaitKind(rawValue: context.pointee.wait_kind) else { return "an unknown wait" }
    switch kind.objectKind {
    case .none:
        return kind.phrase
    case .number:
        return "\(kind.phrase) \(Int(bitPattern: context.pointee.wait_object))"
    case .object:
        // The waiting greenlet retains the object, so the object exists while the greenlet is parked.
        let object = Unmanaged<AnyObject>.fromOpaque(context.pointee.wait_object!).takeUnretainedValue()
        return "\(kind.phrase) \(object)"
    }
}

/// Step 1. Throws the pending error of the current greenlet, and on the hub `HubError` with `.blockedInHub`.
@inline(__always)
func checkPending(_ hub: UnsafeMutablePointer<gevent_hub>) throws {
    if gevent_pending_flags(hub) != UInt8(GEVENT_PENDING_NONE) { try throwPending(hub) }
}

@inline(never)
private func throwPending(_ hub: UnsafeMutablePointer<gevent_hub>) throws {
    if gevent_pending_flags(hub) == UInt8(GEVENT_PENDING_REFUSED) { throw HubError.blockedInHub }
    throw AnyGreenlet.current(of: hub).takePendingError()
}

/// Part of step 2. Sets a timeout for the wait that follows.
@inline(__always)
func armTimeout(
    _ timeout: Duration, _ context: UnsafeMutablePointer<gevent_context>, _ hub: UnsafeMutablePointer<gevent_hub>
) {
    let now = Hub.time(hub)
    gevent_wait_set_timer(
        hub, context, now.advanced(by: timeout).nanoseconds, now.nanoseconds, UInt32(GEVENT_TIMER_EXPIRE), true)
}

/// Part of step 2. Sets a deadline for the wait that follows.
@inline(__always)
func armDeadline(
    _ deadline: LoopInstant, _ context: UnsafeMutablePointer<gevent_context>, _ hub: UnsafeMutablePointer<gevent_hub>
) {
    gevent_wait_set_timer(
        hub, context, deadline.nanoseconds, Hub.time(hub).nanoseconds, UInt32(GEVENT_TIMER_EXPIRE), true)
}

/// Step 3. Parks. Returns true if the greenlet was woken, and false if its own timeout expired. Throws the error that
/// was delivered to the greenlet meanwhile. `object` is for reports; the caller keeps it alive.
@inline(__always)
func wait(_ hub: UnsafeMutablePointer<gevent_hub>, _ kind: WaitKind, _ object: AnyObject) throws -> Bool {
    try wait(hub, kind, UnsafeRawPointer(Unmanaged.passUnretained(object).toOpaque()))
}

@inline(__always)
func wait(_ hub: UnsafeMutablePointer<gevent_hub>, _ kind: WaitKind, _ object: UnsafeRawPointer?) throws -> Bool {
    let outcome = gevent_wait(hub, kind.rawValue, object)
    if outcome == UInt8(GEVENT_WAIT_FAILED) { throw AnyGreenlet.current(of: hub).takePendingError() }
    return outcome == UInt8(GEVENT_WAIT_WOKEN)
}
