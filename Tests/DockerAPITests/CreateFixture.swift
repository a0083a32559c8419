import JSON
import Model
import Wire

@testable import DockerAPI

/// Requests as clients send them, on an image that says nothing unless it is given something to say.
enum CreateFixture {
    static func image(_ change: (inout ImageDetails) -> Void = { _ in }) -> ImageDetails {
        let digest = "sha256:" + String(repeating: "a", count: 64)
        var details = ImageDetails(
            image: ImageView(
                names: ["img:1"], digest: digest, id: digest, size: 1000,
                platform: Platform(os: "linux", architecture: "amd64"), createdAt: nil))
        details.command = ["sleep", "100"]
        change(&details)
        return details
    }

    static func request(_ members: String, version: APIVersion = .newest) throws -> CreateRequest {
        try CreateRequest(
            try JSONValue.parse(#"{"Image":"img:1"\#(members.isEmpty ? "" : ",")\#(members)}"#), version: version)
    }

    /// - Parameter members: of the body, beside the image: `"Tty":true`.
    static func create(
        _ members: String = "", image: ImageDetails = image(), others: [String: ContainerView] = [:],
        version: APIVersion = .newest
    ) throws -> CreateContainer {
        var translation = CreateTranslation(try request(members, version: version), image: image, others: others)
        return try translation.translate()
    }

    static func spec(_ members: String, image: ImageDetails = image()) throws -> ContainerSpec {
        try create(members, image: image).pod.containers[0]
    }

    static func host(_ members: String, image: ImageDetails = image()) throws -> CreateContainer {
        try create(#""HostConfig":{\#(members)}"#, image: image)
    }

    static func hostSpec(_ members: String) throws -> ContainerSpec { try host(members).pod.containers[0] }

    static func view(
        _ wish: CreateContainer, name: String = "web", _ change: (inout ContainerView) -> Void = { _ in }
    ) -> ContainerView {
        let id = ContainerID(String(repeating: "0123456789abcdef", count: 4))
        let spec = wish.pod.containers[0]
        var view = ContainerView(
            id: id, name: name, kind: .container, instance: InstanceID("i"), workload: WorkloadID("w"),
            workloadName: name, slot: 1, task: TaskID("t"), node: NodeID("n"), nodeName: "n1", revision: 1,
            desired: .prepared, generation: 1, status: TaskStatus(phase: .prepared),
            container: ContainerStatus(name: "main", id: id), spec: spec, pod: wish.pod,
            hostname: wish.pod.hostname.isEmpty ? String(id.text.prefix(12)) : wish.pod.hostname, ports: wish.pod.ports,
            labels: wish.labels, removeOnExit: wish.removeOnExit, unschedulable: nil,
            createdAt: Timestamp(nanoseconds: 1_700_000_000_123_456_789))
        change(&view)
        return view
    }
}
