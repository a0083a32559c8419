import JSON

package typealias SecretID = Identifier<Secret>
package typealias ConfigID = Identifier<Config>

/// Something that only containers which name it may read. Its value is sealed before it comes here: neither the core
/// nor the store ever holds it in the clear. It never changes; a new value is a new secret.
package struct Secret: Sendable, Hashable, Codable {
    /// The most bytes of a secret's value, and of a config's.
    package static let maximumSize = 500 << 10
    /// The most bytes of all secrets and configs that one container is given.
    package static let maximumOfContainer = 2 << 20

    package var id: SecretID
    /// Unique among secrets.
    package var name: String
    /// Workloads of this group and those below it may use it.
    package var group: String
    package var labels: [String: String]
    /// Bytes of the value.
    package var size: Int
    /// The encrypted value, in base64.
    package var sealed: String
    package var createdAt: Timestamp

    package init(
        id: SecretID, name: String, group: String = Group.root, labels: [String: String] = [:], size: Int,
        sealed: String, createdAt: Timestamp
    ) {
        self.id = id
        self.name = name
        self.group = group
        self.labels = labels
        self.size = size
        self.sealed = sealed
        self.createdAt = createdAt
    }
}

/// A file that containers are given, which anybody may read who may look at the cluster. It never changes.
package struct Config: Sendable, Hashable, Codable {
    package var id: ConfigID
    /// Unique among configs.
    package var name: String
    package var group: String
    package var labels: [String: String]
    /// The value, in base64.
    package var data: String
    package var createdAt: Timestamp

    /// Bytes of the value.
    package var size: Int { data.utf8.count / 4 * 3 - data.utf8.suffix(2).count { $0 == UInt8(ascii: "=") } }

    package init(
        id: ConfigID, name: String, group: String = Group.root, labels: [String: String] = [:], data: String,
        createdAt: Timestamp
    ) {
        self.id = id
        self.name = name
        self.group = group
        self.labels = labels
        self.data = data
        self.createdAt = createdAt
    }
}
