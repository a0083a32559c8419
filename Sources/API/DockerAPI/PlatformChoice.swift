import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Model
import Wire

/// A platform as Docker's clients choose one of an image's: the OCI specification's, as JSON in the query.
struct PlatformChoice: Decodable, Sendable, CustomStringConvertible {
    var os: String
    var architecture: String
    var variant: String?

    var description: String { ([os, architecture] + (variant.map { [$0] } ?? [])).joined(separator: "/") }

    /// Variants are told apart of no architecture but arm64, which has one.
    func matches(_ platform: Platform) -> Bool {
        let isUsual = (variant ?? "").isEmpty || architecture == "arm64" && variant == "v8"
        return os == platform.os && architecture == platform.architecture && isUsual
    }
}

extension DockerCall {
    /// The platforms that `platform` in the query chooses; none where nothing is said, and in versions before 1.48, which
    /// know no such thing. Several may stand there since 1.52.
    ///
    /// - Throws: `DockerError` 400 for what is none, and for more than may stand there.
    func platforms() throws -> [PlatformChoice] {
        guard version >= .v1_48 else { return [] }
        let texts = query.list("platform").filter { !$0.isEmpty }
        guard texts.count <= 1 || version >= .v1_52 else {
            throw DockerError.badRequest(
                "platform is given \(texts.count) times in the query: give one, or use API 1.52 or later")
        }
        return try texts.map { text in
            guard let choice = try? JSONCoding.decode(PlatformChoice.self, from: Array(text.utf8)) else {
                throw DockerError.badRequest(
                    "platform=\(text.prefix(80)) in the query is no JSON as {\"os\":\"linux\",\"architecture\":\"amd64\"}"
                )
            }
            return choice
        }
    }
}

extension DockerAPI {
    /// - Throws: `DockerError` 404 when the image, of which there is one platform here, is not there for one of them.
    static func require(_ choices: [PlatformChoice], of view: ImageView, named name: String) throws {
        guard let missing = choices.first(where: { !$0.matches(view.platform) }) else { return }
        throw DockerError.notFound(
            "No such image: \(name) for \(missing): it is there for \(view.platform.os)/\(view.platform.architecture) only"
        )
    }

    /// `GET /images/{name}/attestations`: images are kept without the statements about them, so there are none.
    func attestations(_ call: DockerCall) async throws -> Response {
        let choices = try call.platforms()
        guard choices.count <= 1 else {
            throw DockerError.badRequest("platform is given \(choices.count) times in the query: give one")
        }
        try Self.require(choices, of: try await image(call.id), named: call.id)
        return .json(bytes: Array("[]".utf8))
    }
}
