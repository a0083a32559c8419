import JSON
import Model

/// `POST /secrets` and `POST /configs`.
package struct CreateFile: Sendable, Codable {
    package var name: String
    /// The value in base64; at most 500 KiB of it.
    package var data: String
    /// Workloads of this group and those below it may use it; nil: the caller's own.
    package var group: String?
    package var labels: [String: String]

    package init(name: String, data: String, group: String? = nil, labels: [String: String] = [:]) {
        self.name = name
        self.data = data
        self.group = group
        self.labels = labels
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(String.self, forKey: .name)
        data = try values.decode(String.self, forKey: .data)
        group = try values.decodeIfPresent(String.self, forKey: .group)
        labels = try values.decode(.labels, or: [:])
    }
}

/// A secret as users see it: everything but its value.
package struct SecretView: Sendable, Codable {
    package var id: SecretID
    package var name: String
    package var group: String
    package var labels: [String: String]
    /// Bytes of the value.
    package var size: Int
    package var createdAt: Timestamp
    /// Names of the workloads that use it.
    package var usedBy: [String]

    package init(_ secret: Secret, usedBy: [String]) {
        id = secret.id
        name = secret.name
        group = secret.group
        labels = secret.labels
        size = secret.size
        createdAt = secret.createdAt
        self.usedBy = usedBy
    }
}

package struct ConfigView: Sendable, Codable {
    package var id: ConfigID
    package var name: String
    package var group: String
    package var labels: [String: String]
    /// Bytes of the value.
    package var size: Int
    package var createdAt: Timestamp
    package var usedBy: [String]
    /// The value in base64; nil in lists.
    package var data: String?

    package init(_ config: Config, usedBy: [String], withData: Bool) {
        id = config.id
        name = config.name
        group = config.group
        labels = config.labels
        size = config.size
        createdAt = config.createdAt
        self.usedBy = usedBy
        data = withData ? config.data : nil
    }
}

/// `GET /nodes/{node}/tasks/{task}/secrets`: the values that a task's containers are given, in base64, by name.
package struct TaskSecrets: Sendable, Codable {
    package var secrets: [String: String]
    package var configs: [String: String]

    package init(secrets: [String: String] = [:], configs: [String: String] = [:]) {
        self.secrets = secrets
        self.configs = configs
    }
}
