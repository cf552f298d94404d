/// Raised in a greenlet that is linked to another when that other one ends.
///
/// ```swift
/// do {
///     spawnLinked(on: .error) { try feed() }
///     try consume()
/// } catch let exited as LinkedExited {
///     print("\(exited) \(exited.outcome)")
/// }
/// ```
///
/// Errors cross threads and the ended greenlet must not, so the error describes the greenlet and does not hold it. A
/// ``ControlError``, since it has nothing to do with the call that throws it.
///
/// gevent: `gevent.greenlet.LinkedExited`.
public struct LinkedExited: ControlError, Sendable, CustomStringConvertible {
    /// How the linked greenlet ended.
    public enum Outcome: Sendable, CustomStringConvertible {
        /// With a value, which is not kept here, since it may be of any size.
        ///
        /// gevent: `gevent.greenlet.LinkedCompleted`.
        case completed
        /// With an exit, which counts as success.
        ///
        /// gevent: `gevent.greenlet.LinkedKilled`.
        case killed(any GreenletExitError)
        /// With an error.
        ///
        /// gevent: `gevent.greenlet.LinkedFailed`.
        case failed(any Error)

        public var description: String {
            switch self {
            case .completed: "completed"
            case .killed(let exit): "was killed: \(exit)"
            case .failed(let error): "failed: \(error)"
            }
        }
    }

    /// How the linked greenlet ended.
    public let outcome: Outcome
    /// The description of the greenlet that ended.
    public let description: String
    /// Its ``AnyGreenlet/minimalID``, which another greenlet may have once its object is deallocated.
    public let minimalID: Int

    init(_ greenlet: JoinableGreenlet) {
        outcome =
            if let error = greenlet.error {
                .failed(error)
            } else if let exit = greenlet.exit {
                .killed(exit)
            } else {
                .completed
            }
        // First, since it is part of the description.
        minimalID = greenlet.minimalID
        description = greenlet.description
    }
}
