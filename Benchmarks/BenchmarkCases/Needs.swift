internal import Gevent
internal import Glibc

// A case's requirements of the system. A system that lacks them gets a reason instead of a figure.

/// Raises the soft limit to the hard limit.
func needDescriptors(_ count: Int) throws {
    var limit = rlimit()
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    getrlimit(resource, &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(resource, &limit)
    // In addition to the process's other descriptors.
    if limit.rlim_max < UInt(count + 64) {
        throw CaseUnavailable(
            "needs \(grouped(count)) descriptors, and this system allows \(limit.rlim_max); raise the hard limit "
                + "(ulimit -Hn)")
    }
}

/// The number of stacks in use at the same time.
func needStacks(_ count: Int) throws {
    // A parked greenlet needs a page and an object.
    let bytes = count * 5 << 10
    if let available = number(after: "MemAvailable:", in: "/proc/meminfo"), available << 10 < bytes {
        throw CaseUnavailable("needs \(bytes >> 20) MiB of memory, and \(available >> 10) MiB are available")
    }
    guard RuntimeFacts.current.guardPages == .protection else { return }
    if let most = number(after: "", in: "/proc/sys/vm/max_map_count"), most < 2 * count + 1_024 {
        throw CaseUnavailable(
            "needs \(grouped(count)) stacks, which take two memory maps each before Linux 6.13, and this system allows "
                + "\(most); raise vm.max_map_count")
    }
}

/// Returns the first number after `label` in a file of the kernel.
private func number(after label: String, in path: String) -> Int? {
    let text = String(decoding: contents(of: path), as: UTF8.self)
    for line in text.split(separator: "\n") where line.hasPrefix(label) {
        return line.dropFirst(label.count).split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) }
    }
    return nil
}

/// Returns the contents, or an empty string if the file cannot be read.
func contents(of path: String) -> [UInt8] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return [] }
    defer { close(file) }
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = read(file, &buffer, buffer.count)
        if count <= 0 { return all }
        all += buffer[..<count]
    }
}
