@_spi(GeventInternals) public import GeventSettings
internal import Synchronization

/// A kind of loop that this program can use: a name and a closure that creates the loop.
///
/// Linking a backend registers it: its module has a constructor (see `LinkedModule`) that calls ``register(_:)`` when
/// the list is first needed. No import and no call is necessary. A loop of your own, or one in a static archive whose
/// constructor the linker dropped, needs a call of ``register(_:)`` before the first hub is created.
public struct LoopBackend: Sendable {
    /// The backend's name in `GEVENT_LOOP`; case is ignored.
    public let name: String

    private let make: @Sendable (ResolvedConfiguration) throws(LoopError) -> any Loop

    /// Creates a backend.
    ///
    /// - Parameters:
    ///   - name: the name in `GEVENT_LOOP`, without commas and spaces; case is ignored.
    ///   - make: creates a loop from the resolved settings, on the thread that will use it, or throws the reason why
    ///     this system cannot run it.
    public init(name: String, make: @escaping @Sendable (ResolvedConfiguration) throws(LoopError) -> any Loop) {
        self.name = name
        self.make = make
    }

    /// Creates a loop that belongs to the calling thread.
    ///
    /// - Parameter configuration: the resolved settings, from which the loop reads its own.
    /// - Throws: the ``LoopError`` that explains why the loop cannot run on this system.
    public func makeLoop(_ configuration: ResolvedConfiguration) throws(LoopError) -> any Loop {
        try make(configuration)
    }

    /// Registers a backend, replacing one of the same name. Any thread may call it.
    ///
    /// Linked backends are registered before any that code registers, so a program can replace a linked backend.
    public static func register(_ backend: LoopBackend) {
        LinkedModule.runRegistrars()
        registered.withLock { backends in
            backends.removeAll { $0.isNamed(backend.name) }
            backends.append(backend)
        }
    }

    /// Every backend that is linked or was registered, in the order of registration. Any thread may read it.
    ///
    /// Libraries loaded since the last read are included.
    public static var linked: [LoopBackend] {
        LinkedModule.runRegistrars()
        return registered.withLock { $0 }
    }

    func isNamed(_ other: String) -> Bool {
        name.lowercased() == other.lowercased()
    }

    private static let registered = Mutex<[LoopBackend]>([])
}

extension LoopBackend {
    /// The known loops, each with its product, in order of preference.
    static var known: [(name: String, product: String)] {
        LinkedModule.runRegistrars()
        return knownLoops.withLock { $0 }
    }

    /// Sets the order of preference of loops when `GEVENT_LOOP` is not set, and the product that adds each loop, for
    /// errors about loops that are not linked. The first loop is the one that is linked by default.
    @_spi(GeventInternals)
    public static func setKnownLoops(_ loops: [(name: String, product: String)]) {
        knownLoops.withLock { $0 = loops }
    }

    private static let knownLoops = Mutex<[(name: String, product: String)]>([])
}
