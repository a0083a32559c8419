import HTTPTypes
import Hummingbird
import JSON
import Wire

/// A login as Docker's clients send it: AuthConfig of Moby's `api/swagger.yaml`.
struct RegistryAuth: Decodable, Sendable {
    var username: String?
    var password: String?
    /// `user:password` in base64, in place of the two.
    var auth: String?
    var serveraddress: String?
    var identitytoken: String?
    var registrytoken: String?

    /// nil where nothing is given.
    ///
    /// - Throws: `DockerError` 400.
    var login: RegistryLogin? {
        get throws {
            if let registrytoken, !registrytoken.isEmpty {
                throw DockerError.unsupported(
                    "registrytoken", "give user and password, or an identity token, and the registry is asked for one")
            }
            if let identitytoken, !identitytoken.isEmpty { return RegistryLogin(identityToken: identitytoken) }
            if let username, !username.isEmpty { return RegistryLogin(username: username, password: password ?? "") }
            guard let auth, !auth.isEmpty else { return nil }
            let parts = Base64.decode(auth).map {
                String(decoding: $0, as: UTF8.self).split(separator: ":", maxSplits: 1).map(String.init)
            }
            guard let parts, parts.count == 2 else {
                throw DockerError.badRequest("the login's auth is no base64 of user:password")
            }
            return RegistryLogin(username: parts[0], password: parts[1])
        }
    }

    /// The registry as image names have it: `https://index.docker.io/v1/` is `docker.io`.
    var registry: String {
        var text = (serveraddress ?? "")[...]
        for scheme in ["https://", "http://"] where text.hasPrefix(scheme) { text = text.dropFirst(scheme.count) }
        let host = String(text.prefix { $0 != "/" })
        return ["", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"].contains(host)
            ? "docker.io" : host
    }
}

extension DockerCall {
    /// The longest header with a login, in bytes.
    private static let longestLogin = 32 << 10

    /// The login in `X-Registry-Auth`: JSON in base64 of the alphabet for URLs, with padding or without.
    ///
    /// - Throws: `DockerError` 400 that repeats nothing of it.
    func registryLogin() throws -> RegistryLogin? {
        guard let header = request.headers[.registryAuth], !header.isEmpty else { return nil }
        var text = header.replacing("-", with: "+").replacing("_", with: "/")
        while text.hasSuffix("=") { text.removeLast() }
        text += String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
        guard header.utf8.count <= Self.longestLogin, let bytes = Base64.decode(text),
            let auth = try? JSONCoding.decode(RegistryAuth.self, from: bytes)
        else {
            throw DockerError.badRequest("invalid X-Registry-Auth header: it is no base64url of a login in JSON")
        }
        return try auth.login
    }
}
