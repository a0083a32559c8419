import Crypto

/// A content digest: `sha256:` and 64 lower-case hexadecimal digits (OCI image-spec, descriptor.md). Other algorithms are
/// not accepted.
package struct Digest: Sendable, Hashable, Comparable, Codable, CustomStringConvertible {
    /// The 64 digits, without the algorithm.
    package let hex: String

    /// Reads `sha256:<64 digits>`; nil for anything else.
    package init?(_ text: String) {
        guard text.hasPrefix("sha256:") else { return nil }
        self.init(hex: String(text.dropFirst(7)))
    }

    /// From the 64 digits alone; nil for anything else.
    package init?(hex: String) {
        guard hex.utf8.count == 64, hex.utf8.allSatisfy(Self.isHexadecimal) else { return nil }
        self.hex = hex
    }

    fileprivate init(_ digest: some Sequence<UInt8>) {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(64)
        for byte in digest {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        hex = String(decoding: text, as: UTF8.self)
    }

    /// The digest of some bytes.
    package static func of(_ bytes: [UInt8]) -> Digest { Digest(SHA256.hash(data: bytes)) }

    static func isHexadecimal(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
    }

    package var description: String { "sha256:\(hex)" }

    package static func < (left: Digest, right: Digest) -> Bool { left.hex < right.hex }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let digest = Digest(text) else {
            throw DecodingError.dataCorruptedError(
                in: container,
                debugDescription: "'\(printable(text))' is no digest; sha256: and 64 lower-case hexadecimal digits are")
        }
        self = digest
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// A digest being computed, and the bytes that went into it.
struct DigestState {
    private var hash = SHA256()
    private(set) var count: UInt64 = 0

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        hash.update(bufferPointer: bytes)
        count += UInt64(bytes.count)
    }

    func finish() -> Digest { Digest(hash.finalize()) }
}
