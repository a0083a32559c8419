import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// Images as archives.
extension DockerAPI {
    /// `POST /images/create?fromSrc=-`: the body is the tar of a root file system.
    func importImage(_ call: DockerCall) async throws -> Response {
        guard let source = call.query.text("fromSrc") else {
            throw DockerError.badRequest("fromImage or fromSrc is missing in the query")
        }
        guard source == "-" else {
            throw DockerError.unsupported(
                "fromSrc=URL", "the master fetches nothing for its clients; send the archive itself (fromSrc=-)")
        }
        let name = try Self.newName(call)
        var config = ImageImportConfig()
        try ImageChanges.apply(call.query.list("changes"), to: &config)
        config.comment = call.query.text("message")
        let text = String(decoding: try JSONCoding.encode(config), as: UTF8.self)
        var query = [("config", text)]
        if let platform = call.query.text("platform") {
            let parts = platform.split(separator: "/", omittingEmptySubsequences: false)
            guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty }) else {
                throw DockerError.badRequest("platform=\(platform.prefix(80)) is not os or os/architecture")
            }
            query.append(("os", String(parts[0])))
            if parts.count == 2 { query.append(("architecture", String(parts[1]))) }
        }
        let view = try await master.importImage(call.request.body, name: name, query: query, on: nil)
        return .dockerLines(call.context) { try await $0.write(ProgressLine(status: view.id)) }
    }

    func loadImages(_ call: DockerCall) async throws -> Response {
        // The node takes its own of an archive's platforms, which may be said.
        let choices = try call.platforms()
        let node = try await master.node(nil)
        guard choices.allSatisfy({ $0.matches(node.platform) }) else {
            throw DockerError.unsupported(
                "platform=\(choices.map(\.description).joined(separator: ", "))",
                "an image for the node, \(node.platform.os)/\(node.platform.architecture), is loaded: leave it out")
        }
        let views = try await master.loadImages(call.request.body, on: node.id.text)
        return .dockerLines(call.context) { writer in
            for view in views {
                let texts =
                    view.names.isEmpty
                    ? ["Loaded image ID: \(view.id)"] : view.names.map { "Loaded image: \($0)" }
                for text in texts { try await writer.write(ProgressLine(stream: text + "\n")) }
            }
        }
    }

    /// - Parameter names: one without a tag means all tags of the repository, as with dockerd.
    func saveImages(_ call: DockerCall, _ names: [String]) async throws -> Response {
        let choices = try call.platforms()
        // Several may stand in one, with commas.
        let given = names.flatMap { $0.split(separator: ",").map(String.init) }
        guard !given.isEmpty else { throw DockerError.badRequest("no image is named in the query") }
        let known = try await master.images()
        var all: [String] = []
        for name in given {
            let tags =
                Self.hasTag(name) || name.contains("@")
                ? []
                : known.flatMap(\.names).filter { tag in
                    ImageName(name).map { ImageName(tag)?.repository == $0.repository } ?? false
                }
            let references: [String]
            if tags.isEmpty {
                references = [Self.reference(name, try await image(name))]
            } else {
                references = tags.sorted()
            }
            for reference in references where !choices.isEmpty {
                try Self.require(choices, of: try await image(reference), named: name)
            }
            all += references
        }
        return try await master.saveImages(call.request, all)
    }
}
