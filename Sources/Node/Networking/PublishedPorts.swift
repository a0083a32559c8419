import CNISpec
import Kernel
import Netlink
import Synchronization

/// Which pods of some networks have which ports of the node.
final class PublishedPorts: Sendable {
    private let owners = Mutex<[PortMapping: String]?>(nil)

    /// Nothing is published.
    func clear() { owners.withLock { $0 = [:] } }

    /// Takes the ports for a pod, all or none. The check by bind comes first: it may take a while to find who has one.
    ///
    /// - Parameters:
    ///   - hasV6: whether the pod has IPv6 where it is published.
    ///   - records: what is on record of all pods; asked once.
    func reserve(
        _ ports: [PortMapping], for id: String, hasV6: Bool, records: () throws(KernelError) -> [CNIRecord]
    ) throws(NetworkError) {
        for port in ports {
            guard port.hostPort > 0, port.containerPort > 0 else {
                throw NetworkError(.configuration, "a published port needs two numbers from 1 on")
            }
            if let address = port.hostAddress, address.family == .v6, !hasV6 {
                throw NetworkError(
                    .configuration,
                    "port \(port.hostPort) cannot be published at [\(address)]: the pod has no IPv6 address there; publish it "
                        + "at an IPv4 address, or make the network with IPv6 (--ipv6)")
            }
            guard
                port.transport != .udp || ![OverlayNumbers.port, OverlayNumbers.encryptedPort].contains(port.hostPort)
            else {
                throw NetworkError(
                    .configuration,
                    "port \(port.hostPort)/udp of a node is that of the tunnels between nodes; publish another port"
                )
            }
            try PortCheck.requireFree(port, hasV6: hasV6)
        }
        let known: [CNIRecord]
        do throws(KernelError) {
            known = try owners.withLock({ $0 == nil }) ? records() : []
        } catch {
            throw NetworkError(.failed, error.description)
        }
        let failure = owners.withLock { owners -> NetworkError? in
            var taken = owners ?? [:]
            if owners == nil {
                for record in known {
                    for port in record.attachment.capabilities.portMappings {
                        taken[port] = record.attachment.containerID
                    }
                }
            }
            // What the same pod had before goes with its earlier ADD.
            taken = taken.filter { $0.value != id }
            for port in ports {
                if let (_, owner) = taken.first(where: { Self.collide($0.key, port) }) {
                    owners = taken
                    return NetworkError(
                        .portTaken,
                        "port \(port.hostPort)/\(port.transport.rawValue) is published by task \(owner) already; "
                            + "publish another port")
                }
            }
            for port in ports { taken[port] = id }
            owners = taken
            return nil
        }
        if let failure { throw failure }
    }

    private static func collide(_ left: PortMapping, _ right: PortMapping) -> Bool {
        guard left.hostPort == right.hostPort, left.transport == right.transport else { return false }
        guard let one = left.hostAddress, let two = right.hostAddress else { return true }
        return one == two || one.family == two.family && (one.isUnspecified || two.isUnspecified)
    }

    /// What a pod had is free again.
    func release(_ id: String) { owners.withLock { $0 = $0?.filter { $0.value != id } } }
}
