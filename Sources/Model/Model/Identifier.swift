/// A name that the cluster gave: opaque text of 25 lower-case letters and digits, or 64 hexadecimal digits for containers.
///
/// The phantom type keeps a task's id from being passed where a node's is asked for. In JSON it is a plain string.
package struct Identifier<Noun>: Sendable, Hashable, Comparable, Codable, CustomStringConvertible {
    package let text: String

    package init(_ text: String) { self.text = text }

    package init(from decoder: any Decoder) throws {
        text = try decoder.singleValueContainer().decode(String.self)
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }

    package static func < (left: Self, right: Self) -> Bool { left.text < right.text }

    package var description: String { text }
}

package typealias NodeID = Identifier<Node>
package typealias WorkloadID = Identifier<Workload>
package typealias InstanceID = Identifier<Instance>
package typealias TaskID = Identifier<NodeTask>
/// 64 hexadecimal digits: the id that container tools show; it belongs to the instance and survives moves.
package typealias ContainerID = Identifier<ContainerSpec>

extension Identifier {
    /// Makes an id of 25 characters out of 128 random bits.
    package static func make(_ random: inout some RandomNumberGenerator) -> Self {
        let digits = Array("0123456789abcdefghijklmnopqrstuvwxyz")
        return Self(String((0..<25).map { _ in digits[Int.random(in: 0..<36, using: &random)] }))
    }
}

extension Identifier where Noun == ContainerSpec {
    /// Makes a container id: 64 hexadecimal digits.
    package static func makeContainer(_ random: inout some RandomNumberGenerator) -> Self {
        let digits = Array("0123456789abcdef")
        return Self(String((0..<64).map { _ in digits[Int.random(in: 0..<16, using: &random)] }))
    }
}
