internal import GeventLoop

/// Called once by the registry, because the constructor in `CGeventLibuv` asked for it.
@c(gevent_libuv_register)
func registerLibuv() {
    LoopBackend.register(
        LoopBackend(name: LibuvLoop.backendName) { () throws(LoopError) in try LibuvLoop() })
}
