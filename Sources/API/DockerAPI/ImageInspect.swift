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
        var object: JSONObject = [
            "Id": .string(view.id), "RepoTags": .list(view.names), "RepoDigests": .list(view.repositoryDigests ?? []),
            "Parent": "", "Comment": .string(details.comment ?? ""), "Created": .time(view.createdAt),
        ]
        if call.version < APIVersion(minor: 45) {
            object["Container"] = ""
            object["ContainerConfig"] = Self.config(ImageDetails(image: view))
        }
        object["DockerVersion"] = ""
        object["Author"] = .string(details.author ?? "")
        object["Config"] = Self.config(details)
        object["Architecture"] = .string(view.platform.architecture)
        if let variant = details.variant { object["Variant"] = .string(variant) }
        object["Os"] = .string(view.platform.os)
        object["Size"] = .integer(view.size)
        if call.version < APIVersion(minor: 44) { object["VirtualSize"] = .integer(view.size) }
        object["GraphDriver"] = ["Data": [:], "Name": "overlay2"]
        object["RootFS"] = ["Type": "layers", "Layers": .list(details.layers)]
        let named = view.namedAt?.values.max()
        object["Metadata"] = ["LastTagTime": .time(named)]
        object["Nodes"] = .list(nodes.map(\.node.name).sorted())
        return .json(bytes: JSONValue.object(object).serialized())
    }

    private static func config(_ details: ImageDetails) -> JSONValue {
        var object: JSONObject = [
            "Hostname": "", "Domainname": "", "User": .string(details.user), "AttachStdin": false,
            "AttachStdout": false, "AttachStderr": false,
        ]
        if !details.exposedPorts.isEmpty { object["ExposedPorts"] = .set(details.exposedPorts) }
        for key in ["Tty", "OpenStdin", "StdinOnce"] { object[key] = false }
        object["Env"] = .listOrNull(details.environment)
        object["Cmd"] = .listOrNull(details.command)
        if let check = details.healthCheck { object["Healthcheck"] = healthCheck(check) }
        object["Image"] = ""
        object["Volumes"] = details.volumes.isEmpty ? .null : .set(details.volumes)
        object["WorkingDir"] = .string(details.workingDirectory)
        object["Entrypoint"] = .listOrNull(details.entrypoint)
        object["OnBuild"] = .listOrNull(details.onBuild ?? [])
        object["Labels"] = details.labels.isEmpty ? .null : .texts(details.labels)
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
