/// Raised in a greenlet that is linked to another when that other one ends.
///
/// ```swift
/// do {
///     spawnLinked(on: .error) { try feed() }
///     try consume()
/// } catch let failed as LinkedFailed {
///     print("\(failed) failed: \(failed.error)")
/// }
/// ```
///
/// What is caught is one of the three kinds: ``LinkedCompleted``, ``LinkedKilled``, which counts as completed, and
/// ``LinkedFailed``. A class tree, because `catch` then tells kinds from subkinds by itself, and a kind is still a type
/// with members of its own. Errors cross threads and the ended greenlet must not, so it is described, not held; its
/// value is not described, since that may be of any size.
///
/// A ``ControlError``, since it has nothing to do with the call that throws it.
///
/// gevent: `gevent.greenlet.LinkedExited`.
public class LinkedExited: ControlError, CustomStringConvertible, @unchecked Sendable {  // only Sendable `let`s
    // Nobody outside can subclass it, and subclasses here have `let`s of Sendable type too.

    /// The description of the greenlet that ended.
    public let description: String
    /// Its ``AnyGreenlet/minimalID``, which another greenlet may have by the time that one's object is gone.
    public let minimalID: Int

    fileprivate init(_ greenlet: JoinableGreenlet) {
        // First, since it is part of the description.
        minimalID = greenlet.minimalID
        description = greenlet.description
    }

    /// Of the kind that fits how `greenlet` ended.
    static func make(_ greenlet: JoinableGreenlet) -> LinkedExited {
        if let error = greenlet.error { return LinkedFailed(greenlet, error) }
        if let exit = greenlet.exit { return LinkedKilled(greenlet, exit) }
        return LinkedCompleted(greenlet)
    }
}

/// The linked greenlet ended with a value, or silently.
///
/// gevent: `gevent.greenlet.LinkedCompleted`.
public class LinkedCompleted: LinkedExited, @unchecked Sendable {}  // as LinkedExited

/// The linked greenlet ended with an exit, which counts as completed.
///
/// gevent: `gevent.greenlet.LinkedKilled`.
public final class LinkedKilled: LinkedCompleted, @unchecked Sendable {  // as LinkedExited
    /// The exit.
    public let exit: any GreenletExitError

    fileprivate init(_ greenlet: JoinableGreenlet, _ exit: any GreenletExitError) {
        self.exit = exit
        super.init(greenlet)
    }
}

/// The linked greenlet failed.
///
/// gevent: `gevent.greenlet.LinkedFailed`.
public final class LinkedFailed: LinkedExited, @unchecked Sendable {  // as LinkedExited
    /// What it failed with.
    public let error: any Error

    fileprivate init(_ greenlet: JoinableGreenlet, _ error: any Error) {
        self.error = error
        super.init(greenlet)
    }
}
