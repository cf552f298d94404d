internal import GeventLoop

/// Called once by the registry, because the constructor in `CGeventLibev` asked for it.
@c(gevent_libev_register)
func registerLibev() {
    LoopBackend.register(
        LoopBackend(name: LibevLoop.backendName) { () throws(LoopError) in
            try LibevLoop(backends: requestedBackends())
        })
}

/// What `GEVENT_BACKEND` asks for, in order; nothing if it leaves the choice to libev.
private func requestedBackends() throws(LoopError) -> [LibevLoop.Backend] {
    let request: String
    do throws(ConfigurationError) {
        request = try Configuration.shared.resolve().libevBackend
    } catch {
        throw LoopError(.unsupported, operation: "read the settings", message: error.message)
    }
    return try LibevLoop.Backend.list(request)
}
