@_spi(GeventInternals) internal import GeventLoop

@section(".init_array") @used
private let isLinked: @convention(c) () -> Void = {
    LinkedModule.register {
        LoopBackend.setKnownLoops([("epoll", "Gevent"), ("libev", "GeventLibev"), ("libuv", "GeventLibuv")])
    }
}
