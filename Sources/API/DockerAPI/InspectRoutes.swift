import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOHTTP1
import Wire

extension DockerAPI {
    var inspectRoutes: [DockerRoute] {
        [
            DockerRoute(.get, "/containers/{id}/json", access: .read) { call in
                let view = try await container(call.id)
                return try .docker(
                    try await inspect(view, version: call.version, measures: call.query.flag("size")).json)
            }
        ]
    }

    /// Gathers what an inspection tells, from the master's state; only sizes and what a health check said are asked of the
    /// node.
    func inspect(_ view: ContainerView, version: APIVersion, measures: Bool = false) async throws -> ContainerInspect {
        var inspect = ContainerInspect(view: view, version: version)
        // An image that no node has any more is known by its manifest only.
        if case .image(let image)? = try? await master.query(.image(view.spec.imageDigest)) {
            inspect.imageID = image.id
            inspect.imageSize = image.size
            inspect.platform = image.platform.os
        }
        var hasWay = view.network != .attached
        for attachment in view.pod.attachments {
            if case .network(let network)? = try? await master.query(.network(attachment.network)) {
                inspect.networkNames[attachment.network] = network.network.name
                // By the first that has a way out the ports are published.
                if !hasWay, !network.network.isInternal {
                    hasWay = true
                    inspect.publishesIPv6 = network.network.publishesIPv6
                }
            }
        }
        for id in Set(view.pod.attachments.flatMap(\.links.values)) {
            if case .container(let other)? = try? await master.query(.container(id)) {
                inspect.containerNames[id] = other.name
            }
        }
        let names = Set(view.pod.volumes).union(PodSpec(containers: [view.spec]).volumes)
        if !names.isEmpty, case .volumes(let volumes) = try await master.query(.volumes) {
            for volume in volumes where names.contains(volume.name) && volume.node == view.node {
                inspect.volumePaths[volume.name] = volume.path
            }
        }
        if let node = view.node, case .cluster(let cluster) = try await master.query(.cluster), cluster.nodes > 1,
            case .node(let host) = try await master.query(.node(node.text))
        {
            inspect.node = host.node
        }
        inspect.probes = await probes(of: view)
        inspect.execs = sessions.running(in: view.id)
        if measures {
            inspect.measures = true
            if let node = view.node, let task = view.task {
                let measured = try await master.sizes(of: [node: [task]], volumes: false)
                inspect.written = measured[node]?.tasks[task.text] ?? 0
            }
        }
        return inspect
    }

    /// What its node knows of its health check; nothing when it does not say so soon.
    private func probes(of view: ContainerView) async -> [ProbeResult] {
        guard view.spec.healthCheck != nil, view.container.health != .none, view.unreachableSince == nil,
            let (streams, task) = try? await streams(of: view)
        else { return [] }
        return
            (try? await within(.seconds(3)) {
                try await streams.json([ProbeResult].self, .GET, NodeStreams.path(task, "health"))
            }) ?? []
    }
}
