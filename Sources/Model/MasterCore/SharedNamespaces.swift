import JSON
import Model
import Wire

/// Containers whose namespaces another one shares.
extension MasterCore {
    /// Puts the ids of containers in place of what the user calls them.
    ///
    /// - Throws: `APIProblem` 404 for one that is not there (for this caller), 403 where it would bring the caller into
    ///   a namespace of its node that it may not ask for.
    func resolveNamespaces(of pod: inout PodSpec) throws(APIProblem) {
        var shared = pod.namespaces
        shared.pid = try resolved(shared.pid, \.pid)
        shared.ipc = try resolved(shared.ipc, \.ipc)
        shared.uts = try resolved(shared.uts, \.uts)
        shared.cgroup = try resolved(shared.cgroup, \.cgroup)
        shared.network = try resolved(shared.network, \.network)
        pod.namespaces = shared
    }

    private func resolved(
        _ source: Namespaces.Source, _ kind: KeyPath<Namespaces, Namespaces.Source>
    ) throws(APIProblem) -> Namespaces.Source {
        guard case .container(let ref) = source else { return source }
        let target = try instance(ref)
        guard let container = target.containers.first else { throw Self.noContainer(ref) }
        try requireOwn(kind, of: target)
        return .container(container.text)
    }

    /// Whoever may not have a namespace of the node may not have it by way of a container that has it.
    private func requireOwn(
        _ kind: KeyPath<Namespaces, Namespaces.Source>, of target: Instance
    ) throws(APIProblem) {
        let policy = admission.policy
        guard !policy.hostNamespaces || !policy.hostNetwork else { return }
        var next: Instance? = target
        // Each was made after the one that it shares with: the chain ends.
        while let instance = next {
            next = nil
            guard let pod = state.workloads[instance.workload].flatMap({ state.pod(of: $0) }) else { return }
            let isNode = kind == \Namespaces.network ? pod.network == .host : pod.namespaces[keyPath: kind] == .node
            guard !isNode else {
                throw APIProblem(
                    .forbidden,
                    "the container \(target.name) has a namespace of its node, which \(acting.title) may not share")
            }
            if case .container(let ref) = pod.namespaces[keyPath: kind] {
                next = state.indexes.instanceByContainer[ContainerID(ref)].flatMap { state.instances[$0] }
            }
        }
    }
}
