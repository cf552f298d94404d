/// The error that is raised in a greenlet when a greenlet linked to it ends.
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
/// Errors may cross threads, and the ended greenlet must not, so this error describes the greenlet and does not retain
/// it. It is a ``ControlError``, because it is unrelated to the call that throws it.
///
/// gevent: `gevent.greenlet.LinkedExited`.
public struct LinkedExited: ControlError, Sendable, CustomStringConvertible {
    /// How the linked greenlet ended.
    public enum Outcome: Sendable, CustomStringConvertible {
        /// With a value. The value is not stored here, since it may have any size.
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
    /// The greenlet's ``AnyGreenlet/minimalID``, which another greenlet may have once this greenlet is deallocated.
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
        // Read first, because the description includes it.
        minimalID = greenlet.minimalID
        description = greenlet.description
    }
}
