import JSON
import Model

/// How a cluster is reached from other machines.
package struct ClusterSettings: Sendable, Codable, Hashable {
    /// `address:port` where the master listens, `0.0.0.0:7070` by default.
    package var listen: String
    /// Names or addresses under which others reach the master, with port where it is another than the listener's.
    package var advertise: [String]
    /// Seconds that the certificates of masters and nodes hold; they are renewed at two thirds of that.
    package var certificateLife: Int

    package static let standardLife = 90 * 86_400
    package static let standardListener = "0.0.0.0:7070"

    package init(listen: String = standardListener, advertise: [String], certificateLife: Int = standardLife) {
        self.listen = listen
        self.advertise = advertise
        self.certificateLife = certificateLife
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        listen = try values.decode(.listen, or: Self.standardListener)
        advertise = try values.decode(.advertise, or: [])
        certificateLife = try values.decode(.certificateLife, or: Self.standardLife)
    }
}

/// `POST /tokens`.
package struct CreateToken: Sendable, Codable {
    package var name: String
    package var role: Role
    /// Which developers are confined to; `/` for all others.
    package var group: String
    /// Seconds; nil: a day for machines, never for users.
    package var expiresIn: Int?
    /// How many machines may join with it; nil: any number until it expires.
    package var maximumUses: Int?

    package init(
        name: String = "", role: Role, group: String = Group.root, expiresIn: Int? = nil, maximumUses: Int? = nil
    ) {
        self.name = name
        self.role = role
        self.group = group
        self.expiresIn = expiresIn
        self.maximumUses = maximumUses
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(.name, or: "")
        role = try values.decode(Role.self, forKey: .role)
        group = try values.decode(.group, or: Group.root)
        expiresIn = try values.decodeIfPresent(Int.self, forKey: .expiresIn)
        maximumUses = try values.decodeIfPresent(Int.self, forKey: .maximumUses)
    }
}

/// A token without its secret.
package struct TokenView: Sendable, Codable, Hashable {
    package var id: TokenID
    package var name: String
    package var role: Role
    package var group: String
    package var createdAt: Timestamp
    package var expiresAt: Timestamp?
    package var maximumUses: Int?
    package var uses: Int

    package init(_ token: Token) {
        id = token.id
        name = token.name
        role = token.role
        group = token.group
        createdAt = token.createdAt
        expiresAt = token.expiresAt
        maximumUses = token.maximumUses
        uses = token.uses
    }
}

/// The answer to `POST /tokens`: the only time that the secret is shown.
package struct TokenCreated: Sendable, Codable {
    package var token: TokenView
    /// `mlt1.…`; whoever has it has the token's rights.
    package var text: String
    /// Where the cluster is reached: `https://10.0.0.1:7070`.
    package var masters: [String]

    package init(token: TokenView, text: String, masters: [String]) {
        self.token = token
        self.text = text
        self.masters = masters
    }
}

/// `POST /nodes/join`: a machine that has a token wants to belong to the cluster.
package struct NodeJoin: Sendable, Codable {
    package var registration: NodeRegistration
    /// A certificate signing request in PEM; the key stays on the machine.
    package var certificateRequest: String

    package init(registration: NodeRegistration, certificateRequest: String) {
        self.registration = registration
        self.certificateRequest = certificateRequest
    }
}

/// `POST /nodes/{node}/certificate`.
package struct CertificateRequest: Sendable, Codable {
    package var certificateRequest: String

    package init(certificateRequest: String) { self.certificateRequest = certificateRequest }
}

package struct CertificateIssued: Sendable, Codable {
    /// In PEM.
    package var certificate: String
    /// Of the cluster's authority, in PEM.
    package var authority: String

    package init(certificate: String, authority: String) {
        self.certificate = certificate
        self.authority = authority
    }
}

/// The answer to `POST /nodes/join`.
package struct NodeJoined: Sendable, Codable {
    package var registered: NodeRegistered
    package var issued: CertificateIssued

    package init(registered: NodeRegistered, issued: CertificateIssued) {
        self.registered = registered
        self.issued = issued
    }
}
