import CNISpec
import JSON
import Model
import Wire

extension MasterCore {
    mutating func registerNode(_ body: NodeRegistration, now: Timestamp) throws(APIProblem) -> PendingReply {
        if let cluster = body.clusterID, let own = state.cluster?.id, cluster != own {
            throw APIProblem(
                .conflict,
                "this agent belongs to the cluster \(cluster), not to \(own): give it another data directory, or "
                    + "this master "
                    + "the store it knows")
        }
        var node = body.node
        node.capacity.hugepages = HugepageSize.bounded(node.capacity.hugepages)
        node.processors = node.processors?.bounded
        try checkSpeaker(node.id)
        try checkIdentity(node)
        withholdKey(&node)
        node.session = try session(of: state.nodes[node.id], body, now: now)
        if let known = state.nodes[node.id] {
            node.labels = known.labels
            node.availability = known.availability
            node.drain = known.drain
            node.createdAt = known.createdAt
        } else {
            node.createdAt = now
            note(kind: "node", action: "register", id: node.id.text, name: node.name, now: now)
        }
        state.put(.node(node))
        memory[node.id, default: NodeMemory(now: now, steady: steady)].hear(now: now, steady: steady)
        nodeChanged(node.id)
        return .registered(node.id)
    }

    /// Takes a node's public key away when it comes with the address of another that is there and has one: what is encrypted
    /// goes by the address, so that it would be told in the other's place. It is no node for encrypted networks then. Who
    /// came first keeps his, also over a time in which he was silent.
    private func withholdKey(_ node: inout Node) {
        let known = state.nodes[node.id]
        guard node.overlayKey != nil, let address = IPAddress(node.address), !address.isLoopback,
            known?.overlayKey == nil || known?.address != node.address
        else { return }
        let isTaken = state.indexes.pools.nodes(at: address).contains { other in
            other != node.id && state.nodes[other]?.overlayKey != nil
                && memory[other]?.isSilent(at: steady) == false
        }
        guard isTaken else { return }
        node.overlayKey = nil
        node.features.removeAll { $0 == Network.overlayEncryption }
    }

