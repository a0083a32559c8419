import JSON
import Model
import Wire

/// What users' names mean.
extension MasterCore {
    /// Finds a container by its name, its id or the beginning of its id (at least 4 digits), or a workload's name.
    func instance(_ ref: String) throws(APIProblem) -> Instance {
        let instance = try anyInstance(ref)
        guard sees(instance) else { throw Self.noContainer(ref) }
        return instance
    }

    static func noContainer(_ ref: String) -> APIProblem {
        APIProblem(.notFound, "there is no container '\(ref)'; see `martlet ps --all`")
    }

    private func anyInstance(_ ref: String) throws(APIProblem) -> Instance {
        if let id = state.indexes.instanceByContainer[ContainerID(ref)] ?? state.indexes.instanceByName[ref],
            let instance = state.instances[id]
        {
            return instance
        }
        if let instance = state.instances[InstanceID(ref)] { return instance }
        if let id = state.indexes.workloadByName[ref], let workload = state.workloads[id], sees(workload) {
            return try onlyInstance(of: id, named: ref)
        }
        let found = ref.utf8.count < 4 ? [] : containers(beginning: ref, limit: .max)
        guard found.count <= 1 else {
            let shown = found.sorted().prefix(5).map { String($0.text.prefix(16)) }.joined(separator: ", ")
            throw APIProblem(
                .conflict, "'\(ref)' may be any of \(found.count) containers: \(shown); write more of the id")
        }
        guard let id = found.first.flatMap({ state.indexes.instanceByContainer[$0] }),
            let instance = state.instances[id]
        else { throw Self.noContainer(ref) }
        return instance
    }

    private func onlyInstance(of id: WorkloadID, named ref: String) throws(APIProblem) -> Instance {
        let instances = state.instances(of: id)
        if instances.count == 1 { return instances[0] }
        if instances.isEmpty { throw APIProblem(.notFound, "the service '\(ref)' has no container now") }
        let shown = instances.prefix(5).map(\.name).joined(separator: ", ")
        throw APIProblem(.conflict, "the service '\(ref)' has \(instances.count) containers: name one of \(shown)")
    }

    /// Finds a service by name, id or the beginning of its id.
    func service(_ ref: String) throws(APIProblem) -> Workload {
        if let id = state.indexes.workloadByName[ref], let workload = state.workloads[id], sees(workload) {
            guard workload.kind == .service else {
                throw APIProblem(.notFound, "'\(ref)' is a container, not a service; use the commands for containers")
            }
            return workload
        }
        let found =
            ref.utf8.count < 4
            ? []
            : state.workloads.values.filter {
                $0.kind == .service && $0.id.text.hasPrefix(ref) && sees($0)
            }
        guard found.count <= 1 else {
            throw APIProblem(.conflict, "'\(ref)' may be any of \(found.map(\.name).sorted().joined(separator: ", "))")
        }
        guard let workload = found.first else {
            throw APIProblem(.notFound, "there is no service '\(ref)'; see `martlet service ls`")
        }
        return workload
    }

    /// Finds a node by name, id or the beginning of its id.
    func node(_ ref: String) throws(APIProblem) -> Node {
        if let node = state.nodes[NodeID(ref)] { return node }
        if let node = state.indexes.nodeByName[ref].flatMap({ state.nodes[$0] }) { return node }
        let found = ref.utf8.count < 4 ? [] : state.nodes.values.filter { $0.id.text.hasPrefix(ref) }
        guard found.count <= 1 else {
            throw APIProblem(.conflict, "'\(ref)' may be any of \(found.map(\.name).sorted().joined(separator: ", "))")
        }
        guard let node = found.first else {
            throw APIProblem(.notFound, "there is no node '\(ref)'; see `martlet node ls`")
        }
        return node
    }

    /// What an image's name, digest or the beginning of its id means on a node.
    package static func find(_ reference: String, in images: [ImageView]) -> ImageView? {
        if let name = ImageName(reference) {
            if let digest = name.digest {
                // An index stands for the image that was taken from it.
                return images.first { $0.digest == digest }
                    ?? images.first { $0.repositoryDigests?.contains("\(name.repository)@\(digest)") ?? false }
            }
            if let tagged = name.tagged, let image = images.first(where: { $0.names.contains(tagged) }) { return image }
        }
        let bare = reference.hasPrefix("sha256:") ? String(reference.dropFirst(7)) : reference
        guard bare.utf8.count >= 4 else { return nil }
        let found = images.filter {
            $0.digest.dropFirst(7).hasPrefix(bare) || $0.id.dropFirst(7).hasPrefix(bare)
        }
        return Set(found.map(\.id)).count == 1 ? found.first : nil
    }

    /// Finds the content that an image's name means: on ready nodes first, and of those what was given the name last.
    func resolve(_ image: String) -> Admission.ResolvedImage? {
        meant(image).first.map { Admission.ResolvedImage(digest: $0.view.digest) }
    }

    /// The content that an image's name means, on each node that has it under that name: the ready ones first, and in
    /// the order of ids.
    private func meant(_ image: String) -> [(node: NodeID, view: ImageView)] {
        let name = ImageName(image)?.tagged
        let found = memory.compactMap { node, memory in
            Self.find(image, in: memory.images).map { view in
                (
                    node: node, view: view, isReady: memory.ready,
                    at: name.map { view.time(of: $0) } ?? Timestamp(nanoseconds: 0)
                )
            }
        }.sorted { ($0.isReady ? 0 : 1, $0.node) < ($1.isReady ? 0 : 1, $1.node) }
        guard var best = found.first else { return [] }
        for candidate in found where candidate.isReady == best.isReady && candidate.at > best.at { best = candidate }
        return found.filter { $0.view.digest == best.view.digest }.map { ($0.node, $0.view) }
    }

    /// Nodes that have the image, ready ones first.
    func nodes(having image: String) throws(APIProblem) -> [Node] {
        let nodes = meant(image).compactMap { state.nodes[$0.node] }
        guard !nodes.isEmpty else {
            throw APIProblem(.notFound, "no node has the image '\(image)'; see `martlet images`")
        }
        return nodes
    }

    /// The image that a name, a digest or the beginning of an id means; its nodes are those that have it, ready ones
    /// first.
    func imageView(_ image: String) throws(APIProblem) -> ImageView {
        let found = meant(image)
        guard var view = found.first?.view else {
            throw APIProblem(.noSuchImage, "no node has the image '\(image)'; see `martlet images`")
        }
        view.nodes = found.map(\.node).filter { state.nodes[$0] != nil }
        return view
    }

    /// Whether a node that the store knows has yet to tell what it has since this master started: what seems unknown
    /// may then only be unheard of.
    package var awaitsReports: Bool {
        memory.values.contains { !$0.reported }
    }
}
