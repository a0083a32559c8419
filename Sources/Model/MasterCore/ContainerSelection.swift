import JSON
import Model
import Wire

/// One word for what a container does, in the words of container tools.
package enum ContainerState: String, Sendable, Hashable, CaseIterable {
    /// It has never run.
    case created
    case running
    case paused
    /// It ended, and starts again by its restart policy.
    case restarting
    case removing
    case exited
    /// Could not be removed: none of ours is ever so.
    case dead

    /// - Parameters:
    ///   - task: nil: on no node.
    ///   - desired: of the workload.
    package init(task: TaskStatus?, desired: DesiredState) {
        guard let task, desired != .removed, task.phase != .removed else {
            self = desired == .removed || task != nil ? .removing : .created
            return
        }
        let container = task.containers.first
        let hasRun =
            (container?.start ?? 0) > 0
            && (container?.startedAt != nil || container?.reason != ContainerStatus.startFailed)
        switch task.phase {
        case .running, .stopping: self = .running
        case .paused: self = .paused
        case .exited, .failed: self = task.restartAt != nil ? .restarting : hasRun ? .exited : .created
        case .preparing where hasRun && (task.containers.first?.restarts ?? 0) > 0: self = .restarting
        case .assigned, .preparing, .prepared, .removed: self = hasRun ? .exited : .created
        }
    }

    /// Whether lists show it without being asked for all.
    package var isActive: Bool { self == .running || self == .paused || self == .restarting }
}

/// Which containers a paged list has. Everything that is given must hold; of several values of one kind, one, unless it
/// says otherwise.
package struct ContainerSelection: Sendable {
    /// nil: all.
    package var states: Set<ContainerState>?
    /// Parts of ids.
    package var ids: [NamePattern] = []
    package var names: [NamePattern] = []
    /// `key` or `key=value`; all must hold.
    package var labels: [LabelSelector] = []
    /// None of these may hold.
    package var absentLabels: [LabelSelector] = []
    /// Digests of images' manifests; nil: any.
    package var images: Set<String>?
    /// Names of volumes, or places in containers.
    package var volumes: Set<String> = []
    /// Names of networks, or beginnings of their ids.
    package var networks: [String] = []
    /// Ports of nodes under which containers are published.
    package var published: [PortRange] = []
    /// Ports that containers listen on, published or not.
    package var exposed: [PortRange] = []
    /// Of containers that have ended.
    package var exitCodes: Set<Int> = []
    package var healths: Set<ContainerStatus.Health> = []
    /// Names or ids.
    package var nodes: Set<String> = []
    /// Made before, or after.
    package var before: ContainerPosition?
    package var since: ContainerPosition?
    package var createdBefore: Timestamp?
    /// Whether they belong to services; nil: both.
    package var ofServices: Bool?

    package struct PortRange: Sendable, Hashable {
        let numbers: ClosedRange<Int>
        let transport: PortMapping.Transport

        package init(_ numbers: ClosedRange<Int>, _ transport: PortMapping.Transport) {
            self.numbers = numbers
            self.transport = transport
        }

        func contains(_ number: Int, _ transport: PortMapping.Transport) -> Bool {
            numbers.contains(number) && transport == self.transport
        }

        /// - Parameter text: `80/tcp`.
        func contains(_ text: String) -> Bool {
            let parts = text.split(separator: "/", maxSplits: 1)
            guard let first = parts.first, let number = Int(first) else { return false }
            return contains(number, parts.count == 2 ? .init(rawValue: String(parts[1])) ?? .tcp : .tcp)
        }
    }

    package init() {}
}

extension ContainerSelection {
    /// Whether it is one of these, as far as that is known of it; for instances of services the spec is to be looked at
    /// too.
    ///
    /// - Parameter nodeIDs: those of `nodes`.
    func admits(_ entry: ListedContainer, networkNames: [NetworkID: String], nodeIDs: Set<NodeID>) -> Bool {
        if let states, !states.contains(entry.state) { return false }
        if let createdBefore, entry.position.createdAt >= createdBefore { return false }
        if let ofServices, ofServices == (entry.own != nil) { return false }
        if !ids.isEmpty, !ids.contains(where: { $0.matches(entry.id.text) }) { return false }
        if !names.isEmpty, !names.contains(where: { $0.matches(entry.name) }) { return false }
        if !exitCodes.isEmpty, !(entry.exitCode.map(exitCodes.contains) ?? false) { return false }
        if !healths.isEmpty, !healths.contains(entry.health) { return false }
        if !nodes.isEmpty, !(entry.node.map(nodeIDs.contains) ?? false) { return false }
        if !published.isEmpty, !published.contains(where: { publishes($0, entry.ports) }) { return false }
        return entry.own.map { admits($0, networkNames) } ?? true
    }

    /// The same for what its spec says.
    func admits(_ own: ListedContainer.Own, _ networkNames: [NetworkID: String]) -> Bool {
        guard labels.allSatisfy({ $0.matches(own.labels) }),
            !absentLabels.contains(where: { own.facts.mayHave(ContainerFacts($0)) && $0.matches(own.labels) })
        else { return false }
        if let images,
            !own.containers.contains(where: { images.contains($0.imageDigest) || images.contains($0.image) })
        {
            return false
        }
        if !volumes.isEmpty, !own.containers.contains(where: { $0.mounts.contains(where: uses) }) { return false }
        if !networks.isEmpty, !networks.contains(where: { isOn($0, own, networkNames) }) { return false }
        guard !exposed.isEmpty else { return true }
        return exposed.contains { range in
            own.ports.contains { range.contains($0.containerPort, $0.transport) }
                || own.containers.contains { $0.exposedPorts.contains(where: range.contains) }
        }
    }

    private func uses(_ mount: Mount) -> Bool {
        if volumes.contains(mount.target) { return true }
        switch mount.source {
        case .volume(let name): return volumes.contains(name)
        case .bind(let path): return volumes.contains(path)
        case .tmpfs, .secret, .config: return false
        }
    }

    private func publishes(_ range: PortRange, _ ports: [PortMapping]) -> Bool {
        ports.contains { range.contains($0.hostPort, $0.transport) }
    }

    private func isOn(_ network: String, _ own: ListedContainer.Own, _ names: [NetworkID: String]) -> Bool {
        if own.network.rawValue == network, own.network != .attached, own.network != .container { return true }
        return own.attachments.contains { attachment in
            attachment.network == network || attachment.network.hasPrefix(network)
                || names[NetworkID(attachment.network)] == network
        }
    }
}
