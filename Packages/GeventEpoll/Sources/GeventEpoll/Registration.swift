internal import GeventLoop

/// Called once by the registry, because the constructor in `CGeventEpoll` asked for it.
@c(gevent_epoll_register)
func registerEpoll() {
    LoopBackend.register(
        LoopBackend(name: EpollLoop.backendName) { () throws(LoopError) in try EpollLoop() })
}
