import CNISpec
import JSON
import Testing

@testable import Networking

/// Lists, results, records and errors with bytes changed at random, always the same ones: whatever comes out is refused
/// by one sentence, or says the same when it is written and read again.
@Suite struct CNIMutationTests {
    /// SplitMix64: small, and the same on every machine.
    private struct Random: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var value = state
            value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
            value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
            return value ^ (value >> 31)
        }
    }

    private static let words = [
        "null", "true", "-1", "0", "1e999", "18446744073709551616", "\"\"", "\"../x\"", "\"a/b\"", "\"\\u0000\"", "[]",
        "{}", "[[", "\"10.0.0.1\"", "\"::/0\"", "\"1.1.0\"", "\"name\":", ",", ":", "\u{7f}", "\"a;b\"",
    ].map { Array($0.utf8) }

    /// One to three changes of a text.
    private static func mutant(_ text: String, _ random: inout Random) -> [UInt8] {
        var bytes = Array(text.utf8)
        for _ in 0...Int.random(in: 0...2, using: &random) {
            let place = Int.random(in: 0...bytes.count, using: &random)
            let end = min(bytes.count, place + Int.random(in: 0...12, using: &random))
            switch Int.random(in: 0...5, using: &random) {
            case 0: if place < bytes.count { bytes[place] = UInt8.random(in: 0...255, using: &random) }
            case 1: bytes.removeSubrange(place..<end)
            case 2: bytes.insert(contentsOf: bytes[place..<end], at: place)
            case 3: bytes.replaceSubrange(place..<end, with: words.randomElement(using: &random) ?? [])
            case 4: bytes.insert(contentsOf: words.randomElement(using: &random) ?? [], at: place)
            default: if bytes.count > 8, place % 16 == 0 { bytes.removeSubrange(place...) }
            }
        }
        return bytes
    }

    /// - Parameter check: throws what refuses the text; returns false when something does not hold of what is accepted.
    private static func mutate(
        _ text: String, seed: UInt64, times: Int = 2500, _ check: ([UInt8]) throws(JSONError) -> Bool
    ) {
        var random = Random(state: seed)
        var refused = 0
        for number in 0..<times {
            let bytes = mutant(text, &random)
            do throws(JSONError) {
                let holds = try check(bytes)
                if !holds {
                    Issue.record("mutant \(number) of seed \(seed): \(String(decoding: bytes, as: UTF8.self))")
                }
            } catch {
                refused += 1
                let sentence = error.description
                if sentence.utf8.count > 1500 || sentence.utf8.contains(where: { $0 < 32 || $0 == 127 }) {
                    Issue.record("mutant \(number) of seed \(seed): no sentence: \(sentence)")
                }
            }
        }
        #expect(refused > times / 4 && refused < times, "some are refused and some are not: \(refused)")
    }

    private let list = """
        {"cniVersion":"1.0.0","cniVersions":["0.4.0","1.1.0"],"name":"net","disableCheck":true,"disableGC":"false",
        "plugins":[{"type":"bridge","capabilities":{"mac":true,"ips":false},"ipam":{"type":"host-local"}},{"type":"b"}]}
        """
    private let result = """
        {"cniVersion":"1.1.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/n","mtu":1400,
        "socketPath":"/s","pciID":"0000:00:1f.6"}],"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1","interface":0}],
        "routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1","mtu":1,"advmss":2,"priority":3,"table":4,"scope":253}],
        "dns":{"nameservers":["10.0.0.1"],"domain":"d","search":["s"],"options":["o"]}}
        """

    @Test func `changed lists are read as they are written, or refused by a sentence`() {
        Self.mutate(list, seed: 1) { bytes throws(JSONError) in
            let list = try NetworkConfigurationList.parse(bytes)
            let again = try? NetworkConfigurationList(JSONReader(list.json))
            return again == list && CNINames.isName(list.name)
                && list.plugins.allSatisfy { CNINames.isPluginType($0.type) }
        }
    }

    @Test func `changed results are, too`() {
        Self.mutate(result, seed: 2) { bytes throws(JSONError) in
            let result = try CNIResult(PluginAnswer.object(bytes), version: nil)
            return (try? CNIResult(JSONReader(result.json(version: .v1_1_0)), version: .v1_1_0)) == result
        }
    }

    @Test func `changed records are, too, and never name a path elsewhere`() {
        let record = """
            {"kind":"martlet-cni-1","container":"c1","namespace":"/n","interface":"eth0","complete":true,"owner":"o",
            "list":\(list),"capabilities":{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"::1"}],
            "ips":["10.0.0.2/24","fd00::2"],"aliases":["a"],"dns":{"servers":["10.0.0.1"]},"ipRanges":[[{"subnet":
            "10.0.0.0/24","rangeStart":"10.0.0.9"}]]},"arguments":{"K":"v"},"result":\(result)}
            """
        Self.mutate(record, seed: 3) { bytes throws(JSONError) in
            let record = try CNIRecord(JSONReader(JSONValue.parse(bytes, limits: CNICache.limits)))
            let attachment = record.attachment
            let path = CNICache(directory: "/d").path(
                network: record.list.name, container: attachment.containerID, interface: attachment.interface)
            return CNICache.parse(record.json.serialized()) == record && !path.dropFirst(3).contains("/")
                && attachment.arguments.allSatisfy { CNINames.isArgumentValue($0.value) }
        }
    }

    @Test func `changed errors of plugins stay one line`() {
        let error = #"{"cniVersion":"1.0.0","code":7,"msg":"one\ntwo","details":"three \u001b[2J"}"#
        Self.mutate(error, seed: 4) { bytes throws(JSONError) in
            let sentence = try CNIError(PluginAnswer.object(bytes)).sentence
            return !sentence.utf8.contains { $0 < 32 || $0 == 127 } && sentence.count < 2200
        }
    }
}
