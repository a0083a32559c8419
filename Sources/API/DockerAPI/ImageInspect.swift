import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// What an image is and how it came to be.
extension DockerAPI {
    func inspectImage(_ call: DockerCall) async throws -> Response {
        let view = try await image(call.id)
        let details = try await details(of: view)
        guard case .nodes(let nodes) = try await master.query(.imageNodes(view.digest)) else {
            throw APIProblem.unexpected
        }
        let (comment, author) = (details.comment ?? "", details.author ?? "")
        var object: JSONObject = [
            "Id": .string(view.id), "RepoTags": .list(view.names), "RepoDigests": .list(view.repositoryDigests ?? []),
            "Created": .time(view.createdAt),
        ]
        if call.version < .v1_52 {
            object["Parent"] = ""
            object["DockerVersion"] = ""
        }
        if call.version < .v1_52 || !comment.isEmpty { object["Comment"] = .string(comment) }
        if call.version < .v1_52 || !author.isEmpty { object["Author"] = .string(author) }
        if call.version < .v1_45 {
            object["Container"] = ""
            object["ContainerConfig"] = Self.config(ImageDetails(image: view), call.version)
        }
        object["Config"] = Self.config(details, call.version)
        object["Architecture"] = .string(view.platform.architecture)
        if let variant = details.variant { object["Variant"] = .string(variant) }
        object["Os"] = .string(view.platform.os)
        object["Size"] = .integer(view.size)
        if call.version < .v1_44 { object["VirtualSize"] = .integer(view.size) }
        object["GraphDriver"] = ["Data": [:], "Name": "overlay2"]
        object["RootFS"] = ["Type": "layers", "Layers": .list(details.layers)]
        let named = view.namedAt?.values.max()
        object["Metadata"] = ["LastTagTime": .time(named)]
        object["Nodes"] = .list(nodes.map(\.node.name).sorted())
        return .json(bytes: JSONValue.object(object).serialized())
    }

    /// What an image says of its containers. Before 1.52 empty members are there too, and before 1.50 those that only
    /// containers have.
    static func config(_ details: ImageDetails, _ version: APIVersion) -> JSONValue {
        var object = JSONObject()
        if version < .v1_50 {
            for key in ["Hostname", "Domainname", "Image"] { object[key] = "" }
            for key in ["AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"] {
                object[key] = false
            }
        }
        func add(_ key: String, _ value: JSONValue, isEmpty: Bool) {
            if version < .v1_52 || !isEmpty { object[key] = value }
        }
        func add(_ key: String, _ list: [String]) { add(key, .listOrNull(list), isEmpty: list.isEmpty) }
        func add(_ key: String, _ text: String) { add(key, .string(text), isEmpty: text.isEmpty) }
        add("User", details.user)
        if !details.exposedPorts.isEmpty { object["ExposedPorts"] = .set(details.exposedPorts) }
        add("Env", details.environment)
        add("Cmd", details.command)
        if let check = details.healthCheck { object["Healthcheck"] = healthCheck(check) }
        let (volumes, labels) = (details.volumes, details.labels)
        add("Volumes", volumes.isEmpty ? .null : .set(volumes), isEmpty: volumes.isEmpty)
        add("WorkingDir", details.workingDirectory)
        add("Entrypoint", details.entrypoint)
        add("OnBuild", details.onBuild ?? [])
        add("Labels", labels.isEmpty ? .null : .texts(labels), isEmpty: labels.isEmpty)
        if !details.stopSignal.isEmpty { object["StopSignal"] = .string(details.stopSignal) }
        if let shell = details.shell, !shell.isEmpty { object["Shell"] = .list(shell) }
        return .object(object)
    }

    private static func healthCheck(_ check: ImageHealthCheck) -> JSONValue {
        var object: JSONObject = ["Test": .list(check.test)]
        let numbers = [
            ("Interval", check.interval), ("Timeout", check.timeout), ("StartPeriod", check.startPeriod),
            ("StartInterval", check.startInterval), ("Retries", check.retries),
        ]
        for (key, number) in numbers { if let number, number != 0 { object[key] = .integer(number) } }
        return .object(object)
    }

    /// The steps, the last one first.
    func imageHistory(_ call: DockerCall) async throws -> Response {
        let view = try await image(call.id)
        let steps = try await details(of: view).history ?? []
        let list = steps.enumerated().reversed().map { index, step -> JSONValue in
            let isTop = index == steps.count - 1
            return [
                "Id": isTop ? .string(view.id) : "<missing>",
                "Created": .integer((step.createdAt?.nanoseconds ?? 0) / 1_000_000_000),
                "CreatedBy": .string(step.createdBy), "Tags": isTop ? .listOrNull(view.names) : .null,
                "Size": .integer(step.size), "Comment": .string(step.comment),
            ]
        }
        return .json(bytes: JSONValue.array(list).serialized())
    }
}
