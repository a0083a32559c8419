import JSON
import MasterCore
import Model
import NIOCore

/// Writes containers as Docker's list shows them, see ContainerSummary in Moby's swagger.
struct ContainerListStyle: Sendable {
    let version: APIVersion
    /// Containers are called `/node/name`, as in Swarm: there are several nodes.
    let namesNodes: Bool
    let now: Timestamp
    /// Bytes of images by their ids; nil: sizes are not asked for.
    var sizes: [String: Int64]?

    /// - Parameter written: what it has written, where that is known.
    func write(_ container: ContainerSummary, written: Int64?, to text: inout JSONText) {
        text.object { text in
            text.member("Id", container.id.text)
            text.list("Names") { $0.element(name(of: container)) }
            text.member("Image", container.spec.image)
            text.member("ImageID", container.imageID)
            text.member("Command", ContainerText.command(container.spec))
            text.member("Created", container.createdAt.nanoseconds / 1_000_000_000)
            text.list("Ports") { ports(of: container, in: &$0) }
            if let sizes {
                let image = sizes[container.imageID] ?? 0
                if let written { text.member("SizeRw", written) }
                text.member("SizeRootFs", image + (written ?? 0))
            }
            text.object("Labels") { text in
                for (key, value) in container.labels { text.member(named: key, value) }
            }
            text.member("State", container.state.rawValue)
            text.member("Status", ContainerText.status(container, now: now))
            if version >= .v1_52 {
                text.object("Health") { text in
                    text.member("Status", (container.state.isActive ? container.container.health : .none).rawValue)
                    text.member("FailingStreak", Int64(container.container.failingStreak))
                }
            }
            text.object("HostConfig") { text in
                text.member("NetworkMode", ContainerText.networkMode(container))
                if version >= .v1_46, !container.spec.annotations.isEmpty {
                    text.object("Annotations") { text in
                        for (key, value) in container.spec.annotations { text.member(named: key, value) }
                    }
                }
            }
            text.object("NetworkSettings") { text in
                text.object("Networks") { text in
                    for use in container.networks { text.member(named: use.name) { network(use, in: &$0) } }
                }
            }
            text.list("Mounts") { text in
                for mount in container.spec.mounts { self.mount(mount, in: &text) }
            }
        }
    }

    private func name(of container: ContainerSummary) -> String {
        namesNodes && !container.nodeName.isEmpty ? "/\(container.nodeName)/\(container.name)" : "/\(container.name)"
    }

    /// Ports that are published, and those that its program listens on besides; none of one that does not run.
    private func ports(of container: ContainerSummary, in text: inout JSONText) {
        guard container.state.isActive, container.network != .host else { return }
        var published: Set<String> = []
        for port in container.ports {
            published.insert("\(port.containerPort)/\(port.transport.rawValue)")
            let node = namesNodes && !container.nodeAddress.isEmpty ? container.nodeAddress : nil
            for address in PublishedPlaces.of(port, node: node, hasV6: container.publishesIPv6) {
                text.object { text in
                    text.member("IP", address)
                    text.member("PrivatePort", Int64(port.containerPort))
                    text.member("PublicPort", Int64(port.hostPort))
                    text.member("Type", port.transport.rawValue)
                }
            }
        }
        for exposed in container.spec.exposedPorts {
            let parts = exposed.split(separator: "/", maxSplits: 1)
            guard let first = parts.first, let number = Int64(first) else { continue }
            let transport = parts.count == 2 ? String(parts[1]) : "tcp"
            guard !published.contains("\(number)/\(transport)") else { continue }
            text.object { text in
                text.member("PrivatePort", number)
                text.member("Type", transport)
            }
        }
    }

    private func network(_ use: ContainerSummary.NetworkUse, in text: inout JSONText) {
        let place = use.endpoint
        let address = (place?.address ?? "").split(separator: "/", maxSplits: 1)
        let address6 = (place?.address6 ?? "").split(separator: "/", maxSplits: 1)
        text.object { text in
            text.null("IPAMConfig")
            text.null("Links")
            if use.aliases.isEmpty {
                text.null("Aliases")
            } else {
                text.list("Aliases") { text in for alias in use.aliases { text.element(alias) } }
            }
            text.member("MacAddress", place?.mac ?? "")
            text.null("DriverOpts")
            let id = use.id.isEmpty ? use.name : use.id
            text.member("NetworkID", PredefinedNetwork(id)?.id ?? id)
            text.member("EndpointID", "")
            text.member("Gateway", place?.gateway ?? "")
            text.member("IPAddress", address.first.map(String.init) ?? "")
            text.member("IPPrefixLen", address.count == 2 ? Int64(address[1]) ?? 0 : 0)
            text.member("IPv6Gateway", place?.gateway6 ?? "")
            text.member("GlobalIPv6Address", address6.first.map(String.init) ?? "")
            text.member("GlobalIPv6PrefixLen", address6.count == 2 ? Int64(address6[1]) ?? 0 : 0)
            if version >= .v1_44 { text.null("DNSNames") }
        }
    }

    private func mount(_ mount: Mount, in text: inout JSONText) {
        text.object { text in
            switch mount.source {
            case .bind(let path):
                text.member("Type", "bind")
                text.member("Source", path)
            case .volume(let name):
                text.member("Type", "volume")
                text.member("Name", name)
                text.member("Source", "")
            case .tmpfs:
                text.member("Type", "tmpfs")
                text.member("Source", "")
            case .secret(let name), .config(let name):
                text.member("Type", "tmpfs")
                text.member("Name", name)
                text.member("Source", "")
            }
            text.member("Destination", mount.target)
            if case .volume = mount.source { text.member("Driver", "local") }
            text.member("Mode", ContainerInspect.shownMode(of: mount))
            text.member("RW", !mount.readOnly && !mount.isFile)
            text.member("Propagation", bindPropagation(mount))
        }
    }

    private func bindPropagation(_ mount: Mount) -> String {
        if case .bind = mount.source { mount.propagation ?? "rprivate" } else { "" }
    }
}

/// The addresses that a published port is shown at.
enum PublishedPlaces {
    /// One of each family for a port that names none, as dockerd has two bindings for it.
    ///
    /// - Parameters:
    ///   - node: the node's address, where there are several nodes: that of any family says nothing then.
    ///   - hasV6: whether such a port is published at IPv6 addresses too.
    static func of(_ port: PortMapping, node: String?, hasV6: Bool) -> [String] {
        switch port.hostAddress {
        case "": node.map { [$0] } ?? (hasV6 ? ["0.0.0.0", "::"] : ["0.0.0.0"])
        case "0.0.0.0": [node ?? "0.0.0.0"]
        default: [port.hostAddress]
        }
    }
}
