/// Amounts, as integers: a node has them, a container is promised them.
package struct Resources: Sendable, Hashable, Codable {
    /// Nano-cores: 1,000,000,000 is one core.
    package var cpu: Int64
    /// Bytes.
    package var memory: Int64
    /// Bytes.
    package var disk: Int64

    package init(cpu: Int64 = 0, memory: Int64 = 0, disk: Int64 = 0) {
        self.cpu = cpu
        self.memory = memory
        self.disk = disk
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        cpu = try values.decode(.cpu, or: 0)
        memory = try values.decode(.memory, or: 0)
        disk = try values.decode(.disk, or: 0)
    }

    /// Sums that would overflow stay at the largest value.
    package static func + (left: Resources, right: Resources) -> Resources {
        func sum(_ a: Int64, _ b: Int64) -> Int64 {
            let (value, overflow) = a.addingReportingOverflow(b)
            return overflow ? (a < 0 ? .min : .max) : value
        }
        return Resources(
            cpu: sum(left.cpu, right.cpu), memory: sum(left.memory, right.memory), disk: sum(left.disk, right.disk))
    }

    package static func - (left: Resources, right: Resources) -> Resources {
        left + Resources(cpu: -right.cpu, memory: -right.memory, disk: -right.disk)
    }
}

/// What a node's programs are built for, in the OCI image specification's words.
package struct Platform: Sendable, Hashable, Codable {
    package var os: String
    package var architecture: String

    package init(os: String, architecture: String) {
        self.os = os
        self.architecture = architecture
    }
}

extension KeyedDecodingContainer {
    /// A field that may be left out.
    package func decode<Value: Decodable>(_ key: Key, or value: Value) throws -> Value {
        try decodeIfPresent(Value.self, forKey: key) ?? value
    }
}
