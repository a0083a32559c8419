/// Percent-encoding of URIs, RFC 3986 section 2.1, strictly UTF-8.
package enum PercentEncoding {
    /// The text that `encoded` stands for; nil when an escape is broken or the bytes are not UTF-8.
    package static func decode(_ encoded: some StringProtocol) -> String? {
        var bytes: [UInt8] = []
        var source = encoded.utf8.makeIterator()
        while let byte = source.next() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = source.next().flatMap(value), let low = source.next().flatMap(value) else { return nil }
            bytes.append(high << 4 | low)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
