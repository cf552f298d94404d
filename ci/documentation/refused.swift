// Code that the compiler must reject. Each invalid line has its expected message; all other lines must be valid. The
// check "refusals" of ci/docs compiles this file, and never runs it.

import Foundation
import Gevent
import GeventNet
import Glibc

// MARK: Calls that park, in an async function

func asyncCalls(_ greenlet: Greenlet<Int>) async throws {
    try sleep()  // expected-error {{unavailable from asynchronous contexts}}
    try sleep(for: .seconds(1))  // expected-error {{unavailable from asynchronous contexts}}
    try sleep(for: .seconds(1), referenced: false)  // expected-error {{unavailable from asynchronous contexts}}
    try idle()  // expected-error {{unavailable from asynchronous contexts}}
    try greenlet.join()  // expected-error {{unavailable from asynchronous contexts}}
    _ = try greenlet.get()  // expected-error {{unavailable from asynchronous contexts}}
    _ = try greenlet.get(timeout: Timeout(nil))  // expected-error {{unavailable from asynchronous contexts}}
    try greenlet.kill()  // expected-error {{unavailable from asynchronous contexts}}
    try greenlet.switchTo()  // expected-error {{unavailable from asynchronous contexts}}
    try greenlet.throwInto(GreenletExit())  // expected-error {{unavailable from asynchronous contexts}}
    try joinAll([greenlet])  // expected-error {{unavailable from asynchronous contexts}}
    try killAll([greenlet])  // expected-error {{unavailable from asynchronous contexts}}
    try wait()  // expected-error {{unavailable from asynchronous contexts}}
    try wait([greenlet])  // expected-error {{unavailable from asynchronous contexts}}
    try iwait([greenlet]) { _, _ in }  // expected-error {{unavailable from asynchronous contexts}}
    try withTimeout(nil) { _ in }  // expected-error {{unavailable from asynchronous contexts}}
    try withTimeout(nil, timeoutValue: ()) {}  // expected-error {{unavailable from asynchronous contexts}}
    try withSilentTimeout(nil) {}  // expected-error {{unavailable from asynchronous contexts}}
    try withGroup { _ in }  // expected-error {{unavailable from asynchronous contexts}}
    try withGreenlet(greenlet) { _ in }  // expected-error {{unavailable from asynchronous contexts}}
    try waitRead(0)  // expected-error {{unavailable from asynchronous contexts}}
    try waitWrite(1)  // expected-error {{unavailable from asynchronous contexts}}
    try Event().wait()  // expected-error {{unavailable from asynchronous contexts}}
    _ = try AsyncResult<Int>().get()  // expected-error {{unavailable from asynchronous contexts}}
    try Semaphore().acquire()  // expected-error {{unavailable from asynchronous contexts}}
    _ = try Queue<Int>().get()  // expected-error {{unavailable from asynchronous contexts}}
}

func asyncCallsOfAHub(_ hub: Hub) async throws {
    try hub.join()  // expected-error {{unavailable from asynchronous contexts}}
    hub.destroy()  // expected-error {{unavailable from asynchronous contexts}}
}

// MARK: Calls that need a hub, in an async function

