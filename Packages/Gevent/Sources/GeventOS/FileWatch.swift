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
/// A watch with `onChange` goes on until it is closed or its hub is destroyed, whoever holds it; any other ends with
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
    public private(set) var isOpen = true

    private let hub: Hub
    private let changes = Event()
    private let onChange: ((FileWatch) throws -> Void)?
    private var hold: HubHold?
    /// A watch with `onChange` keeps itself.
    private var keeper: FileWatch?
    /// Something has changed since a wait last said so.
    private var isUnseen = false
    private var changeCount: UInt64 = 0
    private var isCalling = false
    private var mustCallAgain = false
    private var failure: LoopError?
    /// The kernel's watches that concern this one; the service's to change.
    var kernelWatches: Set<CInt> = []

    /// Watches `path` from now on. Never parks.
    ///
    /// `onChange` runs after each change, in a greenlet of its own, never two at a time: changes that come meanwhile
    /// lead to one more call. Its errors are reported, and the watch goes on. `referenced` says whether a watch with
    /// `onChange` keeps the hub waiting; a parked ``wait(timeout:)`` always does.
    ///
    /// Throws ``LoopError``: with `.outOfResources` if descriptors or the user's inotify watches have run out, with
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
        if isOpen && !hub.isDestroyed && gevent_hub_current() == hub.pointer {
            hub.existingService(FileWatchService.self)?.detach(kernelWatches, of: nil)
        }
    }

    /// Whether it keeps the hub waiting. Only a watch with `onChange` can, until it is closed; a parked
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
    /// When several greenlets wait, all of them return. Throws ``LoopError`` with `.closed` once the watch is closed,
    /// another one if the kernel refuses to go on watching, and what interrupts the greenlet.
    @available(*, noasync)
    public func wait(timeout: Duration? = nil) throws -> Bool {
        try checkThread()
        if isOpen && !isUnseen { look() }
        if isUnseen {
            isUnseen = false
            return true
        }
        try checkOpen()
        if let timeout, timeout <= .zero { return false }
        let hold = hub.hold()
        defer { hold.release() }
        let count = changeCount
        let shown = UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
        if try !changes.park(hub.pointer, .fileChange, timeout, showing: shown) { return false }
        if changeCount == count { try checkOpen() }
        return true
    }

    /// Stops watching. Greenlets that wait are thrown ``LoopError`` with `.closed`. Repeatable. Never parks.
    public func close() throws {
        if !isOpen { return }
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
        if isOpen { return }
        throw failure ?? LoopError(.closed, operation: "watch \(path)", message: "the watch was closed")
    }

    // MARK: The hub's side

    /// Ends it, with the reason if it was not asked for.
    func stop(_ failure: LoopError? = nil) {
        isOpen = false
        self.failure = failure
        hold = nil
        changes.tellAll(hub.pointer)
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
        changes.tellAll(hub.pointer)
        if onChange != nil { startCall() }
    }

    private func startCall() {
        if isCalling {
            mustCallAgain = true
            return
        }
        isCalling = true
        let turn = Turn { [weak self] in self?.callIsOver() }
        RawGreenlet(hub: hub.pointer) { [self] in
            try withExtendedLifetime(turn) { if isOpen { try onChange?(self) } }
        }.start(hub.pointer)
    }

    private func callIsOver() {
        isCalling = false
        if mustCallAgain && isOpen {
            mustCallAgain = false
            startCall()
        }
    }
}

@available(*, unavailable)
extension FileWatch: Sendable {}

/// Without the current directory, which may change.
private func absolute(_ path: String) throws(LoopError) -> String {
    if path.isEmpty { throw LoopError(errno: ENOENT, operation: "watch a file", fileDescriptor: nil) }
    // The kernel would take what stands before it for the path.
    if path.utf8.contains(0) { throw LoopError(errno: EINVAL, operation: "watch a file", fileDescriptor: nil) }
    var result = path
    if !path.hasPrefix("/") {
        guard let directory = getcwd(nil, 0) else { throw LoopError(errno: errno, operation: "getcwd") }
        defer { free(directory) }
        result = "\(String(cString: directory))/\(path)"
    }
    while result.count > 1 && result.hasSuffix("/") { result.removeLast() }
    return result
}
