import JSON
import Testing

/// A value that was read holds nothing of its reading: a daemon reads bodies for years.
@Suite(.serialized) struct DecodingMemoryTests {
    /// Remembers the decoder of a nested value without keeping it alive.
    private struct Probe: Decodable {
        // One serialised suite alone uses it.
        nonisolated(unsafe) static weak var decoder: AnyObject?
        let numbers: [Int]

        private enum CodingKeys: CodingKey {
            case numbers
        }

        init(from decoder: any Decoder) throws {
            Self.decoder = decoder as AnyObject
            numbers = try decoder.container(keyedBy: CodingKeys.self).decode([Int].self, forKey: .numbers)
        }
    }

    @Test("nothing of a reading is kept, strict or not, whole or broken off", arguments: [true, false])
    func reading(strict: Bool) throws {
        let good = try JSONCoding.decode(
            [String: Probe].self, from: Array(#"{"a":{"numbers":[1,2]}}"#.utf8), strict: strict)
        #expect(good["a"]?.numbers == [1, 2])
        #expect(Probe.decoder == nil)
        #expect(throws: JSONError.self) {
            try JSONCoding.decode([String: Probe].self, from: Array(#"{"a":{"numbers":[1,"x"]}}"#.utf8), strict: strict)
        }
        #expect(Probe.decoder == nil)
    }
}
