import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// `GET /system/df`: what images, containers and volumes take on all nodes that are there. It is counted when it is asked
/// for, which takes nodes as long as their disks do.
extension DockerAPI {
    private static let kinds: Set<String> = ["container", "image", "volume", "build-cache"]

    func diskUsage(_ call: DockerCall) async throws -> Response {
        let asked = Set(call.query.list("type"))
        for kind in asked.sorted() where !Self.kinds.contains(kind) {
            throw DockerError.badRequest("unknown object type: \(kind.prefix(40))")
        }
        let wanted = asked.isEmpty ? Self.kinds : asked
        let containers = try await allContainers()
        var tasks: [NodeID: [TaskID]] = [:]
        if wanted.contains("container") {
            for container in containers {
                if let node = container.node, let task = container.task { tasks[node, default: []].append(task) }
            }
        }
        let withVolumes = wanted.contains("volume")
        let sizes =
            tasks.isEmpty && !withVolumes
            ? [:] : try await master.sizes(of: tasks, volumes: withVolumes)
        let images = try await mergedImages()
        var object = JSONObject()
        if wanted.contains("image") {
            var style = ImageStyle(version: call.version, nodes: [:])
            style.users = Self.users(containers)
            style.sharedSizes = [:]
            object["LayersSize"] = .integer(images.reduce(0) { $0 + $1.size })
            object["Images"] = .array(images.map(style.summary))
        }
        if wanted.contains("container") {
            object["Containers"] = try Self.list(containers, images, sizes, call.version)
        }
        if withVolumes {
            let all = try await master.volumes()
            let style = VolumeStyle(all)
            object["Volumes"] = .array(
                all.map { view in
                    var volume = style.volume(view)
                    volume["UsageData"] = [
                        "RefCount": .integer(Int64(view.usedBy.count)),
                        "Size": .integer(sizes[view.node]?.volumes[view.name] ?? -1),
                    ]
                    return .object(volume)
                })
        }
        if wanted.contains("build-cache") { object["BuildCache"] = .array([]) }
        if call.version < APIVersion(minor: 42) { object["BuilderSize"] = 0 }
        return .json(bytes: JSONValue.object(object).serialized())
    }

    private func allContainers() async throws -> [ContainerSummary] {
        var found: [ContainerSummary] = []
        var position: ContainerPosition?
        repeat {
            let query = MasterQuery.containerPage(ContainerSelection(), after: position, limit: 500)
            guard case .containerPage(let page) = try await master.query(query) else { throw APIProblem.unexpected }
            found += page.containers
            position = page.next
        } while position != nil
        return found
    }

    /// Containers of each image, by the image's id.
    private static func users(_ containers: [ContainerSummary]) -> [String: Int64] {
        var users: [String: Int64] = [:]
        for container in containers { users[container.imageID, default: 0] += 1 }
        return users
    }

    /// As `GET /containers/json` with sizes shows them.
    private static func list(
        _ containers: [ContainerSummary], _ images: [ImageView], _ sizes: [NodeID: MeasuredSizes], _ version: APIVersion
    ) throws -> JSONValue {
        var style = ContainerListStyle(version: version, namesNodes: false, now: .now())
        style.sizes = Dictionary(images.map { ($0.id, $0.size) }, uniquingKeysWith: max)
        var text = JSONText()
        text.open()
        for container in containers {
            let written = container.node.flatMap { node in
                container.task.flatMap { sizes[node]?.tasks[$0.text] }
            }
            style.write(container, written: written, to: &text)
        }
        text.close()
        return try JSONValue.parse(text.bytes, limits: JSONLimits(bytes: text.bytes.count))
    }
}
