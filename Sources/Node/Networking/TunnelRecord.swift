import CNISpec
import Netlink

/// What encrypted networks need of cryptography, which is another layer's. Keys are those of X25519 (RFC 7748).
package struct TunnelCryptography: Sendable {
    package static let publicKeyBytes = 32

    /// What two nodes agree on for each direction: the key of an association, and four bytes that its number follows from.
    package struct Secrets: Sendable {
        package static let bytes = SecurityAssociation.keyBytes + 4
        package let outgoing: [UInt8]
        package let incoming: [UInt8]

        package init(outgoing: [UInt8], incoming: [UInt8]) {
            self.outgoing = outgoing
            self.incoming = incoming
        }
    }

    let makeKey: @Sendable () -> [UInt8]
    let publicKey: @Sendable ([UInt8]) -> [UInt8]?
    let agree: @Sendable ([UInt8], [UInt8], [UInt8], [UInt8]) -> Secrets?

    /// - Parameters:
    ///   - makeKey: a new private key.
    ///   - publicKey: that of a private key; nil: it is none.
    ///   - agree: on what the own private key and address, and a peer's public key and address, come to; nil: the peer's key
    ///     is none. Addresses are in network order. What the peer comes to is the same with directions exchanged.
    package init(
        makeKey: @escaping @Sendable () -> [UInt8], publicKey: @escaping @Sendable ([UInt8]) -> [UInt8]?,
        agree:
            @escaping @Sendable (
                _ key: [UInt8], _ address: [UInt8], _ peerKey: [UInt8], _ peerAddress: [UInt8]
            ) -> Secrets?
    ) {
        self.makeKey = makeKey
        self.publicKey = publicKey
        self.agree = agree
    }
}

/// That the node's key was used for a peer: of the three follow the keys of both directions, which must never be used from
/// the beginning again.
struct TunnelUse: Sendable, Hashable {
    let own: IPAddress
    let peer: IPAddress
    /// The peer's public key.
    let key: [UInt8]

    var line: [UInt8] { Array("peer \(own) \(peer) \(Hexadecimal.text(key))\n".utf8) }
}

/// A private key, and what it was used for; in a file: `key` and the key, then a line for each use.
struct TunnelRecord: Sendable {
    var key: [UInt8]
    /// The newest last.
    var uses: [TunnelUse]

    /// Most uses of a key: then another one is made.
    static let mostUses = 65_536

    init(key: [UInt8]) { (self.key, uses) = (key, []) }

    var bytes: [UInt8] { Array("key \(Hexadecimal.text(key))\n".utf8) + uses.flatMap(\.line) }

    /// Nil when a line cannot be read or the last one has no end: then nobody knows what the key was used for.
    init?(_ bytes: [UInt8]) {
        guard bytes.last == UInt8(ascii: "\n") else { return nil }
        let lines = bytes.dropLast().split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map {
            $0.split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
        }
        guard let first = lines.first, first.count == 2, first[0] == "key",
            let key = Hexadecimal.bytes(first[1][...])
        else { return nil }
        self.init(key: key)
        for words in lines.dropFirst() {
            guard words.count == 4, words[0] == "peer", let own = IPAddress(words[1]), let peer = IPAddress(words[2]),
                let key = Hexadecimal.bytes(words[3][...]), key.count == TunnelCryptography.publicKeyBytes
            else { return nil }
            uses.append(TunnelUse(own: own, peer: peer, key: key))
        }
    }
}

/// Keys as text.
package enum Hexadecimal {
    /// Two lower-case digits for each byte.
    package static func text(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// Nil when it is none, or of an odd length.
    package static func bytes(_ text: Substring) -> [UInt8]? {
        let digits = text.utf8.map { Character(Unicode.Scalar($0)).hexDigitValue }
        guard digits.count.isMultiple(of: 2), !digits.contains(nil) else { return nil }
        let values = digits.compactMap { $0 }
        return stride(from: 0, to: values.count, by: 2).map { UInt8(values[$0] << 4 | values[$0 + 1]) }
    }
}
