internal import GeventCore
internal import Glibc

/// The file watches of one hub, which share one inotify descriptor.
///
/// For each path there are two inotify watches: one on the file, for changes of it, and one on its directory, for
/// changes of the name. If the directory is missing, the nearest existing one above is watched for the next path
/// component.
package final class FileWatchService: HubService {
    /// A file watch that an inotify watch serves.
    private struct Use {
        weak var file: FileWatch?
        /// The only relevant name in the watched directory; nil if the file itself is watched and all events are
        /// relevant.
        let name: String?
    }

    private static let ofFile = UInt32(IN_ATTRIB | IN_MODIFY | IN_DELETE_SELF | IN_MOVE_SELF | inDirectory)
    private static let ofDirectory = UInt32(IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | inDirectory)
    private static let inDirectory = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO

    private unowned let hub: Hub
    private var inotify: CInt = -1
    private var readiness: DescriptorWatch?
    private var uses: [CInt: [Use]] = [:]

    init(_ hub: Hub) throws {
        self.hub = hub
        try open()
    }

    private func open() throws {
        let result = inotify_init1(CInt(IN_NONBLOCK | IN_CLOEXEC))
        if result < 0 { throw SystemError(errno: errno, operation: "inotify_init1") }
        do {
            readiness = try DescriptorWatch(result, on: hub, referenced: false) { [unowned self] in readEvents() }
        } catch {
            _ = Glibc.close(result)
            throw error
        }
        inotify = result
    }

    private func close() {
        readiness?.close()
        readiness = nil
        if inotify >= 0 { _ = Glibc.close(inotify) }
        inotify = -1
        uses = [:]
    }

    private func closeIfUnused() {
        if !uses.isEmpty { return }
        close()
        hub.removeService(self)
    }

    // MARK: Kernel watches

    func attach(_ file: FileWatch) throws {
        do {
            try establish(file)
        } catch {
            closeIfUnused()
            throw error
        }
    }

    /// Removes a file's use of inotify watches. `file` is nil during its deinit.
    func detach(_ kernelWatches: Set<CInt>, of file: FileWatch?) {
        for number in kernelWatches { removeUse(number, of: file) }
        closeIfUnused()
    }

    private func removeUse(_ number: CInt, of file: FileWatch?) {
        uses[number]?.removeAll { $0.file == nil || $0.file === file }
        if uses[number]?.isEmpty == false { return }
        uses[number] = nil
        // Fails if the kernel has already removed the watch together with the file.
        _ = inotify_rm_watch(inotify, number)
    }

    /// Adds the inotify watches that the file needs now, and removes its obsolete ones.
    private func establish(_ file: FileWatch) throws {
        var wanted: [CInt: String?] = [:]
        // Watches that are no longer needed, including those of earlier attempts below.
        var obsolete = file.kernelWatches
        do {
            // Retries if the next component appeared before its directory was watched. The limit is for a component
            // that is created and removed all the time; the next event continues then.
            for _ in 0..<16 {
                obsolete.formUnion(wanted.keys)
                wanted = [:]
                let (directory, name) = try watchNearestDirectory(above: file.path, &wanted)
                let number = try watch(file.path, FileWatchService.ofFile)
                if let number { wanted[number] = .some(nil) }
                let next = directory == "/" ? "/\(name)" : "\(directory)/\(name)"
                if number != nil || next == file.path || FileAttributes(path: next) == nil { break }
            }
        } catch {
            for number in obsolete.union(wanted.keys) where uses[number] == nil { removeUse(number, of: nil) }
            throw error
        }
        for (number, name) in wanted {
            uses[number, default: []].removeAll { $0.file === file }
            uses[number, default: []].append(Use(file: file, name: name))
        }
        obsolete.subtract(wanted.keys)
        file.kernelWatches = Set(wanted.keys)
        for number in obsolete { removeUse(number, of: file) }
    }

    /// Watches the nearest existing directory above `path`. Returns it, and the path component expected in it.
    private func watchNearestDirectory(
        above path: String, _ wanted: inout [CInt: String?]
    ) throws -> (directory: String, name: String) {
        var path = Substring(path)
        while let slash = path.lastIndex(of: "/") {
            let name = String(path[path.index(after: slash)...])
            let directory = slash == path.startIndex ? "/" : String(path[..<slash])
            // The root directory has no parent.
            if name.isEmpty { return (directory, name) }
            if let number = try watch(directory, FileWatchService.ofDirectory) {
                wanted[number] = name
                return (directory, name)
            }
            path = path[..<slash]
        }
        return ("/", "")
    }

    /// Adds an inotify watch and returns its number; nil if there is no such file.
    private func watch(_ path: String, _ mask: UInt32) throws(SystemError) -> CInt? {
        // Keeps the events already watched there: the directory of one file may itself be watched.
        let number = inotify_add_watch(inotify, path, mask | UInt32(IN_MASK_ADD))
        if number >= 0 { return number }
        switch errno {
        case ENOENT, ENOTDIR, ELOOP: return nil
        case let error: throw SystemError(errno: error, operation: "inotify_add_watch", object: path)
        }
    }

    // MARK: Events

    private func readEvents() {
        // The affected files, and whether their inotify watches must be established again.
        var affected: [(file: FileWatch, moved: Bool)] = []
        func note(_ file: FileWatch, moved: Bool) {
            if let index = affected.firstIndex(where: { $0.file === file }) {
                affected[index].moved = affected[index].moved || moved
            } else {
                affected.append((file, moved))
            }
        }
        withUnsafeTemporaryAllocation(byteCount: 16384, alignment: 8) { buffer in
            // Bounded, because changes may arrive faster than they are read. Unread events keep the descriptor
            // readable.
            for _ in 0..<4 {
                let count = read(inotify, buffer.baseAddress, buffer.count)
                if count <= 0 { return }
                var offset = 0
                while offset < count {
                    let event = buffer.loadUnaligned(fromByteOffset: offset, as: inotify_event.self)
                    let nameStart = offset + MemoryLayout<inotify_event>.size
                    let bytes = buffer[nameStart..<nameStart + Int(event.len)].prefix { $0 != 0 }
                    distribute(event.wd, event.mask, String(decoding: bytes, as: UTF8.self), note)
                    offset = nameStart + Int(event.len)
                }
            }
        }
        for (file, moved) in affected where file.isActive {
            if moved { reestablish(file) }
            if file.isActive { file.check() }
        }
    }

    private func distribute(_ number: CInt, _ mask: UInt32, _ name: String, _ note: (FileWatch, Bool) -> Void) {
        if mask & UInt32(IN_Q_OVERFLOW) != 0 {
            // The lost events may affect any file.
            for use in uses.values.joined() { use.file.map { note($0, true) } }
            return
        }
        let isOfItself = mask & UInt32(IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED) != 0
        for use in uses[number] ?? [] {
            guard let file = use.file else { continue }
            if isOfItself || use.name == name {
                note(file, true)
            } else if use.name == nil {
                note(file, false)
            }
        }
        if mask & UInt32(IN_IGNORED) != 0 {
            for use in uses[number] ?? [] { use.file?.kernelWatches.remove(number) }
            uses[number] = nil
        }
    }

    private func reestablish(_ file: FileWatch) {
        do {
            try establish(file)
        } catch {  // control: nothing parks here, so no kill can arrive
            fail(file, error)
        }
    }

    private func fail(_ file: FileWatch, _ error: any Error) {
        let kernelWatches = file.kernelWatches
        file.kernelWatches = []
        file.stop(error)
        detach(kernelWatches, of: file)
    }

    // MARK: The end, and forks

    private func openFiles() -> [FileWatch] {
        var files: [ObjectIdentifier: FileWatch] = [:]
        for use in uses.values.joined() { use.file.map { files[ObjectIdentifier($0)] = $0 } }
        return Array(files.values)
    }

    package func hubWillClose() {
        for file in openFiles() {
            file.kernelWatches = []
            file.stop()
        }
        close()
    }

    /// Opens a new descriptor in a forked child. The old one is shared with the parent, which would lose events.
    package func hubDidFork() {
        let files = openFiles()
        close()
        do {
            try open()
        } catch {  // control: nothing parks here, so no kill can arrive
            for file in files {
                file.kernelWatches = []
                file.stop(error)
            }
            hub.removeService(self)
            return
        }
        for file in files {
            file.kernelWatches = []
            reestablish(file)
            if file.isActive { file.check() }
        }
    }
}

extension Hub {
    func fileWatches() throws -> FileWatchService { try service { try FileWatchService(self) } }
}
