// Greenlets are told apart by identity, so that they can stand in sets and be the keys of dictionaries.

extension AnyGreenlet: Hashable {
    /// Whether both are the same object.
    public static func == (one: AnyGreenlet, other: AnyGreenlet) -> Bool { one === other }

    /// Feeds the object's identity to `hasher`.
    public final func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}
