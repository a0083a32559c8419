import JSON
import Kernel

/// A login at a registry. It never shows itself in a message.
package enum RegistryCredentials: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible {
    case password(user: String, password: String)
    /// What a token server gave for a password once (`identitytoken` in Docker's file).
    case identityToken(String)

    package var description: String {
        switch self {
        case .password(let user, _): "the login of '\(printable(user))'"
        case .identityToken: "the stored identity token"
        }
    }

    package var debugDescription: String { description }

    /// The value of an `Authorization` header (RFC 7617); nil for an identity token, which only a token server takes.
    var basic: String? {
        guard case .password(let user, let password) = self else { return nil }
        return "Basic " + Base64.encode(Array("\(user):\(password)".utf8))
    }
}

/// The logins of Docker's configuration file, `~/.docker/config.json`. Programs that it names are never run.
package struct DockerLogins: Sendable {
    private struct Entry: Decodable {
        var auth: String?
        var username: String?
        var password: String?
        var identitytoken: String?

        var isEmpty: Bool { [auth, username, password, identitytoken].allSatisfy { $0?.isEmpty ?? true } }
    }

    private struct Contents: Decodable {
        var auths: [String: Entry]?
        var credHelpers: [String: String]?
        var credsStore: String?
    }

    private let path: String
    private let contents: Contents

    /// Reads the file; one that is not there has no logins.
    ///
    /// - Throws: `ImageError` of kind `invalidArgument` for one that is not Docker's, or `system`.
    package init(reading path: String) throws {
        self.path = path
        guard File.exists(path) else {
            contents = Contents()
            return
        }
        contents = try ImageError.explaining("reading stored logins") {
            let bytes = try File.read(path, limit: 1 << 20)
            do {
                return try JSONCoding.decode(Contents.self, from: bytes)
            } catch {
                throw ImageError(.invalidArgument, "\(path) is no configuration file of Docker: \(error)")
            }
        }
    }

    /// The login for a registry, named as in image names; nil when there is none.
    ///
    /// - Throws: `ImageError`: unsupported when the login is kept by a program; invalidArgument for a damaged one.
    package func credentials(for host: String) throws -> RegistryCredentials? {
        let wanted = Self.normalized(host)
        let helper = contents.credHelpers?.first { Self.normalized($0.key) == wanted }?.value
        let entries = (contents.auths ?? [:]).filter { Self.normalized($0.key) == wanted }
        // A host may be there under two spellings; the one as it is written in image names goes first.
        let key = entries[host] != nil ? host : entries.keys.sorted().first { entries[$0]?.isEmpty == false }
        // What `martlet login` has written counts although the file names a program for the host.
        if let helper, entries[key ?? ""]?.isEmpty ?? true { throw isKeptByProgram(host, helper) }
        guard let entry = entries[key ?? ""] ?? entries.values.first else { return nil }
        if entry.isEmpty {
            guard let store = contents.credsStore, !store.isEmpty else { return nil }
            throw isKeptByProgram(host, store)
        }
        if let token = entry.identitytoken, !token.isEmpty { return .identityToken(token) }
        if let user = entry.username, !user.isEmpty, let password = entry.password {
            return .password(user: user, password: password)
        }
        guard let bytes = entry.auth.flatMap({ Base64.decode($0) }), let colon = bytes.firstIndex(of: 0x3a),
            let user = String(validating: bytes[..<colon], as: UTF8.self),
            let password = String(validating: bytes[(colon + 1)...].filter { $0 != 0 }, as: UTF8.self)
        else {
            throw ImageError(
                .invalidArgument,
                "the login for \(printable(host)) in \(path) is damaged: auth is no base64 of user:password")
        }
        return .password(user: user, password: password)
    }

    private func isKeptByProgram(_ host: String, _ name: String) -> ImageError {
        ImageError(
            .unsupported,
            "\(path) leaves the login for \(printable(host)) to the program 'docker-credential-\(printable(name))', and "
                + "Martlet runs no such programs; log in with 'martlet login', or give the login with the request")
    }

    /// Docker writes Docker Hub as `https://index.docker.io/v1/`, and others with and without scheme and path.
    private static func normalized(_ key: String) -> String {
        var rest = key.lowercased()[...]
        for scheme in ["https://", "http://"] where rest.hasPrefix(scheme) { rest = rest.dropFirst(scheme.count) }
        let host = String(rest.prefix { $0 != "/" })
        return ["index.docker.io", "registry-1.docker.io"].contains(host) ? "docker.io" : host
    }
}
