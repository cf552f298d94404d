/// The identifiers of the process's hubs.
enum HubIdentifiers {
    private static let pool = ForkableMutex(IdentifierPool())

    static func take() -> Int { pool.withLock { $0.take() } }

    static func release(_ identifier: Int) { pool.withLock { $0.release(identifier) } }
}
