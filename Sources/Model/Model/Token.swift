import JSON

package typealias TokenID = Identifier<Token>

/// A credential that the cluster gave out: a machine joins with it, or a user speaks to the API with it. Its secret is
/// known to its bearer only; the cluster keeps a digest.
package struct Token: Sendable, Hashable, Codable {
    package var id: TokenID
    /// What it is for, in its maker's words.
    package var name: String
    package var role: Role
    /// For developers: the group that they are confined to.
    package var group: String
    /// SHA-256 of the secret, in hexadecimal digits.
    package var secretDigest: String
    package var createdAt: Timestamp
    /// nil: never.
    package var expiresAt: Timestamp?
    /// How often a machine may join with it; nil: without limit.
    package var maximumUses: Int?
    package var uses: Int

    package init(
        id: TokenID, name: String = "", role: Role, group: String = Group.root, secretDigest: String,
        createdAt: Timestamp, expiresAt: Timestamp? = nil, maximumUses: Int? = nil, uses: Int = 0
    ) {
        self.id = id
        self.name = name
        self.role = role
        self.group = group
        self.secretDigest = secretDigest
        self.createdAt = createdAt
        self.expiresAt = expiresAt
        self.maximumUses = maximumUses
        self.uses = uses
    }

    /// Whether it has not run out.
    package func isValid(at now: Timestamp) -> Bool { expiresAt.map { $0 > now } ?? true }
}