func asyncMaking(_ event: Event, _ permits: Semaphore, _ queue: Queue<Int>, _ waiter: Waiter<Int>) async throws {
    spawn {}  // expected-error {{unavailable from asynchronous contexts}}
    spawn(add, 1, 2)  // expected-error {{unavailable from asynchronous contexts}}
    spawn(after: .seconds(1)) {}  // expected-error {{unavailable from asynchronous contexts}}
    spawnRaw {}  // expected-error {{unavailable from asynchronous contexts}}
    spawnLinked {}  // expected-error {{unavailable from asynchronous contexts}}
    Greenlet.spawn {}  // expected-error {{unavailable from asynchronous contexts}}
    Greenlet.spawn(after: .seconds(1)) {}  // expected-error {{unavailable from asynchronous contexts}}
    Greenlet.spawnLinked {}  // expected-error {{unavailable from asynchronous contexts}}
    let greenlet = Greenlet {}  // expected-error {{unavailable from asynchronous contexts}}
    greenlet.start()  // expected-error {{unavailable from asynchronous contexts}}
    greenlet.start(after: .seconds(1))  // expected-error {{unavailable from asynchronous contexts}}
    try kill(greenlet)  // expected-error {{unavailable from asynchronous contexts}}
    _ = RawGreenlet {}  // expected-error {{unavailable from asynchronous contexts}}
    _ = AnyGreenlet.current  // expected-error {{unavailable from asynchronous contexts}}
    _ = Hub.current  // expected-error {{unavailable from asynchronous contexts}}
    try Hub.start()  // expected-error {{unavailable from asynchronous contexts}}
    Timeout(nil).start()  // expected-error {{unavailable from asynchronous contexts}}
    Timeout.startNew(nil)  // expected-error {{unavailable from asynchronous contexts}}
    _ = dumpGreenlets()  // expected-error {{unavailable from asynchronous contexts}}
    _ = GreenletTree.current()  // expected-error {{unavailable from asynchronous contexts}}
    every(.seconds(1)) {}  // expected-error {{unavailable from asynchronous contexts}}
    event.set()  // expected-error {{unavailable from asynchronous contexts}}
    permits.release()  // expected-error {{unavailable from asynchronous contexts}}
    try queue.putNowait(1)  // expected-error {{unavailable from asynchronous contexts}}
    _ = try queue.getNowait()  // expected-error {{unavailable from asynchronous contexts}}
    waiter.resume(returning: 1)  // expected-error {{unavailable from asynchronous contexts}}
    AsyncResult<Int>().set(1)  // expected-error {{unavailable from asynchronous contexts}}
}

func add(_ a: Int, _ b: Int) -> Int { a + b }

// MARK: Objects confined to a thread

func needsSendable(_ value: some Sendable) {}

func confined(_ greenlet: Greenlet<Int>, _ raw: RawGreenlet, _ monitor: Monitor) {
    needsSendable(greenlet)  // expected-error {{'AnyGreenlet' to 'Sendable' is unavailable}}
    needsSendable(raw)  // expected-error {{'AnyGreenlet' to 'Sendable' is unavailable}}
    needsSendable(greenlet.link { _ in })  // expected-error {{type 'Registration' does not conform to the 'Sendable' protocol}}
    needsSendable(Hub.current.hold())  // expected-error {{type 'Registration' does not conform to the 'Sendable' protocol}}
    needsSendable(monitor.onBlocking { _ in })
    needsSendable(greenlet.rawLink {})  // expected-error {{type 'Registration' does not conform to the 'Sendable' protocol}}
    needsSendable(SpawnTreeLocals())  // expected-error {{'SpawnTreeLocals' to 'Sendable' is unavailable}}
    needsSendable(Hub.current)  // expected-error {{'Hub' to 'Sendable' is unavailable}}
    needsSendable(Event())  // expected-error {{'_WaitableObject' to 'Sendable' is unavailable}}
    needsSendable(Hub.current.handle)
    needsSendable(Timeout(nil))
    needsSendable(GreenletExit())
}

// MARK: Names of sockets and servers that people guess

func guessedNames(_ socket: Socket, _ server: StreamServer, _ status: StatusServer) throws {
    _ = try Socket.connect(host: "example.org", port: 80)  // expected-error {{names are not resolved yet}}
    try socket.connect(host: "127.0.0.1", port: 80)  // expected-error {{write connect(to: SocketAddress(host: …, port: …))}}
    _ = server.localAddress  // expected-error {{renamed to 'address'}}
    _ = status.localAddress  // expected-error {{renamed to 'address'}}
}

// MARK: The wrong body

