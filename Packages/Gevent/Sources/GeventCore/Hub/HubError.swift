/// Misuse of the hub, or a program that can go no further.
///
/// gevent spreads these over `LoopExit`, `BlockingSwitchOutError`, `InvalidSwitchError`, `ConcurrentObjectUseError`,
/// `InvalidThreadUseError` and `HubDestroyed`; here they are one type, told apart by their code.
public struct HubError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What went wrong. New codes may be added.
    @nonexhaustive
    public enum Code: String, Sendable, Hashable {
        /// Nothing is ready and nothing pending can make anything ready: raised in main, with a report of every parked
        /// greenlet. Also thrown, without a report, to a greenlet that waits for its own end. gevent: `LoopExit`.
        case wouldBlockForever
        /// Something tried to park on the hub's own stack: a hub callback, a raw link, a posted job. gevent:
        /// `BlockingSwitchOutError`.
        case blockedInHub
        /// A wake-up that nobody waits for. gevent: `InvalidSwitchError`.
        case invalidSwitch
        /// A second waiter where only one can be: two readers of one descriptor. gevent: `ConcurrentObjectUseError`.
        case concurrentUse
        /// A greenlet, a timeout or a descriptor was used away from its hub's thread, or a hub was asked for in a task,
        /// whose thread may change. gevent: `InvalidThreadUseError`.
        case wrongThread
        /// The hub, or that of the object that was used, was destroyed. gevent: `HubDestroyed`.
        case destroyed
        /// There is no memory, or no room among the kernel's mappings, for one more stack. The greenlet that was to
        /// have it ends with this error without having run.
        case outOfStacks
    }

    /// What went wrong, for programs.
    public let code: Code
    /// What went wrong, for people.
    public let message: String

    /// An error with a code and a message.
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
            "a greenlet and what it waits for can be used on their own hub's thread only; "
                + "another thread reaches a hub through hub.handle.post { }")
    }

    static var inTask: HubError {
        HubError(
            .wrongThread,
            "there can be no hub here: this is a task of Swift's concurrency, which may go on in another thread; "
                + "run what parks on a thread of its own, and let its hub.handle.post { } resume a continuation")
    }

    package static var destroyed: HubError {
        HubError(
            .destroyed, "the hub was destroyed, and what belonged to it with it; the thread's next use makes a new one")
    }

    /// What to say when the calling thread's hub is not the one with this serial.
    static func notHere(_ serial: UInt32) -> HubError {
        HubRegistry.contains(serial: serial) ? wrongThread : destroyed
    }

    static var blockedInHub: HubError {
        HubError(
            .blockedInHub,
            "a hub callback, raw link or posted job tried to wait; it runs on the hub itself, which has to go on: "
                + "spawn a greenlet there and wait in that")
    }
}
