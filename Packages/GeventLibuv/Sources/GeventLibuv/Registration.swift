internal import GeventLoop

// Linking this module registers its loop.
@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = {
    LinkedModule.register {
        LoopBackend.register(
            LoopBackend(name: LibuvLoop.backendName) { (_) throws(LoopError) in try LibuvLoop() })
    }
}
