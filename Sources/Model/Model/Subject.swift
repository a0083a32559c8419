/// Who asks: found by a listener from the connection or a credential, and checked in one place for all faces.
package enum Subject: Sendable, Hashable {
    /// The master itself.
    case master
    /// Came over the unix socket, which only root and the group `martlet` can open.
    case local(uid: UInt32)
    /// A person or program with a token.
    case user(TokenID, name: String, role: Role, group: String)
    /// An agent, by its certificate.
    case node(NodeID)
    case anonymous

    /// For whom the present task works; listeners set it for each request. Where none has, no route is open.
    @TaskLocal package static var current = Subject.anonymous

    /// Whether it is on the master's own machine.
    package var isLocal: Bool {
        switch self {
        case .master, .local: true
        case .user, .node, .anonymous: false
        }
    }

    /// How a refusal names it.
    package var title: String {
        switch self {
        case .user(_, _, .node, _): "a token for joining"
        case .user(_, _, let role, _): "a token of the role \(role.rawValue)"
        case .node(let id): "the node \(id)"
        case .anonymous: "whoever shows no credential"
        case .local, .master: description
        }
    }

    /// How the audit log names it.
    package var description: String {
        switch self {
        case .master: "master"
        case .local(let uid): "local:\(uid)"
        case .user(let id, let name, _, _): name.isEmpty ? "token:\(id)" : "token:\(id):\(name)"
        case .node(let id): "node:\(id)"
        case .anonymous: "anonymous"
        }
    }
}

/// What a token lets its bearer do.
package enum Role: String, Sendable, Hashable, Codable, CaseIterable {
    /// Everything, tokens included.
    case admin
    /// Everything but tokens and the cluster's own settings.
    case `operator`
    /// Workloads, secrets and configs of its group and the groups below it, without privileges on the nodes.
    case developer
    /// Reads everything but what is secret.
    case viewer
    /// Joins a machine to the cluster, and nothing else.
    case node
}

/// What a route asks of its caller. There is no default: a route names one, and whoever has no right is refused.
package enum Access: String, Sendable, Hashable, CaseIterable {
    /// Anyone, without a credential: liveness.
    case open
    /// Looking at what is not secret.
    case read
    /// Looking at what concerns all groups: events and metrics.
    case observe
    /// Making, changing and entering workloads, each within the caller's group.
    case work
    /// Nodes, images, volumes: what all groups share.
    case operate
    /// Tokens and the cluster's own settings.
    case administer
    /// Any agent: where content of images is.
    case contents
    /// An agent about its own node, which the path names.
    case node
    /// A machine that wants to join, with a token for that.
    case join
}

extension Subject {
    /// Whether the caller may use a route that asks for `access`.
    ///
    /// - Parameter node: the node that the path names, for `Access.node`; where it names none, the core looks at what
    ///   the body says.
    package func may(_ access: Access, node: NodeID? = nil) -> Bool {
        switch (self, access) {
        case (_, .open): true
        case (.master, _), (.local, _): true
        case (.anonymous, _): false
        case (.node(let own), .node): node.map { own == $0 } ?? true
        case (.node, .contents): true
        case (.node, _): false
        case (.user(_, _, let role, _), _):
            switch access {
            case .open: true
            case .read: role != .node
            case .observe: role == .admin || role == .operator || role == .viewer
            case .work: role == .admin || role == .operator || role == .developer
            case .operate: role == .admin || role == .operator
            case .administer: role == .admin
            case .node, .contents: false
            case .join: role == .node
            }
        }
    }

    /// The group that the caller is confined to; nil: none.
    package var confinement: String? {
        if case .user(_, _, .developer, let group) = self { group } else { nil }
    }

    /// Whether what lives in `group` is the caller's business.
    package func reaches(group: String) -> Bool {
        confinement.map { Group.path($0, contains: group) } ?? true
    }

    /// What the caller's workloads may ask of their nodes.
    package var policy: AdmissionPolicy {
        confinement == nil ? AdmissionPolicy() : .confined
    }
}

/// Paths of groups: `/`, `/team`, `/team/web`.
package enum Group {
    package static let root = "/"

    /// Whether `outer` is `inner` or above it.
    package static func path(_ outer: String, contains inner: String) -> Bool {
        outer == root || inner == outer || inner.hasPrefix(outer + "/")
    }

    /// Whether the text is a group's path: `/`, or at most 16 parts of a name's letters, at most 256 bytes.
    package static func isPath(_ text: String) -> Bool {
        if text == root { return true }
        guard text.hasPrefix("/"), text.utf8.count <= 256 else { return false }
        let parts = text.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
        return parts.count <= 16 && parts.allSatisfy { Admission.isName(String($0)) }
    }
}
