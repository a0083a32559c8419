import Crypto
import FoundationEssentials

/// The keys by which nodes encrypt overlay networks' packets for each other: X25519 (RFC 7748), and HKDF with SHA-256
/// (RFC 5869) on what two of them agree on.
package enum TunnelKeys {
    /// A new private key, 32 bytes.
    package static func makeKey() -> [UInt8] { [UInt8](Curve25519.KeyAgreement.PrivateKey().rawRepresentation) }

    /// The public key of a private one, 32 bytes; nil: it is none.
    package static func publicKey(of key: [UInt8]) -> [UInt8]? {
        (try? Curve25519.KeyAgreement.PrivateKey(rawRepresentation: key)).map {
            [UInt8]($0.publicKey.rawRepresentation)
        }
    }

    /// What a node and a peer of it have for each direction between them, and nobody else can know. The peer comes to the
    /// same with the directions exchanged.
    ///
    /// - Parameters:
    ///   - key: the node's private key.
    ///   - address: the node's address in network order.
    ///   - peerKey: the peer's public key.
    ///   - bytes: for each direction, 1…8160.
    /// - Returns: nil when the peer's key is none, or one with which everybody agrees on the same.
    package static func secrets(
        key: [UInt8], address: [UInt8], peerKey: [UInt8], peerAddress: [UInt8], bytes: Int
    ) -> (outgoing: [UInt8], incoming: [UInt8])? {
        guard let own = try? Curve25519.KeyAgreement.PrivateKey(rawRepresentation: key),
            let peer = try? Curve25519.KeyAgreement.PublicKey(rawRepresentation: peerKey),
            let shared = try? own.sharedSecretFromKeyAgreement(with: peer),
            // Nothing but zeros is what points of small order come to (RFC 7748, section 6.1).
            shared.withUnsafeBytes({ $0.contains { $0 != 0 } })
        else { return nil }
        let ownKey = [UInt8](own.publicKey.rawRepresentation)
        func secret(_ sender: ([UInt8], [UInt8]), _ receiver: ([UInt8], [UInt8])) -> [UInt8] {
            // Keys are all of one length, and so are both addresses: no two pairs make the same bytes.
            let info = Array("martlet overlay 1".utf8) + sender.0 + receiver.0 + sender.1 + receiver.1
            return shared.hkdfDerivedSymmetricKey(
                using: SHA256.self, salt: [UInt8](), sharedInfo: info, outputByteCount: bytes
            ).withUnsafeBytes { Array($0) }
        }
        let (here, there) = ((ownKey, address), (peerKey, peerAddress))
        return (secret(here, there), secret(there, here))
    }
}
