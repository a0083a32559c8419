import Model

/// Ids as objects of the store name each other: each is in memory once, however many objects name it.
struct SharedIDs {
    private var texts: Set<String> = []

    /// The same object.
    mutating func shared(_ object: StoredObject) -> StoredObject {
        switch object {
        case .workload(var workload):
            workload.id = shared(workload.id)
            return .workload(workload)
        case .revision(var revision):
            revision.workload = shared(revision.workload)
            for index in revision.pod.containers.indices {
                revision.pod.containers[index].imageDigest = shared(revision.pod.containers[index].imageDigest)
            }
            return .revision(revision)
        case .instance(var instance):
            instance.id = shared(instance.id)
            instance.workload = shared(instance.workload)
            instance.task = instance.task.map { shared($0) }
            instance.containers = instance.containers.map { shared($0) }
            return .instance(instance)
        case .task(var task):
            task.id = shared(task.id)
            task.instance = shared(task.instance)
            task.workload = shared(task.workload)
            task.node = shared(task.node)
            for index in task.addresses.indices {
                task.addresses[index].network = shared(task.addresses[index].network)
            }
            for index in task.status.containers.indices {
                task.status.containers[index].id = shared(task.status.containers[index].id)
            }
            return .task(task)
        case .network(var network):
            network.id = shared(network.id)
            return .network(network)
        case .cluster, .node, .claim, .token, .secret, .config, .volume: return object
        }
    }

    private mutating func shared<Noun>(_ id: Identifier<Noun>) -> Identifier<Noun> { Identifier(shared(id.text)) }

    private mutating func shared(_ text: String) -> String { texts.insert(text).memberAfterInsert }
}
