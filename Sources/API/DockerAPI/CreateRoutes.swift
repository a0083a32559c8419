import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

extension DockerAPI {
    var createRoutes: [DockerRoute] {
        [
            DockerRoute(.post, "/containers/create", access: .work) { call in
                let name = try call.query.text("name").map { try Self.containerName($0) }
                let request = try CreateRequest(try await call.body(JSONValue.self), version: call.version)
                let made = try await create(
                    request, name: name, platform: call.query.text("platform"), version: call.version)
                let answer: JSONValue = [
                    "Id": .string(made.view.id.text), "Warnings": .array(made.warnings.map { .string($0) }),
                ]
                return try .docker(answer, status: .created)
            }
        ]
    }

    /// A container's name without the slash that Docker puts before it.
    ///
    /// - Throws: `DockerError` 400 for what is none.
    static func containerName(_ text: String) throws -> String {
        let name = text.hasPrefix("/") ? String(text.dropFirst()) : text
        let bytes = Array(name.utf8)
        let isWord = bytes.allSatisfy {
            Admission.isAlphanumeric($0) || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: ".")
                || $0 == UInt8(ascii: "-")
        }
        guard bytes.count >= 2, isWord, Admission.isAlphanumeric(bytes[0]) else {
            throw DockerError.badRequest(
                "Invalid container name (\(text.prefix(80))), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        }
        guard bytes.count <= 63 else {
            throw DockerError.badRequest(
                "Invalid container name (\(text.prefix(80))): it has \(bytes.count) bytes, and at most 63 are allowed")
        }
        return name
    }

    /// Makes a container that is not started yet.
    func create(
        _ request: CreateRequest, name: String?, platform: String?, version: APIVersion
    ) async throws -> (view: ContainerView, warnings: [String]) {
        guard let image = request.image, !image.isEmpty else {
            throw DockerError.badRequest("Image is empty: a container is made from an image")
        }
        let meant = try await self.image(image)
        let others: [String: ContainerView]
        do {
            others = try await self.others(request)
        } catch let error as DockerError where error.status == 404 {
            throw Self.otherThanImage(error.message)
        }
        var translation = CreateTranslation(request, image: try await details(of: meant), others: others)
        var wish = try translation.translate(name: name)
        if let platform { wish.pod.constraints += try Self.constraints(platform, meant, named: image) }
        let reply: MasterReply
        do {
            reply = try await master.performKnowingImages(.createContainer(wish))
        } catch {
            if error.code == .noSuchImage { throw Self.noImage(image) }
            if error.code == .notFound { throw Self.otherThanImage(error.message) }
            guard error.code == .conflict, let name else { throw error }
            throw await taken(name, or: error)
        }
        guard case .container(let view) = reply else { throw APIProblem.unexpected }
        return (view, translation.warnings + (version >= .v1_52 ? translation.emptyBindings : []))
    }

    /// Something that the request names is not there. Clients take 404 for a missing image, and go to get it.
    private static func otherThanImage(_ message: String) -> DockerError { .badRequest(message) }

    /// The containers that a request names, but for those whose namespaces it shares.
    private func others(_ request: CreateRequest) async throws -> [String: ContainerView] {
        let endpoints = (request.networkingConfig?.endpointsConfig ?? [:]).values.compactMap(\.self)
        let links = (request.hostConfig?.links ?? []) + endpoints.flatMap { $0.links ?? [] }
        let names =
            (request.hostConfig?.volumesFrom ?? []).map { CreateTranslation.volumesFrom($0).name }
            + links.map { CreateTranslation.link($0).name }
        guard names.count <= 256 else {
            throw DockerError.badRequest("\(names.count) volumes and links of other containers are more than 256")
        }
        var views: [String: ContainerView] = [:]
        for name in Set(names) { views[name] = try await container(name) }
        return views
    }

    /// A refusal in Docker's words when the name is another container's, else the one that came.
    func taken(_ name: String, or problem: APIProblem) async -> any Error {
        guard let other = try? await container(name), other.name == name else { return problem }
        return DockerError.conflict(
            "Conflict. The container name \"/\(name)\" is already in use by container \"\(other.id)\". You have to "
                + "remove (or rename) that container to be able to reuse that name.")
    }

    /// `os[/architecture[/variant]]`, as the image is, and as the node has to be.
    private static func constraints(
        _ platform: String, _ image: ImageView, named name: String
    ) throws -> [Constraint] {
        let parts = platform.split(separator: "/", omittingEmptySubsequences: false).map { String($0).lowercased() }
        guard (1...3).contains(parts.count), !parts.contains("") else {
            throw DockerError.badRequest("\(Admission.quoted(platform)) is no platform: write os/architecture")
        }
        let aliases = ["x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"]
        // One word may be either.
        let isOS = parts.count > 1 || parts[0] == "linux" || parts[0] == "windows"
        let os = isOS ? parts[0] : "linux"
        let given = isOS ? parts.dropFirst().first : parts[0]
        let architecture = given.map { aliases[$0] ?? $0 } ?? image.platform.architecture
        guard os == image.platform.os, architecture == image.platform.architecture else {
            throw DockerError.notFound(
                "No such image: \(name): it is there for \(image.platform.os)/\(image.platform.architecture), not for "
                    + "\(os)/\(architecture)")
        }
        return [
            Constraint(label: "node.os", relation: .equal, value: os),
            Constraint(label: "node.arch", relation: .equal, value: architecture),
        ]
    }
}
