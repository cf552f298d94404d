import CGevent
import CGeventSystem
import Gevent
import Glibc
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// Starts `/bin/sh` with a script, and returns its process ID.
func shell(_ script: String) throws -> pid_t {
    var pid: pid_t = 0
    var arguments = ["sh", "-c", script].map { (text: String) in strdup(text) }
    defer { for argument in arguments { free(argument) } }
    arguments.append(nil)
    let error = posix_spawn(&pid, "/bin/sh", nil, nil, arguments, environ)
    try #require(error == 0)
    return pid
}

/// Runs `body` in a forked child, waits without parking, and returns the child's exit code: what `body` returns, or 99
/// if it throws. The child is killed if it hangs.
func inChild(_ body: () throws -> CInt) throws -> CInt? {
    switch try Gevent.fork() {
    case .child: runAndExit(body)
    case .parent(let pid): return exitCode(of: pid)
    }
}

/// Forks with libc's own call, as a C library would.
func inRawChild(_ body: () throws -> CInt) throws -> CInt? {
    let pid = gevent_fork()
    if pid == 0 { runAndExit(body) }
    return exitCode(of: pid)
}

/// Waits without parking, so no other greenlet runs meanwhile.
func exitCode(of pid: pid_t) -> CInt? {
    var raw: CInt = 0
    while Glibc.waitpid(pid, &raw, 0) < 0 && errno == EINTR {}
    return ChildStatus(rawValue: raw).exitCode
}

private func runAndExit(_ body: () throws -> CInt) -> Never {
    signal(SIGALRM, SIG_DFL)
    var alarms = sigset_t()
    sigemptyset(&alarms)
    sigaddset(&alarms, SIGALRM)
    pthread_sigmask(SIG_UNBLOCK, &alarms, nil)
    // Long enough for a child that symbolicates a report under AddressSanitizer on a busy machine.
    alarm(120)
    do {
        _exit(try body())
    } catch {
        printToStandardError("the child failed: \(error)\n")
        _exit(99)
    }
}

/// Exits an exit test with the number of the failed check.
func require(_ condition: Bool, _ number: CInt) {
    if condition { return }
    printToStandardError("check \(number) failed\n")
    exit(number)
}

/// Exhausts the process's descriptors, in the test's own process. Returns those to close to lift the limit.
func takeAllDescriptors() -> [CInt] {
    var limit = rlimit()
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    getrlimit(resource, &limit)
    limit.rlim_cur = 128
    setrlimit(resource, &limit)
    var taken: [CInt] = []
    while case let descriptor = open("/dev/null", O_RDONLY), descriptor >= 0 { taken.append(descriptor) }
    return taken
}
