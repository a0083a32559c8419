import AsyncHTTPClient
import JSON
import NIOCore
import NIOHTTP1
import Synchronization

/// Requests to one registry or mirror on behalf of one pull or push: which scheme it speaks, who asks, and redirects.
///
/// Credentials and tokens go to the endpoint's own origin and to the token server that it names, nowhere else.
final class RegistrySession: Sendable {
    let endpoint: RegistryEndpoint
    let client: RegistryClient
    let credentials: RegistryCredentials?
    /// What tokens are asked for: `repository:team/app:pull` (distribution-spec's token scopes).
    let scopes: [String]

    private struct State: Sendable {
        var base: RegistryURL?
        /// The value of the `Authorization` header, once the registry has said what it wants.
        var authorization: String?
    }

    private let state = Mutex(State())

    init(
        _ endpoint: RegistryEndpoint, client: RegistryClient, credentials: RegistryCredentials?, scopes: [String]
    ) {
        self.endpoint = endpoint
        self.client = client
        self.credentials = credentials
        self.scopes = scopes
    }

    /// Sends a request once: follows redirects, and logs in when it is asked to.
    ///
    /// - Parameters:
    ///   - target: a path of the registry's API, with its query.
    ///   - accepted: the statuses that are returned; others are thrown as what they mean.
    ///   - subject: what it is about, for messages.
    /// - Returns: the answer, whose body is not read yet, and where it came from.
    func send(
        _ method: HTTPMethod = .GET, _ target: String, headers: HTTPHeaders = [:], body: RegistryClient.Body? = nil,
        accepting accepted: Set<Int>, _ subject: String
    ) async throws -> (response: HTTPClientResponse, url: RegistryURL) {
        try await send(
            method, at: base().with(target: target), headers: headers, body: body, accepting: accepted, subject)
    }

    /// The same for a URL that the registry named.
    func send(
        _ method: HTTPMethod, at start: RegistryURL, headers: HTTPHeaders = [:], body: RegistryClient.Body? = nil,
        accepting accepted: Set<Int>, _ subject: String
    ) async throws -> (response: HTTPClientResponse, url: RegistryURL) {
        let own = try await base()
        var request = RegistryClient.Request(method: method, url: start, headers: headers, body: body)
        var hasLoggedIn = false
        var redirects = 0
        while true {
            let isOwn = request.url.origin == own.origin
            let authorization = isOwn ? state.withLock { $0.authorization } : nil
            request.headers = headers
            if let authorization { request.headers.replaceOrAdd(name: "authorization", value: authorization) }
            let response = try await client.exchange(request)
            let status = Int(response.status.code)
            if accepted.contains(status) { return (response, request.url) }
            if status == 401, isOwn, !hasLoggedIn {
                hasLoggedIn = true
                try await logIn(AuthChallenge.all(response.headers), at: request.url, subject)
            } else if [301, 302, 303, 307, 308].contains(status), status >= 307 || method == .GET || method == .HEAD {
                redirects += 1
                guard redirects <= client.settings.redirects else {
                    throw ImageError(
                        .unavailable,
                        "\(endpoint.name) redirects \(subject) more than \(client.settings.redirects) times")
                }
                request.url = try next(response.headers, from: request.url, subject)
            } else {
                try await refuse(response, subject)
            }
        }
    }

    /// Where a redirect, or the answer to the begin of an upload, points to.
    func next(_ headers: HTTPHeaders, from url: RegistryURL, _ subject: String) throws -> RegistryURL {
        guard let location = headers.first(name: "location"), let next = url.resolving(location) else {
            throw ImageError(.unavailable, "\(endpoint.name) answers \(subject) with a Location that is no URL")
        }
        guard client.mayFollow(next, from: url) else {
            throw ImageError(
                .unavailable,
                "\(endpoint.name) leads \(subject) to \(next.origin), in plain HTTP where that is not allowed")
        }
        return next
    }

    /// Where the registry answers, found out by the first request: TLS, or plain HTTP where that is allowed.
    private func base() async throws -> RegistryURL {
        if let base = state.withLock({ $0.base }) { return base }
        let authority = (endpoint.host, endpoint.port)
        var found = RegistryURL(isSecure: true, authority: authority, target: "/")
        if client.configuration.allowsPlain(endpoint.host, endpoint.port) {
            do {
                _ = try await client.exchange(.init(method: .GET, url: found.with(target: "/v2/")))
            } catch is TransferFailure {
                found = RegistryURL(isSecure: false, authority: authority, target: "/")
            }
        }
        state.withLock { $0.base = found }
        return found
    }

