import AgentCore
import CNISpec
import ClusterSecurity
import Logging
import Model
import Networking
import Reactor
import Wire

/// What the master says of other nodes on overlays, as this node's networks take it.
extension PodExecutor {
    /// - Parameter node: this one; it is no peer of its own.
    func take(_ change: PeerChange, node: NodeID) async throws {
        do {
            try await pool.run { try self.apply(change, node: node) }
        } catch {
            try Task.checkCancellation()
            // What a later look finds missing it makes; nothing else of the conversation may suffer.
            logger.error("a change of overlay networks' nodes is not in force", metadata: ["error": "\(error)"])
        }
    }

    /// Blocks.
    private func apply(_ change: PeerChange, node: NodeID) throws {
        switch change {
        case .all(let peers):
            let byNetwork = Dictionary(grouping: peers.filter { $0.node != node }, by: \.network)
            try self.overlays.setPeers(
                Dictionary(
                    uniqueKeysWithValues: byNetwork.map { network, peers in
                        (Model.Network.device(of: network), peers.compactMap { self.peer($0) })
                    }))
        case .put(let peer):
            guard peer.node != node else { return }
            let network = Model.Network.device(of: peer.network)
            guard let known = self.peer(peer) else {
                return try overlays.remove(peer: peer.node.text, of: network)
            }
            try overlays.update(known, of: network)
        case .delete(let id):
            let parts = id.split(separator: "/", maxSplits: 1).map(String.init)
            guard parts.count == 2, parts[1] != node.text else { return }
            try self.overlays.remove(peer: parts[1], of: Model.Network.device(of: NetworkID(parts[0])))
        }
    }

    /// Keeps what the kernel has of overlays as it should be, and says what is wrong with CNI lists, until it is cancelled.
    func keepNetworks() async {
        let (overlays, bridges, logger) = (overlays, userNetworks, logger)
        let report: @Sendable ([String]) -> Void = { differences in
            for difference in differences.prefix(20) {
                logger.warning("mended on a network", metadata: ["what": "\(difference)"])
            }
            if differences.count > 20 {
                logger.warning("more was mended", metadata: ["count": "\(differences.count - 20)"])
            }
        }
        if let lack = overlays.encryptionLack {
            logger.info("there can be no encrypted overlay networks here", metadata: ["why": "\(lack)"])
        }
        if let lack = bridges.lack { logger.warning("pods are not kept apart", metadata: ["why": "\(lack)"]) }
        do {
            try await pool.run {
                try overlays.start(report: report)
                try bridges.start(report: report)
            }
        } catch {
            logger.error("networks are not watched", metadata: ["error": "\(error)"])
        }
        var lists: CNIDirectoryWatch?
        do {
            lists = try cniNetworks.directory.map { directory in
                try CNIDirectoryWatch(directory) { lists in
                    for warning in lists.warnings { logger.warning("a CNI list", metadata: ["what": "\(warning)"]) }
                }
            }
        } catch {
            // Each start looks by itself: only mistakes are told later.
            logger.warning("the directory of CNI lists is not watched", metadata: ["error": "\(error)"])
        }
        while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
        withExtendedLifetime(lists) {}
        // Waits for a thread.
        await Task.detached { [pool] in
            _ = try? await pool.run {
                overlays.stop()
                bridges.stop()
            }
        }.value
    }

    /// Nil when packets cannot be sent to what the node is reached by.
    private func peer(_ peer: NetworkPeer) -> OverlayPeer? {
        guard let underlay = IPAddress(peer.underlay), !underlay.isUnspecified, !underlay.isLoopback,
            !underlay.isMulticast
        else {
            logger.warning(
                "no packets can be sent to a node of an overlay network; give its agent an address with --node-address",
                metadata: ["node": "\(peer.node)", "address": "\(peer.underlay)"])
            return nil
        }
        let exceptions = peer.addresses.compactMap { IPAddress($0) }
            .compactMap { CIDR($0, prefixLength: $0.family == .v4 ? 32 : 128) }
        return OverlayPeer(
            key: peer.node.text, underlay: underlay, blocks: peer.blocks.compactMap { CIDR($0) } + exceptions,
            publicKey: peer.overlayKey.flatMap { Hexadecimal.bytes($0[...]) } ?? [])
    }
}

extension TunnelCryptography {
    /// As all nodes of a cluster have it.
    static let nodes = TunnelCryptography(
        makeKey: { TunnelKeys.makeKey() }, publicKey: { TunnelKeys.publicKey(of: $0) },
        agree: { key, address, peerKey, peerAddress in
            TunnelKeys.secrets(
                key: key, address: address, peerKey: peerKey, peerAddress: peerAddress, bytes: Secrets.bytes
            ).map { Secrets(outgoing: $0.outgoing, incoming: $0.incoming) }
        })
}

extension CNINetworkConfiguration {
    /// What a network of the driver `cni` is on this node: its own list, or the one of its name in the node's directory.
    init(_ network: Model.Network) {
        let text = network[.cniConfiguration].flatMap { $0.isEmpty ? nil : $0 }
        self.init(name: network.device, source: text.map { .text($0) } ?? .named(network.name))
    }
}

extension OverlayNetworkConfiguration {
    /// What an overlay is on this node.
    init(_ network: Model.Network) throws(ExecutorFailure) {
        guard let vni = network.vni, let subnet = CIDR(network.subnet), let gateway = IPAddress(network.gateway) else {
            throw ExecutorFailure("the network \(network.name) is no overlay that this version understands")
        }
        self.init(
            name: network.device, device: "mx-" + network.id.text.prefix(12), vni: UInt32(vni), subnet: subnet,
            gateway: gateway, subnet6: CIDR(network.subnet6), gateway6: IPAddress(network.gateway6),
            mtu: network[.mtu].flatMap { Int($0) }, isEncrypted: network.isEncrypted, isInternal: network.isInternal)
    }
}
