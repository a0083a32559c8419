/// Amounts, as integers: a node has them, a container is promised them.
package struct Resources: Sendable, Hashable, Codable {
    /// Nano-cores: 1,000,000,000 is one core.
    package var cpu: Int64
    /// Bytes.
    package var memory: Int64
    /// Bytes.
    package var disk: Int64
    /// Bytes of huge pages, by the size of a page, see `HugepageSize`; nothing is 0.
    package var hugepages: [String: Int64]

    package init(cpu: Int64 = 0, memory: Int64 = 0, disk: Int64 = 0, hugepages: [String: Int64] = [:]) {
        self.hugepages = hugepages
        self.cpu = cpu
        self.memory = memory
        self.disk = disk
    }

    private enum CodingKeys: String, CodingKey { case cpu, memory, disk, hugepages }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        cpu = try values.decode(.cpu, or: 0)
        memory = try values.decode(.memory, or: 0)
        disk = try values.decode(.disk, or: 0)
        hugepages = try values.decode(.hugepages, or: [:])
    }

    /// Huge pages are named only where there are any.
    package func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(cpu, forKey: .cpu)
        try values.encode(memory, forKey: .memory)
        try values.encode(disk, forKey: .disk)
        if !hugepages.isEmpty { try values.encode(hugepages, forKey: .hugepages) }
    }

    /// Sums that would overflow stay at the largest value.
    package static func + (left: Resources, right: Resources) -> Resources {
        func sum(_ a: Int64, _ b: Int64) -> Int64 {
            let (value, overflow) = a.addingReportingOverflow(b)
            return overflow ? (a < 0 ? .min : .max) : value
        }
        var hugepages = left.hugepages
        for (size, bytes) in right.hugepages {
            let all = sum(hugepages[size] ?? 0, bytes)
            hugepages[size] = all == 0 ? nil : all
        }
        return Resources(
            cpu: sum(left.cpu, right.cpu), memory: sum(left.memory, right.memory), disk: sum(left.disk, right.disk),
            hugepages: hugepages)
    }

    package static func - (left: Resources, right: Resources) -> Resources {
        left
            + Resources(
                cpu: -right.cpu, memory: -right.memory, disk: -right.disk, hugepages: right.hugepages.mapValues { -$0 })
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
