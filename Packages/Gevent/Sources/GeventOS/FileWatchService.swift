internal import GeventCore
internal import Glibc

/// The files that one hub watches, through one inotify descriptor.
///
/// For each path the kernel watches the file itself, for what changes in it, and its directory, for what takes the
/// name. Where the directory is missing it is the nearest one above, for the next component of the path.
final class FileWatchService: HubService {
    /// Whom a watch of the kernel concerns.
    private struct Use {
        weak var file: FileWatch?
        /// The one name in the directory that matters; nil if it is the file itself, and everything does.
        let name: String?
    }

    private static let ofFile = UInt32(IN_ATTRIB | IN_MODIFY | IN_DELETE_SELF | IN_MOVE_SELF | inDirectory)
    private static let ofDirectory = UInt32(IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | inDirectory)
    private static let inDirectory = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO

    private unowned let hub: Hub
    private var inotify: CInt = -1
    private var readiness: DescriptorWatch?
    private var uses: [CInt: [Use]] = [:]

    init(_ hub: Hub) throws(LoopError) {
        self.hub = hub
        try open()
    }

    private func open() throws(LoopError) {
        let result = inotify_init1(CInt(IN_NONBLOCK | IN_CLOEXEC))
        if result < 0 { throw LoopError(errno: errno, operation: "inotify_init1") }
        do throws(LoopError) {
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

    func attach(_ file: FileWatch) throws(LoopError) {
        do throws(LoopError) {
            try establish(file)
        } catch {
            closeIfUnused()
            throw error
        }
    }

    /// `file` is nil if it is just going away.
    func detach(_ kernelWatches: Set<CInt>, of file: FileWatch?) {
        for number in kernelWatches { removeUse(number, of: file) }
        closeIfUnused()
    }

    private func removeUse(_ number: CInt, of file: FileWatch?) {
        uses[number]?.removeAll { $0.file == nil || $0.file === file }
        if uses[number]?.isEmpty == false { return }
        uses[number] = nil
        // Fails if the kernel has removed it already, with the file.
        _ = inotify_rm_watch(inotify, number)
    }

    /// Watches what there is to watch for the file now, and nothing else.
    private func establish(_ file: FileWatch) throws(LoopError) {
        var wanted: [CInt: String?] = [:]
        // What was watched on the way and is not wanted any more.
        var obsolete = file.kernelWatches
        do throws(LoopError) {
            // Again if the next component has appeared while the directory above was not watched yet. Somebody may make
            // and remove it all the time; then the next event continues.
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

    /// Returns the directory, and the component of the path that is expected in it.
    private func watchNearestDirectory(
        above path: String, _ wanted: inout [CInt: String?]
    ) throws(LoopError) -> (directory: String, name: String) {
        var path = Substring(path)
        while let slash = path.lastIndex(of: "/") {
            let name = String(path[path.index(after: slash)...])
            let directory = slash == path.startIndex ? "/" : String(path[..<slash])
            // The root is in no directory.
            if name.isEmpty { return (directory, name) }
            if let number = try watch(directory, FileWatchService.ofDirectory) {
                wanted[number] = name
                return (directory, name)
            }
            path = path[..<slash]
        }
        return ("/", "")
    }

    /// Nil if there is no such file.
    private func watch(_ path: String, _ mask: UInt32) throws(LoopError) -> CInt? {
        // Added to what is watched there already: the directory of one file may be watched itself.
        let number = inotify_add_watch(inotify, path, mask | UInt32(IN_MASK_ADD))
        if number >= 0 { return number }
        switch errno {
        case ENOENT, ENOTDIR, ELOOP: return nil
        case let error: throw LoopError(errno: error, operation: "inotify_add_watch(\(path))")
        }
    }

    // MARK: Events

    private func readEvents() {
        // Those concerned, and whether what the kernel watches for them has to be looked at as well.
        var concerned: [(file: FileWatch, moved: Bool)] = []
        func concern(_ file: FileWatch, moved: Bool) {
            if let index = concerned.firstIndex(where: { $0.file === file }) {
                concerned[index].moved = concerned[index].moved || moved
            } else {
                concerned.append((file, moved))
            }
        }
        withUnsafeTemporaryAllocation(byteCount: 16384, alignment: 8) { buffer in
            // Bounded, since changes may come faster than they are read. What is left keeps the descriptor readable.
            for _ in 0..<4 {
                let count = read(inotify, buffer.baseAddress, buffer.count)
                if count <= 0 { return }
                var offset = 0
                while offset < count {
                    let event = buffer.loadUnaligned(fromByteOffset: offset, as: inotify_event.self)
                    let nameStart = offset + MemoryLayout<inotify_event>.size
                    let bytes = buffer[nameStart..<nameStart + Int(event.len)].prefix { $0 != 0 }
                    distribute(event.wd, event.mask, String(decoding: bytes, as: UTF8.self), concern)
                    offset = nameStart + Int(event.len)
                }
            }
        }
        for (file, moved) in concerned where file.isOpen {
            if moved { reestablish(file) }
            if file.isOpen { file.look() }
        }
    }

    private func distribute(_ number: CInt, _ mask: UInt32, _ name: String, _ concern: (FileWatch, Bool) -> Void) {
        if mask & UInt32(IN_Q_OVERFLOW) != 0 {
            // Whatever was lost may concern anybody.
            for use in uses.values.joined() { use.file.map { concern($0, true) } }
            return
        }
        let isOfItself = mask & UInt32(IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED) != 0
        for use in uses[number] ?? [] {
            guard let file = use.file else { continue }
            if isOfItself || use.name == name {
                concern(file, true)
            } else if use.name == nil {
                concern(file, false)
            }
        }
        if mask & UInt32(IN_IGNORED) != 0 {
            for use in uses[number] ?? [] { use.file?.kernelWatches.remove(number) }
            uses[number] = nil
        }
    }

    private func reestablish(_ file: FileWatch) {
        do throws(LoopError) {
            try establish(file)
        } catch {
            fail(file, error)
        }
    }

    private func fail(_ file: FileWatch, _ error: LoopError) {
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

    func hubWillClose() {
        for file in openFiles() {
            file.kernelWatches = []
            file.stop()
        }
        close()
    }

    /// The descriptor is shared with the parent, who must not lose events to us.
    func hubDidFork() {
        let files = openFiles()
        close()
        do throws(LoopError) {
            try open()
        } catch {
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
            if file.isOpen { file.look() }
        }
    }
}

extension Hub {
    func fileWatches() throws(LoopError) -> FileWatchService {
        if let service = existingService(FileWatchService.self) { return service }
        let service = try FileWatchService(self)
        addService(service)
        return service
    }
}
