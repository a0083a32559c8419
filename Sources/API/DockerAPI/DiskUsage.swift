import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOCore
import Wire

/// `GET /system/df`: what images, containers and volumes take on all nodes that are there. It is counted when it is asked
/// for, which takes nodes as long as their disks do.
///
/// Since 1.52 it is told in sums, with everything that they are made of only for `verbose`; until 1.52 as lists.
extension DockerAPI {
    private static let kinds: Set<String> = ["container", "image", "volume", "build-cache"]

    func diskUsage(_ call: DockerCall) async throws -> Response {
        let asked = Set(call.query.list("type"))
        for kind in asked.sorted() where !Self.kinds.contains(kind) {
            throw DockerError.badRequest(
                "unknown object type: \(kind.prefix(40)): it is one of \(Self.kinds.sorted().joined(separator: ", "))")
        }
        let wanted = asked.isEmpty ? Self.kinds : asked
        let containers = try await master.containers(ContainerSelection())
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
        let form = DiskUsageForm(version: call.version, isVerbose: call.query.flag("verbose"))
        var parts: [DiskUsagePart] = []
        if wanted.contains("image") { parts.append(Self.imageUsage(images, containers, form)) }
        if wanted.contains("container") { parts.append(await Self.containerUsage(containers, images, sizes, form)) }
        if withVolumes { parts.append(Self.volumeUsage(try await master.volumes(), sizes, form)) }
        if wanted.contains("build-cache") {
            parts.append(DiskUsagePart(name: "BuildCacheUsage", oldName: "BuildCache", items: Array("[]".utf8)))
        }
        return .json(text: form.text(parts))
    }

    private static func imageUsage(
        _ images: [ImageView], _ containers: [ContainerSummary], _ form: DiskUsageForm
    ) -> DiskUsagePart {
        var users: [String: Int64] = [:]
        for container in containers { users[container.imageID, default: 0] += 1 }
        var part = DiskUsagePart(name: "ImageUsage", oldName: "Images")
        for image in images { part.add(image.size, isActive: users[image.id] ?? 0 > 0) }
        if form.hasItems {
            var style = ImageStyle(version: form.version, nodes: [:])
            style.users = users
            style.sharedSizes = [:]
            part.items = JSONValue.array(images.map(style.summary)).serialized()
        }
        return part
    }

    /// With the items as `GET /containers/json` with sizes shows them.
    private static func containerUsage(
        _ containers: [ContainerSummary], _ images: [ImageView], _ sizes: [NodeID: MeasuredSizes], _ form: DiskUsageForm
    ) async -> DiskUsagePart {
        var part = DiskUsagePart(name: "ContainerUsage", oldName: "Containers")
        var style = ContainerListStyle(version: form.version, namesNodes: false, now: .now())
        style.sizes = Dictionary(images.map { ($0.id, $0.size) }, uniquingKeysWith: max)
        var text = JSONText()
        text.open()
        for (index, container) in containers.enumerated() {
            let written = container.node.flatMap { node in
                container.task.flatMap { sizes[node]?.tasks[$0.text] }
            }
            part.add(written ?? 0, isActive: container.state.isActive)
            if form.hasItems { style.write(container, written: written, to: &text) }
            // Others are answered between them.
            if index % 500 == 499 { await Task.yield() }
        }
        text.close()
        part.items = text.bytes
        return part
    }

    private static func volumeUsage(
        _ volumes: [VolumeView], _ sizes: [NodeID: MeasuredSizes], _ form: DiskUsageForm
    ) -> DiskUsagePart {
        var part = DiskUsagePart(name: "VolumeUsage", oldName: "Volumes")
        let style = VolumeStyle(volumes)
        var items: [JSONValue] = []
        for view in volumes {
            // -1: its node does not say.
            let size = sizes[view.node]?.volumes[view.name] ?? -1
            part.add(max(0, size), isActive: !view.usedBy.isEmpty)
            var volume = style.volume(view)
            volume["UsageData"] = ["RefCount": .integer(Int64(view.usedBy.count)), "Size": .integer(size)]
            items.append(.object(volume))
        }
        part.items = JSONValue.array(items).serialized()
        return part
    }
}

/// What objects of one kind take.
struct DiskUsagePart: Sendable {
    /// Since 1.52.
    let name: StaticString
    /// Until 1.52.
    let oldName: StaticString
    private var active: Int64 = 0
    private var total: Int64 = 0
    /// Bytes.
    private(set) var size: Int64 = 0
    private var reclaimable: Int64 = 0
    /// All of them, as a list in JSON.
    var items: [UInt8]

    init(name: StaticString, oldName: StaticString, items: [UInt8] = []) {
        self.name = name
        self.oldName = oldName
        self.items = items
    }

    mutating func add(_ bytes: Int64, isActive: Bool) {
        total += 1
        size += bytes
        if isActive { active += 1 } else { reclaimable += bytes }
    }

    func write(withItems: Bool, to text: inout JSONText) {
        text.object(name) { text in
            text.member("ActiveCount", active)
            text.member("TotalCount", total)
            text.member("Reclaimable", reclaimable)
            text.member("TotalSize", size)
            if withItems { text.member("Items", json: items) }
        }
    }
}

/// How a client is told what is used.
struct DiskUsageForm: Sendable {
    let version: APIVersion
    /// Whether the items are asked for, which 1.52 and later tell apart.
    let isVerbose: Bool

    private var hasSums: Bool { version >= .v1_52 }
    /// A client that asks for the items knows where they are since 1.52. Others are given the lists by all versions, as
    /// dockerd does whatever 1.53 has announced: docker-py asks with the newest and looks for them.
    private var hasLists: Bool { version < .v1_52 || !isVerbose }
    var hasItems: Bool { hasLists || isVerbose }

    func text(_ parts: [DiskUsagePart]) -> ByteBuffer {
        var text = JSONText()
        text.object { text in
            for part in parts where hasLists {
                if "\(part.oldName)" == "Images" { text.member("LayersSize", part.size) }
                text.member(part.oldName, json: part.items)
            }
            if version < .v1_42 { text.member("BuilderSize", Int64(0)) }
            for part in parts where hasSums { part.write(withItems: isVerbose, to: &text) }
        }
        return text.take()
    }
}
