@_spi(GeventInternals) public import GeventSettings
internal import Synchronization

/// A kind of loop that this program can use: a name and a way to make one.
///
/// A backend registers itself by being linked: its module has a constructor, see `LinkedModule`, that calls
/// ``register(_:)`` when the list is first needed. No import and no call is necessary. A loop of your own, or one in a
/// static archive whose constructor the linker dropped, calls ``register(_:)`` itself before the first hub is made.
public struct LoopBackend: Sendable {
    /// The name `GEVENT_LOOP` selects it by; compared without regard to case.
    public let name: String

    private let make: @Sendable (ResolvedConfiguration) throws(LoopError) -> any Loop

    /// A backend.
    ///
    /// - Parameters:
    ///   - name: what `GEVENT_LOOP` selects it by: no commas or spaces; case does not matter.
    ///   - make: makes a loop from the settings in force, on the thread that will use it, or says why this system
    ///     cannot.
    public init(name: String, make: @escaping @Sendable (ResolvedConfiguration) throws(LoopError) -> any Loop) {
        self.name = name
        self.make = make
    }

    /// Makes a loop that belongs to the calling thread.
    ///
    /// - Parameter configuration: the settings in force; the loop looks up its own.
    /// - Throws: the ``LoopError`` that says why it cannot run on this system.
    public func makeLoop(_ configuration: ResolvedConfiguration) throws(LoopError) -> any Loop {
        try make(configuration)
    }

    /// Adds a backend, or replaces the one of the same name. Any thread may call it.
    ///
    /// What was linked counts as older than what is registered in code, so a program can replace a linked backend.
    public static func register(_ backend: LoopBackend) {
        LinkedModule.runRegistrars()
        registered.withLock { backends in
            backends.removeAll { $0.isNamed(backend.name) }
            backends.append(backend)
        }
    }

    /// Every backend that is linked or was registered, in the order in which they were. Any thread may ask.
    ///
    /// A library that was loaded since the last call is found too.
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
    /// The loops of products that a program may link or not, with those products; preferred ones first.
    static var known: [(name: String, product: String)] {
        LinkedModule.runRegistrars()
        return knownLoops.withLock { $0 }
    }

    /// Says in which order loops are preferred where `GEVENT_LOOP` is not set, and which product adds each, for errors
    /// about loops that are not linked. The first is the one that is linked by default.
    @_spi(GeventInternals)
    public static func know(_ loops: [(name: String, product: String)]) {
        knownLoops.withLock { $0 = loops }
    }

    private static let knownLoops = Mutex<[(name: String, product: String)]>([])
}
