import Glibc

/// The raw fork, which Swift deliberately does not import: the child has only this thread, and must end by `_exit`.
func plainFork() -> pid_t {
    typealias Function = @convention(c) () -> pid_t
    guard let address = dlsym(nil, "fork") else { return -1 }
    // libc's symbol for a function of that type.
    return unsafeBitCast(address, to: Function.self)()
}