    /// Checks that the registry answers, and takes the credentials where it wants any.
    func ping() async throws {
        let subject = "its API"
        let (response, _) = try await send(.GET, "/v2/", accepting: [200], subject)
        _ = try await RegistryClient.body(response, limit: 64 << 10, subject)
    }
}

// MARK: - Logging in

extension RegistrySession {
    /// Gets what the registry wants to see in `Authorization`.
    private func logIn(_ challenges: [AuthChallenge], at url: RegistryURL, _ subject: String) async throws {
        if let bearer = challenges.first(where: { $0.scheme == "bearer" }) {
            let token = try await token(bearer, at: url)
            state.withLock { $0.authorization = "Bearer \(token)" }
        } else if challenges.contains(where: { $0.scheme == "basic" }) {
            guard let credentials else {
                throw ImageError(
                    .unauthorized, "\(endpoint.name) wants a login for \(subject) (martlet login \(endpoint.name))")
            }
            guard let basic = credentials.basic else {
                throw ImageError(
                    .unauthorized,
                    "\(endpoint.name) wants a user and a password, but only \(credentials) is there; log in again")
            }
            state.withLock { $0.authorization = basic }
        } else {
            let schemes = challenges.map(\.scheme).joined(separator: ", ")
            throw ImageError(
                .unauthorized,
                "\(endpoint.name) wants a login of a kind that is not supported ('\(printable(schemes))'); "
                    + "basic and bearer are")
        }
    }

    private struct TokenAnswer: Decodable {
        var token: String?
        var access_token: String?
    }

    /// Asks the token server that the registry names (the token authentication of the distribution project).
    private func token(_ challenge: AuthChallenge, at url: RegistryURL) async throws -> String {
        guard let text = challenge.parameters["realm"], let realm = RegistryURL(text),
            client.mayFollow(realm, from: url)
        else {
            throw ImageError(
                .unauthorized,
                "\(endpoint.name) names a token server that cannot be asked: "
                    + "'\(printable(String((challenge.parameters["realm"] ?? "").prefix(200))))'")
        }
        let wanted = scopes.isEmpty ? challenge.parameters["scope"].map { [$0] } ?? [] : scopes
        let request = tokenRequest(realm, service: challenge.parameters["service"], scopes: wanted)
        let subject = "a token of \(realm.authority) for \(endpoint.name)"
        let response = try await client.exchange(request)
        guard response.status.code == 200 else {
            if [400, 401, 403].contains(response.status.code) {
                let login =
                    credentials.map { "\($0) is refused" } ?? "it needs a login (martlet login \(endpoint.name))"
                throw ImageError(
                    .unauthorized, "\(realm.authority) gives no token for \(endpoint.name): \(login)")
            }
            try await refuse(response, subject)
        }
        let bytes = try await RegistryClient.body(response, limit: 256 << 10, subject)
        let answer = try? JSONCoding.decode(TokenAnswer.self, from: bytes)
        guard let token = answer?.token ?? answer?.access_token, (1...(64 << 10)).contains(token.utf8.count),
            token.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f })
        else {
            throw ImageError(.unavailable, "\(realm.authority) answers without a token for \(endpoint.name)")
        }
        return token
    }

    private func tokenRequest(_ realm: RegistryURL, service: String?, scopes: [String]) -> RegistryClient.Request {
        if case .identityToken(let token)? = credentials {
            var fields = [("grant_type", "refresh_token"), ("client_id", "martlet"), ("refresh_token", token)]
            if let service { fields.append(("service", service)) }
            if !scopes.isEmpty { fields.append(("scope", scopes.joined(separator: " "))) }
            let form = fields.map { "\($0.0)=\(RegistryURL.encoded($0.1))" }.joined(separator: "&")
            return RegistryClient.Request(
                method: .POST, url: realm, headers: ["content-type": "application/x-www-form-urlencoded"],
                body: .init { .bytes(ByteBuffer(string: form)) })
        }
        var url = realm
        if let service { url = url.adding("service", service) }
        for scope in scopes { url = url.adding("scope", scope) }
        guard case .password(let user, _)? = credentials, let basic = credentials?.basic else {
            return RegistryClient.Request(url: url)
        }
        return RegistryClient.Request(url: url.adding("account", user), headers: ["authorization": basic])
    }
}
