import Glibc

/// What Swift does not import, on purpose: a child has this thread only, and must end by `_exit`.
func plainFork() -> pid_t {
    typealias Function = @convention(c) () -> pid_t
    guard let address = dlsym(nil, "fork") else { return -1 }
    // The symbol of libc's function of that type.
    return unsafeBitCast(address, to: Function.self)()
}