func bodies() {
    let _: Greenlet<Int> = Greenlet(7)  // expected-error {{missing argument label}}
    let _: Greenlet<Int> = Greenlet { "text" }  // expected-error {{cannot convert value of type 'String'}}
}

// MARK: gevent's names

func names(_ greenlet: Greenlet<Int>, _ other: Greenlet<Int>, _ result: AsyncResult<Int>) throws {
    _ = greenlet.ready()  // expected-error {{renamed to 'isReady'}}
    _ = greenlet.successful()  // expected-error {{renamed to 'isSuccessful'}}
    _ = greenlet.exception  // expected-error {{renamed to 'error'}}
    _ = greenlet.dead  // expected-error {{renamed to 'isDead'}}
    _ = greenlet.started  // expected-error {{renamed to 'isStarted'}}
    _ = greenlet.minimal_ident  // expected-error {{renamed to 'minimalID'}}
    _ = greenlet.parent  // expected-error {{renamed to 'hub'}}
    _ = greenlet.spawn_tree_locals  // expected-error {{renamed to 'spawnTreeLocals'}}
    _ = greenlet.spawning_greenlet  // expected-error {{renamed to 'spawningGreenlet'}}
    _ = greenlet.spawning_stack  // expected-error {{renamed to 'spawningStack'}}
    _ = AnyGreenlet.spawning_stack_limit  // expected-error {{renamed to 'spawningStackLimit'}}
    AnyGreenlet.add_spawn_callback { _ in }  // expected-error {{renamed to 'addSpawnCallback(_:)'}}
    AnyGreenlet.remove_spawn_callback(names)  // expected-error {{call cancel() of what addSpawnCallback(_:) returned}}
    greenlet.unlink(names)  // expected-error {{call cancel() of what link returned}}
    signal_handler(2) {}  // expected-error {{renamed to 'onSignal(_:referenced:_:)'}}
    settrace(names)  // expected-error {{use Hub.current.onSwitch { }}}
    setswitchinterval(1)  // expected-error {{use Hub.current.switchInterval}}
    let _: LinkedFailed? = nil  // expected-error {{catch LinkedExited, whose outcome is .failed}}
    let _: QueueEmpty? = nil  // expected-error {{renamed to 'QueueError.empty'}}
    _ = Hub.current.NOT_ERROR  // expected-error {{renamed to 'quietErrors'}}
    _ = Hub.current.handle_error  // expected-error {{renamed to 'errorHandler'}}
    greenlet.start_later(1)  // expected-error {{renamed to 'start(after:)'}}
    greenlet.rawlink { _ in }  // expected-error {{renamed to 'rawLink(_:)'}}
    greenlet.link_value { _ in }  // expected-error {{renamed to 'linkValue(_:)'}}
    greenlet.link_exception { _ in }  // expected-error {{renamed to 'linkError(_:)'}}
    greenlet.link(other)  // expected-error {{renamed to 'link(to:on:)'}}
    greenlet.link(result)  // expected-error {{renamed to 'link(to:)'}}
    _ = greenlet.has_links()  // expected-error {{renamed to 'hasLinks'}}
    greenlet.unlink_all()  // expected-error {{renamed to 'unlinkAll()'}}
    try greenlet.switch()  // expected-error {{renamed to 'switchTo()'}}
    try greenlet.throw(GreenletExit())  // expected-error {{renamed to 'throwInto(_:)'}}
    _ = Greenlet<Int>.spawn_later(1) { 1 }  // expected-error {{renamed to 'spawn(after:_:)'}}
    _ = spawn_later(1) {}  // expected-error {{renamed to 'spawn(after:_:)'}}
    _ = spawn_raw {}  // expected-error {{renamed to 'spawnRaw(_:)'}}
    _ = spawn_link {}  // expected-error {{use spawnLinked { }}}
    _ = spawn_link_value {}  // expected-error {{use spawnLinked(on: .value) { }}}
    _ = spawn_link_exception {}  // expected-error {{use spawnLinked(on: .error) { }}}
    try joinall([greenlet])  // expected-error {{renamed to 'joinAll(_:timeout:throwingErrors:count:)'}}
    try killall([greenlet])  // expected-error {{renamed to 'killAll(_:throwing:blocking:timeout:sticky:)'}}
    try with_timeout(1) {}  // expected-error {{renamed to 'withTimeout(_:timeoutValue:_:)'}}
    _ = getcurrent()  // expected-error {{renamed to 'AnyGreenlet.current'}}
    _ = get_hub()  // expected-error {{use Hub.current}}
    _ = Timeout.start_new(1)  // expected-error {{renamed to 'startNew(_:throwing:)'}}
    _ = Timeout(nil).pending  // expected-error {{renamed to 'isPending'}}
}

