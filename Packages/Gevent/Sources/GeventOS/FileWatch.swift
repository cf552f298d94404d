internal import CGevent
internal import GeventCore
internal import Glibc

/// Watches what a path names: its contents and attributes change, it is created, deleted, or replaced by a rename.
///
/// The kernel tells (inotify), so nothing is polled; one descriptor serves all watches of a hub. The file, its
/// directory and even the directories above it need not exist: then the nearest one that does is watched until the next
/// appears. Not told, because the kernel does not: that a directory above the file's own is renamed, that what a
/// symbolic link points to is replaced, what other machines do on a network file system. Two changes in one clock tick
/// of the file system that leave the size as it was look like one.
///
/// A watch with `onChange` goes on until it is cancelled or its hub is destroyed, whoever holds it; any other ends with
/// its last reference. Confined to the thread of its hub.
///
/// gevent: `loop.stat(path, interval)`.
public final class FileWatch: CustomStringConvertible {
    /// The path, absolute, as it was when the watch was made.
    public let path: String
    /// What the file was when the hub last looked; nil while it is missing.
    ///
    /// gevent: `stat.attr`.
    public private(set) var attributes: FileAttributes?
    /// What it was before the latest change; while the file is missing, what it was when it was last there.
    ///
    /// gevent: `stat.prev`.
    public private(set) var previous: FileAttributes?
    /// Whether it still watches.
    public private(set) var isActive = true

    private let hub: Hub
    private let changes = Event()
    private let onChange: ((FileWatch) throws -> Void)?
    private var hold: Registration?
    /// A watch with `onChange` keeps itself.
    private var keeper: FileWatch?
    /// Something has changed since a wait last said so.
    private var isUnseen = false
    private var changeCount: UInt64 = 0
    private var isCalling = false
    private var mustCallAgain = false
    private var failure: (any Error)?
    /// The kernel's watches that concern this one; the service's to change.
    var kernelWatches: Set<CInt> = []

    /// Watches `path` from now on. Never parks.
    ///
    /// `onChange` runs after each change, in a greenlet of its own, never two at a time: changes that come meanwhile
    /// lead to one more call. Its errors are reported, and the watch goes on. `referenced` says whether a watch with
    /// `onChange` keeps the hub waiting; a parked ``wait(timeout:)`` always does.
    ///
    /// Throws ``SystemError``: with EMFILE or ENOSPC if descriptors or the user's inotify watches have run out, with
    /// EACCES if the file or a directory must not be read, which the kernel asks for.
    public init(path: String, referenced: Bool = true, onChange: ((FileWatch) throws -> Void)? = nil) throws {
        hub = Hub.of(try currentHub())
        self.path = try absolute(path)
        self.onChange = onChange
        try hub.fileWatches().attach(self)
        attributes = FileAttributes(path: self.path)
        if onChange != nil {
            keeper = self
            if referenced { hold = hub.hold() }
        }
    }

    deinit {
        // On another thread the service finds out by itself that there is nobody any more.
        if isActive && !hub.isDestroyed && gevent_hub_current() == hub.pointer {
            hub.existingService(FileWatchService.self)?.detach(kernelWatches, of: nil)
        }
    }

    /// Whether it keeps the hub waiting. Only a watch with `onChange` can, until it is cancelled; a parked
    /// ``wait(timeout:)`` always does.
    ///
    /// gevent: `watcher.ref`.
    public var isReferenced: Bool {
        get { hold != nil }
        set {
            if keeper == nil || newValue == isReferenced { return }
            hold = newValue ? hub.hold() : nil
        }
    }

    /// Parks until the attributes change, or for at most `timeout`; returns whether they have.
    ///
    /// A change that nobody was told of by a wait is told by the next one at once, so none is missed between two waits.
    /// When several greenlets wait, all of them return. Throws ``SystemError``, with ECANCELED once the watch is
    /// cancelled, and with another number if the kernel refuses to go on watching; and what interrupts the greenlet.
    @available(*, noasync)
    public func wait(timeout: Duration? = nil) throws -> Bool {
        try checkThread()
        if isActive && !isUnseen { look() }
        if isUnseen {
            isUnseen = false
            return true
        }
        try checkOpen()
        if let timeout, timeout <= .zero { return false }
        let hold = hub.hold()
        defer { hold.cancel() }
        let count = changeCount
        let shown = UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
        if try !changes.park(hub.pointer, .fileChange, timeout, showing: shown) { return false }
        if changeCount == count { try checkOpen() }
        return true
    }

    /// Stops watching. Greenlets that wait are thrown ``SystemError`` with ECANCELED. Repeatable. Never parks.
    public func cancel() throws {
        if !isActive { return }
        try checkThread()
        stop()
        hub.existingService(FileWatchService.self)?.detach(kernelWatches, of: self)
        kernelWatches = []
    }

    public var description: String { "<FileWatch \"\(path)\">" }

    private func checkThread() throws {
        if hub.isDestroyed { throw HubError.destroyed }
        if gevent_hub_current() != hub.pointer { throw HubError.wrongThread }
    }

    private func checkOpen() throws {
        if isActive { return }
        throw failure
            ?? SystemError(errno: ECANCELED, operation: "watch", object: path, message: "the watch was cancelled")
    }

    // MARK: The hub's side

    /// Ends it, with the reason if it was not asked for.
    func stop(_ failure: (any Error)? = nil) {
        isActive = false
        self.failure = failure
        hold = nil
        changes.notifyAll(hub.pointer)
        keeper = nil
    }

    /// Looks at the file, and tells everybody if it is not what it was.
    func look() {
        let now = FileAttributes(path: path)
        if now == attributes { return }
        if let attributes { previous = attributes }
        attributes = now
        changeCount += 1
        isUnseen = changes.line.isEmpty
        changes.notifyAll(hub.pointer)
        if onChange != nil { startCall() }
    }

    private func startCall() {
        if isCalling {
            mustCallAgain = true
            return
        }
        isCalling = true
        let turn = DeinitAction { [weak self] in self?.callIsOver() }
        RawGreenlet(hub: hub.pointer) { [self] in
            try withExtendedLifetime(turn) { if isActive { try onChange?(self) } }
        }.start(hub.pointer)
    }

    private func callIsOver() {
        isCalling = false
        if mustCallAgain && isActive {
            mustCallAgain = false
            startCall()
        }
    }
}

@available(*, unavailable)
extension FileWatch: Sendable {}

/// Without the current directory, which may change.
private func absolute(_ path: String) throws(SystemError) -> String {
    if path.isEmpty { throw SystemError(errno: ENOENT, operation: "watch", object: "a path without a name") }
    // The kernel would take what stands before it for the path.
    if path.utf8.contains(0) { throw SystemError(errno: EINVAL, operation: "watch", object: path) }
    var result = path
    if !path.hasPrefix("/") {
        guard let directory = getcwd(nil, 0) else { throw SystemError(errno: errno, operation: "getcwd") }
        defer { free(directory) }
        result = "\(String(cString: directory))/\(path)"
    }
    while result.count > 1 && result.hasSuffix("/") { result.removeLast() }
    return result
}
