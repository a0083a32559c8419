import Client
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOHTTP1
import Wire

/// What registries are asked, by way of a node: they are its network's.
extension DockerAPI {
    func searchImages(_ call: DockerCall) async throws -> Response {
        guard let term = call.query.text("term"), term.utf8.count <= 512 else {
            throw DockerError.badRequest("term is missing in the query, or longer than 512 bytes")
        }
        let filters = try call.filters(["is-automated", "is-official", "stars"])
        let isAutomated = try filters.flag("is-automated")
        let isOfficial = try filters.flag("is-official")
        let stars = try filters["stars"].map { text in
            guard let count = Int(text) else {
                throw DockerError.badRequest("invalid filter 'stars=\(text.prefix(40))'")
            }
            return count
        }.max()
        // A host before the term is the registry that is searched.
        let parts = term.split(separator: "/", maxSplits: 1).map(String.init)
        let isHost = parts.count == 2 && (parts[0].contains(".") || parts[0].contains(":") || parts[0] == "localhost")
        let wish = SearchRegistry(
            registry: isHost ? parts[0] : "docker.io", term: isHost ? parts[1] : term,
            limit: try call.query.integer("limit", in: 1...100) ?? 25, login: try call.registryLogin())
        let node = try await master.node(nil)
        let found = try await call.context.untilPeerCloses {
            try await RegistryRefusal(.pull, wish.registry, hasLogin: wish.login != nil).explaining {
                try await master.streams(node).json(
                    [FoundRepository].self, .POST, "/registries/search", body: .json(wish))
            }
        }
        let list = found.filter { one in
            isAutomated.map { $0 == one.isAutomated } ?? true && isOfficial.map { $0 == one.isOfficial } ?? true
                && stars.map { one.stars >= $0 } ?? true
        }.map { one -> JSONValue in
            [
                "description": .string(one.description), "is_automated": .bool(one.isAutomated),
                "is_official": .bool(one.isOfficial), "name": .string(one.name),
                "star_count": .integer(Int64(one.stars)),
            ]
        }
        return .json(bytes: JSONValue.array(list).serialized())
    }

    func describeDistribution(_ call: DockerCall) async throws -> Response {
        guard ImageName(call.id) != nil else { throw Self.invalidReference(call.id) }
        let wish = ResolveImage(image: call.id, login: try call.registryLogin())
        let node = try await master.node(nil)
        let found = try await call.context.untilPeerCloses {
            do {
                return try await master.streams(node).json(
                    RegistryImage.self, .POST, "/registries/resolve", body: .json(wish))
            } catch let error as APIError where error.code == "registry-login" {
                throw DockerError(401, error.message)
            } catch let error as APIError where error.code == "registry-unavailable" {
                throw DockerError(500, error.message)
            }
        }
        let answer: JSONValue = [
            "Descriptor": [
                "mediaType": .string(found.mediaType), "digest": .string(found.digest), "size": .integer(found.size),
            ],
            "Platforms": .array(
                found.platforms.map { platform in
                    var object: JSONObject = [
                        "architecture": .string(platform.architecture), "os": .string(platform.os),
                    ]
                    if let variant = platform.variant { object["variant"] = .string(variant) }
                    return .object(object)
                }),
        ]
        return .json(bytes: answer.serialized())
    }

    func checkAuth(_ call: DockerCall) async throws -> Response {
        let auth = try await call.body(RegistryAuth.self)
        guard let login = try auth.login else {
            throw DockerError.badRequest("the login has no user name and no token")
        }
        let wish = CheckLogin(registry: auth.registry, login: login)
        let node = try await master.node(nil)
        try await call.context.untilPeerCloses {
            do {
                try await master.streams(node).perform(.POST, "/registries/login", body: .json(wish))
            } catch let error as APIError where error.code == "registry-login" {
                throw DockerError(401, "unauthorized: incorrect username or password: \(error.message)")
            } catch let error as APIError where error.code == "registry-unavailable" {
                throw DockerError(500, error.message)
            }
        }
        let answer: JSONValue = ["Status": "Login Succeeded", "IdentityToken": ""]
        return .json(bytes: answer.serialized())
    }
}
