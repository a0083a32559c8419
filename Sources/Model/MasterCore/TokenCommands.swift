import JSON
import Model
import Wire

/// A token that the shell has made and the core is to keep; the secret stays with the shell.
package struct NewToken: Sendable {
    package var id: TokenID
    package var secretDigest: String
    package var wish: CreateToken

    package init(id: TokenID, secretDigest: String, wish: CreateToken) {
        self.id = id
        self.secretDigest = secretDigest
        self.wish = wish
    }
}

extension MasterCore {
    /// Seconds that a token lets machines join, when its maker does not say.
    private static let joinLife: Int64 = 86_400
    private static let mostTokens = 10_000

    mutating func createToken(_ new: NewToken, now: Timestamp) throws(APIProblem) -> PendingReply {
        let wish = new.wish
        if !wish.name.isEmpty { try admit { () throws(AdmissionError) in try admission.name(wish.name) } }
        try requirePath(wish.group)
        guard wish.role == .developer || wish.group == Group.root else {
            throw APIProblem(.badRequest, "$.group: only developers are confined to a group")
        }
        guard wish.role != .developer || wish.group != Group.root else {
            throw APIProblem(
                .badRequest, "$.group: a developer is confined to a group: name one, such as /shop (`--group /shop`)")
        }
        if let seconds = wish.expiresIn, !(1...315_360_000).contains(seconds) {
            throw APIProblem(.badRequest, "$.expiresIn: \(seconds) is not between 1 second and ten years")
        }
        if let uses = wish.maximumUses {
            guard wish.role == .node else {
                throw APIProblem(.badRequest, "$.maximumUses: only tokens with which machines join are counted")
            }
            guard (1...100_000).contains(uses) else {
                throw APIProblem(.badRequest, "$.maximumUses: \(uses) is not between 1 and 100000")
            }
        }
        for token in state.tokens.values where token.expiresAt.map({ $0.adding(seconds: 86_400) < now }) ?? false {
            state.delete(.token(token.id))
        }
        guard state.tokens.count < Self.mostTokens else {
            throw APIProblem(.conflict, "there are \(state.tokens.count) tokens, which is the limit: revoke some")
        }
        let life = wish.expiresIn.map(Int64.init) ?? (wish.role == .node ? Self.joinLife : nil)
        let token = Token(
            id: new.id, name: wish.name, role: wish.role, group: wish.group, secretDigest: new.secretDigest,
            createdAt: now, expiresAt: life.map { now.adding(seconds: $0) }, maximumUses: wish.maximumUses)
        state.put(.token(token))
        note(
            kind: "token", action: "create", id: token.id.text, name: token.name,
            attributes: ["role": token.role.rawValue], now: now)
        return .token(token.id)
    }

    mutating func revokeToken(_ ref: String, now: Timestamp) throws(APIProblem) -> PendingReply {
        let token = try token(ref)
        state.delete(.token(token.id))
        note(kind: "token", action: "revoke", id: token.id.text, name: token.name, now: now)
        return .done
    }

    /// Finds a token by its id, the beginning of it (at least 4 characters) or its name.
    func token(_ ref: String) throws(APIProblem) -> Token {
        if let token = state.tokens[TokenID(ref)] { return token }
        var found = state.tokens.values.filter { $0.name == ref }
        if found.isEmpty, ref.utf8.count >= 4 { found = state.tokens.values.filter { $0.id.text.hasPrefix(ref) } }
        guard found.count <= 1 else {
            throw APIProblem(.conflict, "'\(ref)' may be any of \(found.count) tokens: write its id")
        }
        guard let token = found.first else {
            throw APIProblem(.notFound, "there is no token '\(ref)'; see `martlet token ls`")
        }
        return token
    }

    /// Grows with every change of `tokens`.
    package var tokenChanges: Int { state.tokenChanges }

    /// All that there are, also those that have run out.
    package var tokens: [TokenID: Token] { state.tokens }

    /// The token of an id; nil: none that counts now.
    package func validToken(_ id: TokenID, now: Timestamp) -> Token? {
        state.tokens[id].flatMap { $0.isValid(at: now) ? $0 : nil }
    }

    /// Whether a node with this id belongs to the cluster.
    package func hasNode(_ id: NodeID) -> Bool { state.nodes[id] != nil }

    /// All that belong to the cluster.
    package var nodeIDs: [NodeID] { state.nodes.keys.sorted() }

    package func node(_ id: NodeID) -> Node? { state.nodes[id] }

    /// A machine with a token becomes a node.
    mutating func joinNode(_ body: NodeRegistration, now: Timestamp) throws(APIProblem) -> PendingReply {
        guard case .user(let id, _, .node, _) = acting, var token = validToken(id, now: now) else {
            throw APIProblem(.forbidden, "joining takes a token for that: `martlet token create --role node`")
        }
        if let known = state.nodes[body.node.id] {
            // The answer to its first try was lost on the way.
            if let session = body.nextSession, known.session == session { return .registered(known.id) }
            // Its certificate ran out while it was away; the word that only it was told shows that it is the same.
            guard let session = body.session, known.session == session else {
                throw APIProblem(
                    .conflict,
                    "a node with this machine's identity (\(known.id), \(known.name)) has joined already: when its data "
                        + "directory was copied from another machine, remove it here; when it lost its certificate, "
                        + "remove the node with `martlet node rm --force \(known.name)` first")
            }
        }
        if let most = token.maximumUses, token.uses >= most {
            throw APIProblem(
                .forbidden,
                "the token has been used \(token.uses) times, and may be no more often: make another with "
                    + "`martlet token create --role node`")
        }
        let reply = try registerNode(body, now: now)
        token.uses += 1
        state.put(.token(token))
        return reply
    }

    // MARK: The cluster's settings

    mutating func configureCluster(_ settings: ClusterSettings, now: Timestamp) throws(APIProblem) -> PendingReply {
        guard var record = state.cluster else { throw APIProblem(.unavailable, "the cluster is being made") }
        guard (1...16).contains(settings.advertise.count) else {
            throw APIProblem(.badRequest, "$.advertise: name 1 to 16 addresses under which others reach this machine")
        }
        for (index, address) in settings.advertise.enumerated() where !Self.isHost(address) {
            throw APIProblem(.badRequest, "$.advertise[\(index)]: \(Admission.quoted(address)) is no name or address")
        }
        guard Self.isListener(settings.listen) else {
            throw APIProblem(
                .badRequest, "$.listen: \(Admission.quoted(settings.listen)) is not address:port, such as 0.0.0.0:7070")
        }
        guard (10...315_360_000).contains(settings.certificateLife) else {
            throw APIProblem(
                .badRequest, "$.certificateLife: \(settings.certificateLife) is not between 10 s and ten years")
        }
        guard record.settings != settings else { return .query(.cluster) }
        record.settings = settings
        state.put(.cluster(record))
        note(kind: "cluster", action: "configure", id: record.id, name: "", now: now)
        return .query(.cluster)
    }

    /// A host name or address, without port.
    private static func isHost(_ text: String) -> Bool {
        (1...253).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                Admission.isAlphanumeric($0) || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-")
                    || $0 == UInt8(ascii: ":")
            }
    }

    private static func isListener(_ text: String) -> Bool {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]), port > 0 else {
            return false
        }
        let host = text[..<colon]
        let bare = host.hasPrefix("[") && host.hasSuffix("]") ? host.dropFirst().dropLast() : host
        return isHost(String(bare)) && (bare == host ? !host.contains(":") : true)
    }
}
