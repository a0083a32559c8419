import Client
import HTTPService
import Model
import Wire

/// Puts what a registry said, or that it said nothing, into Docker's words and status.
struct RegistryRefusal: Sendable {
    private let direction: ProgressLines.Direction
    /// Of the image.
    private let name: String
    private let hasLogin: Bool

    init(_ direction: ProgressLines.Direction, _ name: String, hasLogin: Bool) {
        self.direction = direction
        self.name = name
        self.hasLogin = hasLogin
    }

    func explaining<Result>(
        isolation: isolated (any Actor)? = #isolation, _ body: () async throws -> Result
    ) async throws -> Result {
        do {
            return try await body()
        } catch let error as ClientError {
            throw refusal(error.code ?? "", error.message, status: error.status)
        } catch let error as APIError {
            throw refusal(error.code, error.message, status: error.status)
        }
    }

    /// - Parameter status: of the node's answer; nil when it came within one.
    func refusal(_ code: String, _ message: String, status: Int?) -> DockerError {
        let repository = ImageName(name)?.repository ?? name
        switch code {
        case "not-found":
            let isWhole = name == repository
            return .notFound(
                isWhole
                    ? "repository \(name) not found: name unknown: \(message)"
                    : "manifest for \(name) not found: manifest unknown: \(message)")
        case "registry-login":
            let why = (hasLogin ? "unauthorized: " : "no basic auth credentials: ") + message
            guard direction == .pull else { return DockerError(500, why) }
            return .notFound(
                "pull access denied for \(repository), repository does not exist or may require 'docker login': "
                    + "denied: \(why)")
        case "bad-request", "unknown-field": return .badRequest(message)
        case "conflict": return .conflict(message)
        // The registry is away, not this cluster.
        case "registry-unavailable": return DockerError(500, message)
        default: return DockerError(status ?? 500, message)
        }
    }
}
