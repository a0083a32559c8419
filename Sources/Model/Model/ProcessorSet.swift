/// Numbers of processors or memory nodes, each once and in order. In JSON and in the kernel's files it is a list: `0-3,7`.
package struct ProcessorSet: Sendable, Hashable, Codable, CustomStringConvertible {
    /// In ascending order.
    package let numbers: [Int]

    /// Numbers are below this.
    package static let limit = 8192

    /// Numbers that are out of bounds are left out.
    package init(_ numbers: some Sequence<Int> = []) {
        self.numbers = Set(numbers.filter { (0..<Self.limit).contains($0) }).sorted()
    }

    /// Reads a list as the kernel writes it; an empty one has nothing in it.
    ///
    /// - Returns: nil when it is no such list, longer than 64 KiB, or has a number of 8192 or more, or more than 8192
    ///   numbers with those that it names again.
    package init?(list text: String) {
        guard text.utf8.count <= 1 << 16 else { return nil }
        var found: Set<Int> = []
        var named = 0
        for part in text.isEmpty ? [] : text.split(separator: ",", omittingEmptySubsequences: false) {
            let ends = part.split(separator: "-", maxSplits: 2, omittingEmptySubsequences: false).map {
                Self.number($0)
            }
            guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1], first <= last
            else { return nil }
            named += last - first + 1
            guard named <= Self.limit else { return nil }
            found.formUnion(first...last)
        }
        numbers = found.sorted()
    }

    private static func number(_ text: Substring) -> Int? {
        guard (1...4).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let number = Int(text), number < limit
        else { return nil }
        return number
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.singleValueContainer()
        let text = try values.decode(String.self)
        guard let set = ProcessorSet(list: text) else {
            throw DecodingError.dataCorruptedError(
                in: values, debugDescription: "this is no list of numbers: write it as 0-3,7")
        }
        self = set
    }

    package func encode(to encoder: any Encoder) throws {
        var values = encoder.singleValueContainer()
        try values.encode(description)
    }

    package var isEmpty: Bool { numbers.isEmpty }
    package var count: Int { numbers.count }

    /// `0-3,7`.
    package var description: String {
        var parts: [String] = []
        var index = 0
        while index < numbers.count {
            var last = index
            while last + 1 < numbers.count, numbers[last + 1] == numbers[last] + 1 { last += 1 }
            parts.append(last == index ? "\(numbers[index])" : "\(numbers[index])-\(numbers[last])")
            index = last + 1
        }
        return parts.joined(separator: ",")
    }
}
