// The C library's functions that block the thread, and with it every greenlet, declared here so that the compiler
// refuses calls to them. The module Gevent exports each of them by name. Such an export shadows the C library's
// function of the same signature in a file that imports both: the unqualified call is an error, and `Glibc.sleep(1)`
// still works.
//
// `flock` is not among them. Swift reads `Glibc.flock` as the structure of that name, so a refused function could not
// be called at all, not even with `LOCK_NB`.

public import Glibc

// MARK: Time

/// Refused: the C library's `sleep` blocks every greenlet of the thread. ``sleep(for:)`` parks the current one.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'try sleep(for: .seconds(1))', or 'Glibc.sleep(1)'")
public func sleep(_ seconds: UInt32) -> UInt32 { fatalError() }

/// Refused: the C library's `usleep` blocks every greenlet of the thread. ``sleep(for:)`` parks the current one.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'try sleep(for: .microseconds(1))', or 'Glibc.usleep'")
public func usleep(_ microseconds: UInt32) -> CInt { fatalError() }

/// Refused: the C library's `nanosleep` blocks every greenlet of the thread. ``sleep(for:)`` parks the current one.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'try sleep(for:)', or 'Glibc.nanosleep'")
public func nanosleep(_ duration: UnsafePointer<timespec>!, _ rest: UnsafeMutablePointer<timespec>!) -> CInt {
    fatalError()
}

/// Refused: the C library's `clock_nanosleep` blocks every greenlet of the thread. ``sleep(for:)`` parks the current
/// one.
// swift-format-ignore: AlwaysUseLowerCamelCase
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'try sleep(for:)', or 'Glibc.clock_nanosleep'")
public func clock_nanosleep(
    _ clock: CInt, _ flags: CInt, _ duration: UnsafePointer<timespec>!, _ rest: UnsafeMutablePointer<timespec>!
) -> CInt { fatalError() }

// MARK: Descriptors and signals

/// Refused: the C library's `poll` blocks every greenlet of the thread. ``waitRead(_:timeout:)`` and
/// ``waitWrite(_:timeout:)`` park the current one.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'try waitRead' or 'try waitWrite', or 'Glibc.poll'")
public func poll(_ descriptors: UnsafeMutablePointer<pollfd>!, _ count: UInt, _ milliseconds: CInt) -> CInt {
    fatalError()
}

/// Refused: the C library's `select` blocks every greenlet of the thread. ``waitRead(_:timeout:)`` and
/// ``waitWrite(_:timeout:)`` park the current one.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'try waitRead' or 'try waitWrite', or 'Glibc.select'")
public func select(
    _ count: CInt, _ readable: UnsafeMutablePointer<fd_set>!, _ writable: UnsafeMutablePointer<fd_set>!,
    _ exceptional: UnsafeMutablePointer<fd_set>!, _ timeout: UnsafeMutablePointer<timeval>!
) -> CInt { fatalError() }

/// Refused: the C library's `pause` blocks every greenlet of the thread. `onSignal` calls a closure for a signal.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'onSignal', or 'Glibc.pause'")
public func pause() -> CInt { fatalError() }

/// Refused: the C library's `sigwait` blocks every greenlet of the thread. `onSignal` calls a closure for a signal.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'onSignal', or 'Glibc.sigwait'")
public func sigwait(_ signals: UnsafePointer<sigset_t>, _ signal: UnsafeMutablePointer<CInt>) -> CInt { fatalError() }

/// Refused: the C library's `lockf` blocks every greenlet of the thread while another process holds the lock, except
/// with `F_TLOCK`.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; repeat 'Glibc.lockf' with F_TLOCK and 'try sleep(for:)'")
public func lockf(_ descriptor: CInt, _ operation: CInt, _ size: Int) -> CInt { fatalError() }

// MARK: Names

/// Refused: the C library's `getaddrinfo` blocks every greenlet of the thread until name servers answer.
@discardableResult
@available(
    *, unavailable, message: "blocks every greenlet; call 'Glibc.getaddrinfo' in another thread, or at the start"
)
public func getaddrinfo(
    _ name: UnsafePointer<CChar>!, _ service: UnsafePointer<CChar>!, _ hints: UnsafePointer<addrinfo>!,
    _ result: UnsafeMutablePointer<UnsafeMutablePointer<addrinfo>?>!
) -> CInt { fatalError() }

/// Refused: the C library's `getnameinfo` blocks every greenlet of the thread until name servers answer.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; call 'Glibc.getnameinfo' in another thread")
public func getnameinfo(
    _ address: UnsafePointer<sockaddr>!, _ length: UInt32, _ host: UnsafeMutablePointer<CChar>!, _ hostLength: UInt32,
    _ service: UnsafeMutablePointer<CChar>!, _ serviceLength: UInt32, _ flags: CInt
) -> CInt { fatalError() }

/// Refused: the C library's `gethostbyname` blocks every greenlet of the thread until name servers answer.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; call 'Glibc.gethostbyname' in another thread")
public func gethostbyname(_ name: UnsafePointer<CChar>!) -> UnsafeMutablePointer<hostent>! { fatalError() }

// MARK: Processes

/// Refused: the C library's `system` blocks every greenlet of the thread until the command has ended.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'posix_spawn' and 'try waitPID', or 'Glibc.system'")
public func system(_ command: UnsafePointer<CChar>!) -> CInt { fatalError() }

/// Refused: the C library's `wait` blocks every greenlet of the thread. `waitPID` parks the current one.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'try waitPID(-1)', or 'Glibc.wait'")
public func wait(_ status: UnsafeMutablePointer<CInt>!) -> pid_t { fatalError() }

/// Refused: the C library's `waitpid` blocks every greenlet of the thread. `waitPID` parks the current one.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'try waitPID', or 'Glibc.waitpid'")
public func waitpid(_ pid: pid_t, _ status: UnsafeMutablePointer<CInt>!, _ options: CInt) -> pid_t { fatalError() }

/// Refused: the C library's `waitid` blocks every greenlet of the thread. `waitPID` parks the current one.
@discardableResult
@available(*, unavailable, message: "blocks every greenlet; use 'try waitPID', or 'Glibc.waitid'")
public func waitid(_ kind: idtype_t, _ id: UInt32, _ info: UnsafeMutablePointer<siginfo_t>!, _ options: CInt) -> CInt {
    fatalError()
}

/// Refused: after the C library's `fork` the child's hub still uses the parent's loop. `Gevent.fork()` repairs it.
@discardableResult
@available(*, unavailable, message: "does not repair the hub in the child; use 'try Gevent.fork()', or 'Glibc.fork()'")
public func fork() -> pid_t { fatalError() }