    private func checkIdentity(_ node: Node) throws(APIProblem) {
        guard (1...64).contains(node.id.text.utf8.count),
            node.id.text.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x2F && $0 < 0x7F })
        else { throw APIProblem(.badRequest, "the node's id is not 1 to 64 printable characters") }
        try admit { () throws(AdmissionError) in
            try admission.name(node.name, at: "$.node.name")
            try admission.labels(node.labels, at: "$.node.labels")
        }
        // Sums and differences of what nodes have must stay in range.
        let amounts = [node.capacity.cpu, node.capacity.memory, node.capacity.disk]
        guard amounts.allSatisfy({ (0...Self.mostOfAnything).contains($0) }) else {
            throw APIProblem(.badRequest, "$.node.capacity: the amounts are not all between 0 and 2^60")
        }
        // Other nodes are told of it.
        guard node.address.utf8.count <= 253 else {
            throw APIProblem(.badRequest, "$.node.address: \(node.address.utf8.count) bytes are more than 253")
        }
        if let key = node.overlayKey,
            key.utf8.count != 64 || !key.utf8.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit })
        {
            throw APIProblem(.badRequest, "$.node.overlayKey: it has not 64 hexadecimal digits")
        }
        try requireOutside(node)
        if node.streamEndpoint.hasPrefix("unix:"), !acting.isLocal {
            throw APIProblem(
                .forbidden, "$.node.streamEndpoint: a socket of the master's machine is refused from another machine")
        }
        guard Self.isStreamEndpoint(node.streamEndpoint) else {
            throw APIProblem(
                .badRequest,
                "$.node.streamEndpoint: '\(node.streamEndpoint)' is neither unix:/path nor https://host:port")
        }
        if let endpoint = node.contentEndpoint, !Self.isContentEndpoint(endpoint) {
            throw APIProblem(.badRequest, "$.node.contentEndpoint: '\(endpoint)' is not https://host:port")
        }
        if let other = state.indexes.nodeByName[node.name], other != node.id {
            throw APIProblem(
                .conflict,
                "another node (\(other)) has the name \(node.name): give this agent another, or remove that node "
                    + "with "
                    + "`martlet node rm`")
        }
        // One's id as another's name would make what users write ambiguous.
        let others = [state.indexes.nodeByName[node.id.text], NodeID(node.name)].compactMap(\.self)
        if let other = others.compactMap({ state.nodes[$0] }).first(where: { $0.id != node.id }) {
            throw APIProblem(.conflict, "the node's id or name is taken by the node \(other.name) (\(other.id))")
        }
    }

    private static let mostOfAnything: Int64 = 1 << 60

    mutating func connectNode(_ ref: String) throws(APIProblem) -> PendingReply {
        let node = try node(ref)
        memory[node.id]?.connected = true
        return .assignments(node.id)
    }

    mutating func take(_ report: NodeReport, from ref: String, now: Timestamp) throws(APIProblem) -> PendingReply {
        guard let node = state.nodes[NodeID(ref)] else {
            throw APIProblem(.notFound, "there is no node '\(ref)': the agent has to register first")
        }
        memory[node.id, default: NodeMemory(now: now, steady: steady)].hear(now: now, steady: steady)
        if report.full { memory[node.id]?.reported = true }
        // What it has comes before what is decided about a node that is back.
        setInventory(of: node.id, images: report.images, volumes: report.volumes, now: now)
        if let devices = report.devices { setDevices(of: node.id, devices, now: now) }
        if let usage = report.deviceUsage { memory[node.id]?.setUsage(usage, steady: steady) }
        for task in report.tasks { take(task, from: node.id) }
        if report.full { takeLosses(report, from: node.id) }
        if memory[node.id]?.reported == true, memory[node.id]?.ready == false {
            memory[node.id]?.set(ready: true, now: now, steady: steady)
            nodeChanged(node.id)
            livenessChanged(node.id)
            note(kind: "node", action: "ready", id: node.id.text, name: node.name, now: now)
        }
        for event in report.events.prefix(1000) where accepts(event, from: node.id) {
            outbox.events.append(described(event, on: node.id))
        }
        return .done
    }

    /// Whether a node may tell users of this: of its own containers only, and in few words.
    private func accepts(_ event: Event, from node: NodeID) -> Bool {
        // That a container is destroyed is the master's to say: an instance outlives its tasks.
        guard event.kind == "container", event.action != "destroy" else { return false }
        let words = [event.action, event.id, event.name] + event.attributes.flatMap { [$0.key, $0.value] }
        guard words.count <= 64, words.reduce(0, { $0 + $1.utf8.count }) <= Self.longestEvent else { return false }
        guard let id = state.indexes.instanceByContainer[ContainerID(event.id)], let instance = state.instances[id]
        else { return true }
        return instance.tasks.isEmpty || instance.tasks.contains { state.tasks[$0]?.node == node }
    }

    /// Bytes of all its words: the history has to stay small in memory.
    private static let longestEvent = 4096

    private mutating func take(_ report: NodeReport.TaskReport, from node: NodeID) {
        guard var task = state.tasks[report.task], task.node == node else {
            if report.status.phase == .removed { forgetHolder(report.task, on: node) }
            // Forgotten here: the node may forget it too.
            outbox.assignments[node, default: []].insert(report.task)
            return
        }
        guard report.epoch == task.epoch, task.status != report.status else { return }
        var status = report.status
        status.message = Self.shortened(status.message)
        let own = state.instances[task.instance]?.containers ?? []
        status.containers = status.containers.prefix(16).map { container in
            var container = container
            // The same text, in memory once.
            container.id =
                own.first { $0 == container.id } ?? ContainerID(Self.shortened(container.id.text, to: Self.longestWord))
            container.name = Self.shortened(container.name)
            container.reason = Self.shortened(container.reason)
            return container
        }
        func word(_ text: String) -> String { Self.shortened(text, to: Self.longestWord) }
        status.addresses = status.addresses.prefix(16).map(word)
        status.endpoints = status.endpoints.prefix(64).map {
            NetworkEndpoint(
                network: word($0.network), address: word($0.address), gateway: word($0.gateway),
                address6: word($0.address6), gateway6: word($0.gateway6), mac: word($0.mac))
        }
        let rested = task.rests
        if !status.serving {
            serving[task.id] = nil
        } else if serving[task.id] == nil || status.servingSince != task.status.servingSince {
            serving[task.id] = steady
        }
        task.status = status
        if letGo(&task) { capacityChanged = true }
        if letGoOfDevices(&task) { capacityChanged = true }
        state.put(.task(task))
        dirty.insert(task.workload)
        if task.rests, !rested { capacityChanged = true }
        if task.rests, !rested || status.phase == .removed { forgetHolder(task.id, on: node) }
        if status.phase == .removed { forgetVolumes(of: task) }
    }

    /// Bytes; a task has to stay small in the store.
    private static let longestMessage = 400
    /// The same for ids and addresses.
    private static let longestWord = 100

    private static func shortened(_ text: String, to bytes: Int = longestMessage) -> String {
        guard text.utf8.count > bytes else { return text }
        return String(text.unicodeScalars.prefix(bytes / 4)) + "…"
    }

    /// A full report names every task that the node has a record of. One that it has reported on before and does not
    /// name any more was lost with the node's data.
    private mutating func takeLosses(_ report: NodeReport, from node: NodeID) {
        let named = Set(report.tasks.map(\.task))
        for var task in state.tasks(on: node) where !named.contains(task.id) {
            guard task.status.phase != .assigned, task.status.phase != .removed else { continue }
            task.status.phase = .removed
            task.status.serving = false
            task.status.message = "its node has lost it"
            state.put(.task(task))
            dirty.insert(task.workload)
        }
    }

    /// - Parameters:
    ///   - images: all that the node has; nil: as before.
    ///   - volumes: the same.
    mutating func setInventory(of node: NodeID, images: [ImageView]?, volumes: [VolumeView]?, now: Timestamp) {
        if let images, images != memory[node]?.images {
            memory[node]?.setImages(images)
            replication.isDue = true
            capacityChanged = true
        }
        if let volumes {
            memory[node]?.volumes = volumes.map { volume in
                var volume = volume
                volume.node = node
                return volume
            }
            recordVolumes(of: node, now: now)
        }
    }

    mutating func updateNode(_ ref: String, _ body: UpdateNode, now: Timestamp) throws(APIProblem) -> PendingReply {
        var node = try node(ref)
        let set = body.setLabels ?? [:]
        try admit { () throws(AdmissionError) in try admission.labels(set, at: "$.setLabels") }
        if let reserved = set.keys.first(where: { $0.hasPrefix("node.") }) {
            throw APIProblem(
                .badRequest, "$.setLabels: the label \(reserved) is refused: 'node.' names the node's own facts")
        }
        for key in body.removeLabels ?? [] { node.labels[key] = nil }
        node.labels.merge(set) { _, new in new }
        guard node.labels.count <= 256 else {
            throw APIProblem(.badRequest, "$.setLabels: the node would have more than 256 labels")
        }
        try setAvailability(of: &node, body, now: now)
        guard node != state.nodes[node.id] else { return .node(node.id) }
        state.put(.node(node))
        nodeChanged(node.id)
        for task in state.tasks(on: node.id) { dirty.insert(task.workload) }
        note(kind: "node", action: "update", id: node.id.text, name: node.name, now: now)
        return .node(node.id)
    }

    mutating func removeNode(_ ref: String, force: Bool, now: Timestamp) throws(APIProblem) -> PendingReply {
        let node = try node(ref)
        let tasks = state.tasks(on: node.id)
        if memory[node.id]?.ready == true {
            throw APIProblem(.conflict, "the node \(node.name) is connected: stop its agent first")
        }
        // After a restart of the master, one that is there may not have come to say so.
        if memory[node.id]?.isSilent(at: steady) == false {
            throw APIProblem(
                .conflict,
                "the node \(node.name) may still be there: repeat when it has not been heard of for "
                    + "\(NodeMemory.patience) s")
        }
        if !tasks.isEmpty, !force {
            throw APIProblem(
                .conflict,
                "the node \(node.name) has \(tasks.count) tasks: remove them first, or give them up with --force")
        }
        try requireNoLease(tasks, on: node, now: now)
        for task in tasks { giveUp(task.id, now: now) }
        for name in state.indexes.volumesByNode[node.id] ?? [] {
            state.delete(.volume(VolumeKey(node: node.id, name: name)))
        }
        leaveNetworks(on: node.id)
        state.delete(.node(node.id))
        memory[node.id] = nil
        nodeChanged(node.id)
        note(kind: "node", action: "remove", id: node.id.text, name: node.name, now: now)
        return .done
    }

    /// Instances that wait may fit now, and global services may want more or fewer.
    mutating func nodeChanged(_ node: NodeID) {
        replication.isDue = true
        capacityChanged = true
        dirty.formUnion(state.indexes.globalWorkloads)
    }
}
