// Greenlets are compared by identity, so that they can be elements of sets and keys of dictionaries.

extension AnyGreenlet: Hashable {
    /// Returns whether both are the same object.
    public static func == (one: AnyGreenlet, other: AnyGreenlet) -> Bool { one === other }

    /// Feeds the object's identity to `hasher`.
    public final func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}
