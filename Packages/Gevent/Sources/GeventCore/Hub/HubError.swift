/// Misuse of the hub, or a program that cannot continue.
///
/// gevent spreads these over `LoopExit`, `BlockingSwitchOutError`, `InvalidSwitchError`, `ConcurrentObjectUseError`,
/// `InvalidThreadUseError` and `HubDestroyed`; here they are one type with a code.
public struct HubError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of an error. New codes may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// No greenlet is ready and no pending event can make one ready. Raised in main, with a report of every parked
        /// greenlet. Also thrown, without a report, to a greenlet that waits for its own end. gevent: `LoopExit`.
        case wouldBlockForever
        /// Code on the hub's own stack tried to park: a hub callback, a raw link, a posted job. gevent:
        /// `BlockingSwitchOutError`.
        case blockedInHub
        /// A wake-up for which no greenlet waits. gevent: `InvalidSwitchError`.
        case invalidSwitch
        /// A second waiter where only one is allowed: two readers of one descriptor. gevent:
        /// `ConcurrentObjectUseError`.
        case concurrentUse
        /// A greenlet, a timeout or a descriptor was used on a thread other than its hub's, or a hub was requested in a
        /// task, whose thread may change. gevent: `InvalidThreadUseError`.
        case wrongThread
        /// The hub, or the hub of the object that was used, was destroyed. gevent: `HubDestroyed`.
        case destroyed
        /// Memory or the kernel's limit of mappings does not allow another stack. The greenlet that needed the stack
        /// ends with this error without having run.
        case outOfStacks
    }

    /// The kind of error, for programs.
    public let code: Code
    /// The description of the error, for people.
    public let message: String

    /// Creates an error with a code and a message.
    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { "\(code.rawValue): \(message)" }
}

extension HubError {
    package static var wrongThread: HubError {
        HubError(
            .wrongThread,
            "a greenlet and the objects it waits for can be used only on their hub's thread; "
                + "another thread reaches a hub through hub.handle.post { }")
    }

    static var inTask: HubError {
        HubError(
            .wrongThread,
            "there can be no hub here: this is a task of Swift's concurrency, which may continue on another thread; "
                + "run code that parks on its own thread, and let its hub.handle.post { } resume a continuation")
    }

    package static var destroyed: HubError {
        HubError(
            .destroyed, "the hub and everything that belonged to it were destroyed; the thread's next use makes another"
        )
    }

    /// Returns the error for an object whose hub, with this serial, is not the calling thread's.
    static func wrongHubError(_ serial: UInt32) -> HubError {
        HubRegistry.contains(serial: serial) ? wrongThread : destroyed
    }

    static var blockedInHub: HubError {
        HubError(
            .blockedInHub,
            "a hub callback, raw link or posted job tried to wait; it runs on the hub itself, which must not stop: "
                + "spawn a greenlet and wait in it")
    }
}
