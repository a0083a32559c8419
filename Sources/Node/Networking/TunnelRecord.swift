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

/// A private key, the boot that it is of, and what it was used for; in a file: `key`, both, and then a line for each use.
struct TunnelRecord: Sendable {
    let key: [UInt8]
    let boot: String
    /// The newest last; none is there twice.
    private(set) var uses: [TunnelUse] = []
    private var known: Set<TunnelUse> = []
    private var pairs: [Pair: (last: TunnelUse, count: Int)] = [:]

    private struct Pair: Hashable {
        let own: IPAddress
        let peer: IPAddress

        init(_ use: TunnelUse) { (own, peer) = (use.own, use.peer) }
    }

    /// What a use is to a key.
    enum Standing: Sendable {
        /// It was never used so.
        case new
        /// It was, and last of all between the two addresses: what is not there any more takes another key.
        case current
        /// It was, and another one came after it: the peer says what is not so any more, and is no reason for another key.
        case superseded
        /// The peer has had so many keys that it gets no more.
        case worn
        /// Too much is known of the key to know more.
        case full
    }

    /// Most uses of a key: then another one is made.
    static let mostUses = 65_536
    /// Most of them between two addresses, so that no peer comes to have this node make another key.
    static let mostOfPeer = 1_024

    init(key: [UInt8], boot: String) { (self.key, self.boot) = (key, boot) }

    func standing(of use: TunnelUse) -> Standing {
        let pair = pairs[Pair(use)]
        if pair?.last == use { return .current }
        if known.contains(use) { return .superseded }
        if let pair, pair.count >= Self.mostOfPeer { return .worn }
        return uses.count >= Self.mostUses ? .full : .new
    }

    /// Notes that the key is used so from now on.
    mutating func insert(_ use: TunnelUse) {
        guard known.insert(use).inserted else { return }
        uses.append(use)
        pairs[Pair(use)] = (use, (pairs[Pair(use)]?.count ?? 0) + 1)
    }

    var bytes: [UInt8] { Array("key \(Hexadecimal.text(key)) \(boot)\n".utf8) + uses.flatMap(\.line) }

    /// Nil when a line cannot be read or the last one has no end: then nobody knows what the key was used for.
    init?(_ bytes: [UInt8]) {
        guard bytes.last == UInt8(ascii: "\n") else { return nil }
        let lines = bytes.dropLast().split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map {
            $0.split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
        }
        guard let first = lines.first, first.count == 3, first[0] == "key",
            let key = Hexadecimal.bytes(first[1][...])
        else { return nil }
        self.init(key: key, boot: first[2])
        for words in lines.dropFirst() {
            guard words.count == 4, words[0] == "peer", let own = IPAddress(words[1]), let peer = IPAddress(words[2]),
                let key = Hexadecimal.bytes(words[3][...]), key.count == TunnelCryptography.publicKeyBytes
            else { return nil }
            insert(TunnelUse(own: own, peer: peer, key: key))
        }
    }
}

/// When another key may be made: all peers are told of it, and until they are nothing passes. The pause after each is twice
/// as long as the one before, and a short one again after a quiet time.
struct TunnelRenewal: Sendable {
    private var last: Int64?
    private var pause = shortest

    /// In nanoseconds.
    static let shortest: Int64 = 60_000_000_000
    static let longest: Int64 = 3_600_000_000_000

    /// - Parameter now: in nanoseconds of a clock that only goes forward.
    func isDue(at now: Int64) -> Bool { last.map { now - $0 >= pause } ?? true }

    /// Notes that a key is made.
    mutating func begin(at now: Int64) {
        let isQuiet = last.map { now - $0 > 2 * Self.longest } ?? true
        pause = isQuiet ? Self.shortest : min(2 * pause, Self.longest)
        last = now
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
