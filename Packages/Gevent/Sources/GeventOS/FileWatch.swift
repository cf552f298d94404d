internal import CGevent
internal import GeventCore
internal import Glibc

/// A watch of a path, which reports when the file is created, changed, deleted, or replaced by a rename.
///
/// The kernel reports changes through inotify, so nothing is polled. One descriptor serves all watches of a hub. The
/// file, its directory and the directories above it need not exist: the watch uses the nearest existing directory until
/// the next one appears. The kernel does not report some changes: a rename of a directory above the file's own, a
/// replacement of a symbolic link's target, and changes by other machines on a network file system. Two changes within
/// one clock tick of the file system that keep the size are reported as one.
///
/// A watch with `onChange` stays active until it is cancelled or its hub is destroyed, even without references. A watch
/// without it ends with its last reference. Confined to the thread of its hub.
///
/// gevent: `loop.stat(path, interval)`.
public final class FileWatch: CustomStringConvertible {
    /// The absolute path, resolved when the watch was made.
    public let path: String
    /// The file's attributes at the hub's last check; nil if the file is missing.
    ///
    /// gevent: `stat.attr`.
    public private(set) var attributes: FileAttributes?
    /// The attributes before the latest change. While the file is missing, its last known attributes.
    ///
    /// gevent: `stat.prev`.
    public private(set) var previous: FileAttributes?
    /// Whether the watch is active.
    public private(set) var isActive = true

    private let hub: Hub
    private let changes = Event()
    private let onChange: ((FileWatch) throws -> Void)?
    private var hold: Registration?
    /// A reference to itself, which keeps a watch with `onChange` alive.
    private var keeper: FileWatch?
    /// Whether there was a change that no wait has reported yet.
    private var hasUnreportedChange = false
    private var changeCount: UInt64 = 0
    private var isCalling = false
    private var mustCallAgain = false
    private var failure: (any Error)?
    /// The inotify watches that serve this one. Only the service changes them.
    var kernelWatches: Set<CInt> = []

    /// Watches `path` from now on. Never parks.
    ///
    /// `onChange` runs in a new greenlet after each change, one call at a time. Changes during a call cause one more
    /// call. Its errors are reported, and the watch stays active. `referenced` determines whether a watch with
    /// `onChange` keeps the hub waiting; a parked ``wait(timeout:)`` always does.
    ///
    /// Throws ``SystemError``: with EMFILE or ENOSPC if descriptors or the user's inotify watches are exhausted, and
    /// with EACCES without read permission for the file or a directory, which inotify requires.
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
        // On another thread the service cannot be used. It later notices that its weak reference is nil.
        if isActive && !hub.isDestroyed && gevent_hub_current() == hub.pointer {
            hub.existingService(FileWatchService.self)?.detach(kernelWatches, of: nil)
        }
    }

    /// Whether the watch keeps the hub waiting. Only an active watch with `onChange` can; a parked ``wait(timeout:)``
    /// always does.
    ///
    /// gevent: `watcher.ref`.
    public var isReferenced: Bool {
        get { hold != nil }
        set {
            if keeper == nil || newValue == isReferenced { return }
            hold = newValue ? hub.hold() : nil
        }
    }

    /// Parks until the attributes change, for at most `timeout`. Returns whether they have changed.
    ///
    /// If a change has not been reported by a wait yet, the next wait returns at once, so no change between two waits
    /// is missed. A change wakes all waiters. Throws ``SystemError`` with ECANCELED if the watch is cancelled, or with
    /// another error number if the kernel can no longer watch the path. Throws errors delivered to the greenlet.
    @available(*, noasync)
    public func wait(timeout: Duration? = nil) throws -> Bool {
        try checkThread()
        if isActive && !hasUnreportedChange { check() }
        if hasUnreportedChange {
            hasUnreportedChange = false
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

    /// Stops watching. Waiting greenlets receive ``SystemError`` with ECANCELED. Repeatable. Never parks.
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

    /// Ends the watch. `failure` is the reason, or nil if it was cancelled.
    func stop(_ failure: (any Error)? = nil) {
        isActive = false
        self.failure = failure
        hold = nil
        changes.notifyAll(hub.pointer)
        keeper = nil
    }

    /// Reads the attributes, and notifies waiters and `onChange` if they have changed.
    func check() {
        let now = FileAttributes(path: path)
        if now == attributes { return }
        if let attributes { previous = attributes }
        attributes = now
        changeCount += 1
        hasUnreportedChange = changes.waiters.isEmpty
        changes.notifyAll(hub.pointer)
        if onChange != nil { startCall() }
    }

    private func startCall() {
        if isCalling {
            mustCallAgain = true
            return
        }
        isCalling = true
        let atEnd = DeinitAction { [weak self] in self?.callHasEnded() }
        RawGreenlet(hub: hub.pointer) { [self] in
            try withExtendedLifetime(atEnd) { if isActive { try onChange?(self) } }
        }.start(hub.pointer)
    }

    private func callHasEnded() {
        isCalling = false
        if mustCallAgain && isActive {
            mustCallAgain = false
            startCall()
        }
    }
}

@available(*, unavailable)
extension FileWatch: Sendable {}

/// Returns `path` as an absolute path, because the current directory may change.
private func absolute(_ path: String) throws(SystemError) -> String {
    if path.isEmpty { throw SystemError(errno: ENOENT, operation: "watch", object: "a path without a name") }
    // The kernel would truncate the path at the null byte.
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