// MARK: Names that people guess

func guesses(_ greenlet: Greenlet<Int>) throws {
    let _: Pool? = nil  // expected-error {{use withGroup { }, with a Semaphore to limit how many run at a time}}
    _ = Pool(10)  // expected-error {{use withGroup { }, with a Semaphore to limit how many run at a time}}
    let _: Lock? = nil  // expected-error {{use Semaphore(1) and withPermit { }}}
    _ = Lock()  // expected-error {{use Semaphore(1) and withPermit { }}}
    try greenlet.cancel()  // expected-error {{renamed to 'kill(throwing:blocking:timeout:sticky:)'}}
    gather([greenlet])  // expected-error {{use joinAll(_:) and get(), or withGroup { }}}
}

// MARK: Calls of the C library that block every greenlet, with imports of Foundation and Glibc

func blockingCalls() {
    sleep(1)  // expected-error {{use 'try sleep(for: .seconds(1))'}}
    usleep(1)  // expected-error {{use 'try sleep(for: .microseconds(1))'}}
    nanosleep(nil, nil)  // expected-error {{use 'try sleep(for:)'}}
    clock_nanosleep(CLOCK_MONOTONIC, 0, nil, nil)  // expected-error {{use 'try sleep(for:)'}}
    poll(nil, 0, -1)  // expected-error {{use 'try waitRead' or 'try waitWrite'}}
    select(0, nil, nil, nil, nil)  // expected-error {{use 'try waitRead' or 'try waitWrite'}}
    pause()  // expected-error {{use 'onSignal'}}
    var signals = sigset_t()
    var number: CInt = 0
    sigwait(&signals, &number)  // expected-error {{use 'onSignal'}}
    lockf(0, F_LOCK, 0)  // expected-error {{repeat 'Glibc.lockf' with F_TLOCK}}
    getaddrinfo("example.org", nil, nil, nil)  // expected-error {{call 'Glibc.getaddrinfo' in another thread}}
    getnameinfo(nil, 0, nil, 0, nil, 0, 0)  // expected-error {{call 'Glibc.getnameinfo' in another thread}}
    gethostbyname("example.org")  // expected-error {{call 'Glibc.gethostbyname' in another thread}}
    system("true")  // expected-error {{use 'posix_spawn' and 'try waitPID'}}
    wait(&number)  // expected-error {{use 'try waitPID(-1)'}}
    waitpid(1, &number, 0)  // expected-error {{use 'try waitPID'}}
    waitid(P_ALL, 0, nil, WEXITED)  // expected-error {{use 'try waitPID'}}
    let _: () -> pid_t = fork  // expected-error {{use 'try Gevent.fork()'}}
}

// Explicit calls remain possible, and calls of the library's functions with these names resolve.
func blockingOnPurpose(_ permits: Semaphore) throws {
    Glibc.sleep(1)
    var entry = pollfd()
    _ = Glibc.poll(&entry, 1, 0)
    try sleep(for: .seconds(1))
    try sleep()
    _ = try wait([Event()])
    try permits.acquire()
    if case .child = try fork() { exit(0) }
    if case .child = try Gevent.fork() { exit(0) }
}
