/// Percent-encoding of URIs, RFC 3986 section 2.1.
package enum PercentEncoding {
    /// `text` with everything escaped that is not unreserved: fit for one path segment or one query value.
    package static func encode(_ text: String) -> String {
        var result: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                result.append(byte)
            default:
                result += [UInt8(ascii: "%"), digit(byte >> 4), digit(byte & 15)]
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// `?key=value&…`, or nothing when there are no elements.
    static func query(_ elements: KeyValuePairs<String, String>) -> String {
        if elements.isEmpty { return "" }
        return "?" + elements.map { "\(encode($0.key))=\(encode($0.value))" }.joined(separator: "&")
    }

    private static func digit(_ value: UInt8) -> UInt8 {
        value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "A") + value - 10
    }
}
