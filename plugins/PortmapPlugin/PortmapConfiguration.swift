import CNIPlugin
import CNISpec
import Glibc
import JSON

/// What `portmap` is told to do: its part of a network configuration, see plugins/README.md.
struct PortmapConfiguration: Sendable {
    /// Containers of the same subnet, the container itself and the host's 127.0.0.1 reach the ports too.
    let masquerades: Bool
    let ports: [PublishedPort]
    /// The container's, of each family at most one, with its subnet's prefix.
    let addresses: [CIDR]
    /// What the plugins before this one made.
    let previous: CNIResult?

    private static let own: Set<String> = ["snat", "backend", "runtimeConfig"]
    private static let portMembers: Set<String> = ["hostPort", "containerPort", "protocol", "hostIP"]

    /// For verbs that need no more than that the configuration can be understood: STATUS and GC.
    static func check(_ call: PluginCall) throws(CNIError) {
        try call.rejectUnknown(call.configuration, known: own.union(PluginCall.commonMembers))
        do throws(JSONError) {
            _ = try call.configuration.optionalBool("snat")
            try checkBackend(call.configuration)
        } catch {
            throw failure(error)
        }
        try call.rejectUnknownArguments(known: [PluginCall.endArgument])
    }

    /// All of it, for ADD and CHECK.
    init(_ call: PluginCall) throws(CNIError) {
        try Self.check(call)
        let parts: (runtime: JSONReader?, previous: CNIResult?)
        do throws(JSONError) {
            let previous = try call.configuration.optionalObject("prevResult").map { member throws(JSONError) in
                try CNIResult(member, version: nil)
            }
            parts = (try call.configuration.optionalObject("runtimeConfig"), previous)
        } catch {
            throw Self.failure(error)
        }
        try self.init(call, behind: parts.previous)
        if let runtime = parts.runtime { try call.rejectUnknown(runtime, known: ["portMappings"]) }
    }

    /// `snat` and the ports of a plugin's configuration, whatever else is in it.
    ///
    /// - Parameter previous: what has been made by now; nil: nobody knows.
    init(_ call: PluginCall, behind previous: CNIResult?) throws(CNIError) {
        let reader = call.configuration
        var parts: [(reader: JSONReader, known: Set<String>)] = []
        self.previous = previous
        do throws(JSONError) {
            masquerades = try reader.optionalBool("snat") ?? true
            addresses = Self.addresses(previous, of: call.interface)
            var ports: [PublishedPort] = []
            if let runtime = try reader.optionalObject("runtimeConfig") {
                let elements = try runtime.elements("portMappings", atMost: CNILimits.portMappings)
                parts += elements.map { ($0, Self.portMembers) }
                let mappings = try CapabilityArguments(runtime).portMappings
                if !mappings.isEmpty, previous != nil, addresses.isEmpty {
                    throw reader.error(
                        .type, "prevResult", "there is no address of the container's device \(call.interface)")
                }
                for (mapping, element) in zip(mappings, elements) {
                    ports += try Self.ports(mapping, element, addresses, masquerades)
                }
            }
            self.ports = ports
        } catch {
            throw Self.failure(error)
        }
        for part in parts { try call.rejectUnknown(part.reader, known: part.known) }
    }

    private static func failure(_ error: JSONError) -> CNIError {
        CNIError(code: CNIError.invalidConfiguration, message: error.description)
    }

    private static func checkBackend(_ reader: JSONReader) throws(JSONError) {
        guard let backend = try reader.optionalString("backend"), backend != "nftables" else { return }
        throw reader.error(.type, "backend", "\(JSONPathElement.quoted(backend)) is not supported, only \"nftables\"")
    }

    /// Those of the container's device; where the result does not say of which device an address is, it is taken for one.
    private static func addresses(_ previous: CNIResult?, of interface: String) -> [CIDR] {
        var addresses: [CIDR] = []
        for address in previous?.addresses ?? [] {
            if let index = address.interface, let device = previous?.interfaces[index],
                device.name != interface || device.sandbox == nil
            {
                continue
            }
            if !addresses.contains(where: { $0.address.family == address.address.address.family }) {
                addresses.append(address.address)
            }
        }
        return addresses
    }

    /// One mapping in each family that it is for.
    private static func ports(
        _ mapping: PortMapping, _ reader: JSONReader, _ addresses: [CIDR], _ masquerades: Bool
    ) throws(JSONError) -> [PublishedPort] {
        guard mapping.hostPort > 0 else { throw reader.error(.type, "hostPort", "0 is no port") }
        guard mapping.containerPort > 0 else { throw reader.error(.type, "containerPort", "0 is no port") }
        let family = mapping.hostAddress?.family
        if let host = mapping.hostAddress {
            guard !host.isMulticast, host != IPAddress(.v4, 0xffff_ffff) else {
                throw reader.error(.type, "hostIP", "\(host) is no address of one host")
            }
            guard host.family == .v4 || host.value >> 32 != 0xffff else {
                throw reader.error(.type, "hostIP", "\(host) is in no packet: write it as an IPv4 address")
            }
            guard host.family == .v4 || !host.isLoopback else {
                throw reader.error(
                    .type, "hostIP", "the kernel forwards nothing for \(host): publish at 127.0.0.1 or another address")
            }
            guard masquerades || !host.isLoopback else {
                throw reader.error(.type, "hostIP", "a port at \(host) needs \"snat\", which is false")
            }
        }
        let chosen = addresses.filter { family == nil || $0.address.family == family }
        // Without a result before there is nothing to say about families: ADD and CHECK want one.
        guard !chosen.isEmpty || addresses.isEmpty else {
            throw reader.error(
                .type, "hostIP",
                "\(mapping.hostAddress?.description ?? "") is of a family of which the container has no address")
        }
        return chosen.map { address in
            PublishedPort(
                host: mapping.hostAddress.flatMap { $0.isUnspecified ? nil : $0 }, hostPort: mapping.hostPort,
                transport: mapping.transport, container: address.address, containerPort: mapping.containerPort)
        }
    }
}

/// A port of the host that leads to one of a container, in one family.
struct PublishedPort: Sendable, Hashable {
    /// Nil: all addresses that are the host's own.
    let host: IPAddress?
    let hostPort: UInt16
    let transport: PortMapping.Transport
    let container: IPAddress
    let containerPort: UInt16

    /// As it is said to people: `198.51.100.2:80/tcp`.
    var place: String {
        let port = "\(hostPort)/\(transport.rawValue)"
        guard let host else { return "\(container.family == .v4 ? "0.0.0.0" : "[::]"):\(port)" }
        return host.family == .v4 ? "\(host):\(port)" : "[\(host)]:\(port)"
    }

    /// What two ports share that a packet could be meant for, whatever its address.
    struct Claim: Hashable {
        let family: IPAddress.Family
        let transport: PortMapping.Transport
        let port: UInt16
    }

    var claim: Claim { Claim(family: container.family, transport: transport, port: hostPort) }

    /// Whether a packet could be meant for both.
    func overlaps(_ other: PublishedPort) -> Bool {
        claim == other.claim && (host == nil || other.host == nil || host == other.host)
    }
}

extension PortMapping.Transport {
    /// IPPROTO_TCP …
    var number: UInt8 {
        switch self {
        case .tcp: UInt8(IPPROTO_TCP)
        case .udp: UInt8(IPPROTO_UDP)
        case .sctp: 132
        }
    }
}
