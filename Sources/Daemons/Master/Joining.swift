import ClusterSecurity
import JSON
import MasterCore
import Model
import Wire

/// Tokens and certificates: the core decides, the authority signs.
extension ClusterMaster {
    /// Sets how other machines reach the cluster; returns when the master listens there.
    ///
    /// - Throws: `APIProblem`, also when it cannot listen: the settings are kept then, and it is tried again.
    package func configure(_ settings: ClusterSettings) async throws -> MasterReply {
        let reply = try await perform(.configureCluster(settings))
        for _ in 0..<100 {
            // What was said of other settings does not concern these.
            let outcome = listenOutcome.flatMap { $0.settings == settings ? $0 : nil }
            if let problem = outcome?.problem {
                throw APIProblem(
                    .conflict, "\(problem); the settings are kept, and it is tried again until they change")
            }
            if outcome != nil { return reply }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw APIProblem(.timeout, "the master does not listen on \(settings.listen) yet; see its log")
    }

    /// Makes a token; its text is never seen again.
    package func createToken(_ wish: CreateToken) async throws -> TokenCreated {
        guard let authority else {
            throw APIProblem(
                .conflict,
                "the cluster is not reached from other machines yet, so that tokens are of no use: `martlet cluster enable "
                    + "--advertise ADDRESS` first")
        }
        var random = SystemRandomNumberGenerator()
        let text = TokenText(id: TokenID.make(&random).text, pin: authority.pin)
        let new = NewToken(id: TokenID(text.id), secretDigest: text.secretDigest, wish: wish)
        guard case .token(let view) = try await perform(.createToken(new)) else { throw APIProblem.unexpected }
        return TokenCreated(token: view, text: "\(text)", masters: addresses)
    }

    /// Makes a machine a node and gives it a certificate.
    package func join(_ wish: NodeJoin) async throws -> NodeJoined {
        let node = wish.registration.node.id
        // Before anything is written: a request that cannot be signed costs no use of the token.
        let issued = try issue(node, wish.certificateRequest)
        guard case .registered(let registered) = try await perform(.joinNode(wish.registration)) else {
            throw APIProblem.unexpected
        }
        return NodeJoined(registered: registered, issued: issued)
    }

    /// A new certificate for a node that is one.
    package func renew(_ node: NodeID, _ wish: CertificateRequest) throws -> CertificateIssued {
        guard core.hasNode(node) else { throw APIProblem(.notFound, "there is no node '\(node)'") }
        return try issue(node, wish.certificateRequest)
    }

    private func issue(_ node: NodeID, _ request: String) throws -> CertificateIssued {
        guard let authority, let settings = core.settings else {
            throw APIProblem(
                .conflict, "the cluster is not reached from other machines, so that it gives no certificates")
        }
        do {
            let certificate = try authority.issueNode(
                node.text, request: request, life: Int64(settings.certificateLife), now: .now())
            return CertificateIssued(certificate: certificate, authority: authority.certificate)
        } catch {
            throw APIProblem(.badRequest, "\(error)")
        }
    }
}
