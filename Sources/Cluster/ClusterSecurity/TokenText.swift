import Crypto

/// A token as its bearer has it: `mlt1.<id>.<secret>.<pin>`, where the pin is the SHA-256 of the authority's
/// certificate. Who holds the text can find the right cluster and nobody else's.
package struct TokenText: Sendable, Hashable, CustomStringConvertible {
    package var id: String
    package var secret: String
    package var pin: String

    package init(id: String, secret: String, pin: String) {
        self.id = id
        self.secret = secret
        self.pin = pin
    }

    /// Makes a new secret of 192 random bits.
    package init(id: String, pin: String) {
        let bytes = SymmetricKey(size: .bits192).withUnsafeBytes { Array($0) }
        self.init(id: id, secret: hexadecimal(bytes), pin: pin)
    }

    /// - Throws: `SecurityError` that does not repeat the text.
    package init(_ text: String) throws(SecurityError) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        func isWord(_ word: String, _ count: Int) -> Bool {
            word.utf8.count == count
                && word.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x7A).contains($0) }
        }
        guard parts.count == 4, parts[0] == "mlt1", isWord(parts[1], 25), isWord(parts[2], 48), isWord(parts[3], 64)
        else {
            throw SecurityError(
                "this is no token: one begins with mlt1. and has four parts parted by dots; `martlet token create` makes one"
            )
        }
        self.init(id: parts[1], secret: parts[2], pin: parts[3])
    }

    package var description: String { "mlt1.\(id).\(secret).\(pin)" }

    /// What the cluster keeps of the secret.
    package var secretDigest: String { hexadecimal(SHA256.hash(data: Array(secret.utf8))) }
}

extension TokenText {
    /// Compares digests in a time that does not depend on where they differ.
    package static func equal(_ left: String, _ right: String) -> Bool {
        let (a, b) = (Array(left.utf8), Array(right.utf8))
        guard a.count == b.count else { return false }
        return zip(a, b).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }
}
