import Foundation
import Gevent
import GeventTesting
import Testing

@testable import GeventCore
@testable import GeventDiagnostics
@testable import GeventOS

/// A document from a client, nested as deep as Foundation accepts, must not crash the process.
// Stack frames are several times larger under sanitizers.
@Suite("Deep documents on a default stack", .enabled(if: !isSanitized))
struct DeepDocumentsTests {
    /// Foundation's own limit is 512 levels, including the outermost value.
    private static let depth = 511

    /// A recursive Codable type: one call of `init(from:)` or `encode(to:)` per level.
    private final class Node: Codable {
        var name: String?
        var next: Node?

        init(depth: Int) {
            name = "level"
            next = depth > 1 ? Node(depth: depth - 1) : nil
        }

        var depth: Int {
            var depth = 0
            var node: Node? = self
            while let here = node { (depth, node) = (depth + 1, here.next) }
            return depth
        }
    }

    private static let json =
        String(repeating: #"{"name":"level","next":"#, count: depth - 1) + "{}"
        + String(repeating: "}", count: depth - 1)

    private func inGreenlet<Value>(_ body: @escaping () throws -> Value) throws -> Value { try spawn(body).get() }

    @Test("JSONDecoder and JSONEncoder with a recursive type")
    func json() throws {
        try withHub { _ in
            let text = Data(Self.json.utf8)
            let decoded = try inGreenlet { try JSONDecoder().decode(Node.self, from: text).depth }
            #expect(decoded == Self.depth)
            let encoded = try inGreenlet { try JSONEncoder().encode(Node(depth: Self.depth)).count }
            #expect(encoded > Self.depth * 20)
        }
    }

    @Test("JSONSerialization, in both directions")
    func serialization() throws {
        try withHub { _ in
            let text = Data(
                (String(repeating: "[", count: Self.depth) + String(repeating: "]", count: Self.depth)).utf8)
            let count = try inGreenlet {
                try JSONSerialization.data(withJSONObject: JSONSerialization.jsonObject(with: text)).count
            }
            #expect(count == text.count)
        }
    }

    @Test("PropertyListEncoder and PropertyListDecoder, in both formats")
    func propertyLists() throws {
        try withHub { _ in
            for format in [PropertyListSerialization.PropertyListFormat.xml, .binary] {
                let depth = try inGreenlet {
                    let encoder = PropertyListEncoder()
                    encoder.outputFormat = format
                    let data = try encoder.encode(Node(depth: Self.depth))
                    return try PropertyListDecoder().decode(Node.self, from: data).depth
                }
                #expect(depth == Self.depth)
            }
        }
    }
}
